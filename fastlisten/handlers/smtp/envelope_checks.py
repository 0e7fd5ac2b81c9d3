"""Whose mail is taken: the sender of a transaction, and its recipients.

Rules of this file: answers to MAIL and RCPT, and nothing after them. Where `sender-must-match` is
set, a user who has logged in sends by addresses whose mail the account gets, and no others. The
empty sender is anybody's, as with Postfix's reject_sender_login_mismatch: users' programs send
notices, too.

    a mailbox here                    its account
    no mailbox, in a domain of ours   550 5.1.1; never handed to the relay, which might send it back
    another domain                    the relay, if the client is authenticated and there is one;
                                      else 550 5.7.1. LMTP has no relay.

As long as the accounts file may be half written, each 550 is a 451 (accounts_file.py).

The relay is asked at RCPT, so that its refusals reach whom they concern.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastlisten.handlers.smtp.engine.events import Recipient, Transaction
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.message_delivery import MessageDelivery
from fastlisten.mail.accounts.roster import Account, Roster
from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.relay.client import is_ours
from fastlisten.mail.relay.relay_error import TO_ONESELF, RelayError
from fastlisten.mail.relay.session import RelaySession

__all__ = ["EnvelopeChecks"]

_UNKNOWN_RECIPIENT = reply(550, "5.1.1", "No such mailbox here")
_NOT_FOR_OTHERS = reply(550, "5.7.1", "Relay access denied")
_LOGIN_FIRST = reply(550, "5.7.1", "Relay access denied; authentication required")
_NO_ACCOUNTS = reply(451, "4.3.5", "Temporary lookup failure; try again later")

_LOGIN_ENDED = reply(530, "5.7.0", "Authentication required; the account has changed since login")

#: RFC 5321 4.5.3.1.5: octets of a reply's line, its end included.
_LONGEST_LINE = 512


class EnvelopeChecks(MessageDelivery):
    """The part of a connection that deals with mail."""

    __slots__ = ()

    def _look_up(self, recipient: Recipient) -> None:
        """Answer RCPT, or have the accounts read again first."""
        if self._handler.office.accounts.current():
            self._answer_recipient(recipient)
        else:
            self._refresh(lambda: self._answer_recipient(recipient))

    def _refresh(self, then: Callable[[], None]) -> None:
        """Have the accounts read again, and go on."""
        loop = asyncio.get_running_loop()
        self._handler.office.refresh(loop, lambda: self._resume(then))

    # --- MAIL ---------------------------------------------------------------------------------

    def _check_sender(self, transaction: Transaction) -> None:
        """Answer MAIL, or have the accounts read again first."""
        login, sender = self._login, transaction.sender
        if login is None or not sender or not self._handler.sender_must_match:
            self.engine.accept()
        elif self._handler.office.accounts.current():
            self._answer_sender(login, transaction)
        else:
            self._refresh(lambda: self._answer_sender(login, transaction))

    def _answer_sender(self, login: Account, transaction: Transaction) -> None:
        roster = self._handler.office.accounts.roster
        if roster is None:
            self.engine.reject(_NO_ACCOUNTS)
            return
        valid = roster.admits(login)
        owner = roster.find(parse_mailbox(transaction.sender))
        if valid and owner is not None and owner.name == login.name:
            self.engine.accept()
        elif not roster.certain:
            self.engine.reject(_NO_ACCOUNTS)
        else:
            self.engine.reject(_not_owned(transaction, login) if valid else _LOGIN_ENDED)

    # --- RCPT ---------------------------------------------------------------------------------

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
            if is_ours(self._info.peer, self._info.port):
                self.engine.reject(reply(*TO_ONESELF))
            else:
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
            outgoing = self._outgoing = RelaySession(relay, transaction, self._user)
        try:
            await outgoing.recipient(recipient)
        except RelayError as error:
            answer = reply(*error.reply)
            self._handler.counts.relayed("recipient", answer)
            self.engine.reject(answer)
        else:
            self._handler.counts.relayed("recipient")
            self.engine.accept()


def _not_owned(transaction: Transaction, login: Account) -> bytes:
    """Return the verdict on a sender that is somebody else's, in Postfix's words."""
    text = f"<{transaction.sender}>: Sender address rejected: not owned by user"
    # RFC 6531 3.5: only who has asked for SMTPUTF8 can be answered in it.
    name = login.name if transaction.smtputf8 else login.name.encode("ascii", "replace").decode()
    answer = reply(553, "5.7.1", f"{text} {name}")
    if len(answer) > _LONGEST_LINE:
        answer = reply(553, "5.7.1", f"{text} (yours)")
    return answer
