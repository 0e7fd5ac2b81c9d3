"""Whose mail is taken: the recipients of a transaction.

Rules of this file: answers to RCPT, and nothing after them.

    a mailbox here                    its account
    no mailbox, in a domain of ours   550 5.1.1; never handed to the relay, which might send it back
    another domain                    the relay, if the client is authenticated and there is one;
                                      else 550 5.7.1. LMTP has no relay.

As long as the accounts file may be half written, each 550 is a 451 (accounts_reader.py).

The relay is asked at RCPT, so that its refusals reach whom they concern.
"""

from __future__ import annotations

import asyncio

from fastlisten.handlers.smtp_events import Recipient
from fastlisten.handlers.smtp_messages import Messages
from fastlisten.handlers.smtp_relay_replies import RelayRefused
from fastlisten.handlers.smtp_replies import reply
from fastlisten.mail.accounts import Roster

__all__ = ["Transactions"]

_UNKNOWN_RECIPIENT = reply(550, "5.1.1", "No such mailbox here")
_NOT_FOR_OTHERS = reply(550, "5.7.1", "Mail for others is not taken here")
_LOGIN_FIRST = reply(550, "5.7.1", "Mail for others is not taken here without authentication")
_NO_ACCOUNTS = reply(451, "4.3.5", "Mailboxes are not known at the moment; try again later")


class Transactions(Messages):
    """The part of a connection that deals with mail."""

    __slots__ = ()

    def _look_up(self, recipient: Recipient) -> None:
        """Answer RCPT, or have the accounts read again first."""
        office = self._handler.office
        if office.accounts.current():
            self._answer_recipient(recipient)
        else:
            office.refresh(asyncio.get_running_loop(), lambda: self._looked_up(recipient))

    def _looked_up(self, recipient: Recipient) -> None:
        self._resume(lambda: self._answer_recipient(recipient))

    def _answer_recipient(self, recipient: Recipient) -> None:
        roster = self._handler.office.accounts.roster
        if roster is None:
            self.engine.reject(_NO_ACCOUNTS)
            return
        mailbox = recipient.mailbox
        account = roster.find(mailbox)
        if account is not None:
            self._accounts[account.name] = account
            if self._handler.per_recipient:
                self._homes.append(account.name)
            self.engine.accept()
            return
        local = not mailbox.domain or roster.is_local(mailbox.domain)
        relay = self._handler.relay
        if not local and relay is not None and self._may_send(roster):
            self._start(self._ask_relay, recipient)
        elif not roster.certain:
            self.engine.reject(_NO_ACCOUNTS)
        elif local:
            self.engine.reject(_UNKNOWN_RECIPIENT)
        else:
            self.engine.reject(_NOT_FOR_OTHERS if relay is None else _LOGIN_FIRST)

    def _may_send(self, roster: Roster) -> bool:
        """Whether the client may send to others: it has logged in, and still could.

        An account that has been removed, or given another password after the old one was stolen,
        sends nothing more, not even through sessions that were open then.
        """
        login = self._login
        if login is None or not self.engine.authenticated:
            return False
        return roster.admits(login)

    async def _ask_relay(self, recipient: Recipient) -> None:
        """Answer RCPT with what the relay says."""
        relay, transaction = self._handler.relay, self.engine.transaction
        assert relay is not None
        assert transaction is not None
        outgoing = self._outgoing
        if outgoing is None:
            outgoing = self._outgoing = relay.outgoing(transaction, self._user)
        try:
            await outgoing.recipient(recipient)
        except RelayRefused as error:
            self._handler.counts.relayed("recipient", error.reply)
            self.engine.reject(error.reply)
        else:
            self._handler.counts.relayed("recipient")
            self.engine.accept()
