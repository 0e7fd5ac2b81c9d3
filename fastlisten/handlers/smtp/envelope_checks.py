"""MAIL and RCPT: which senders and which recipients are accepted.

Rules of this file: answers to MAIL and RCPT, and nothing after them. With `sender-must-match`, an
authenticated user may use only sender addresses whose mail the account receives. The null sender
is always allowed, as with Postfix's reject_sender_login_mismatch: users' programs send bounces too.

    recipient with a mailbox here     accepted for its account
    none, in a local domain           550 5.1.1; never handed to the relay, which might send it back
    in another domain                 the relay decides, if there is one and the client has logged
                                      in; else 550 5.7.1. LMTP has no relay.

While the accounts file may be half written, 451 takes the place of 550 (accounts_file.py).

The relay is asked at RCPT, so that the client learns which recipients it refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine.smtp_events import Recipient, Transaction
from fastlisten.handlers.smtp.message_delivery import MessageDelivery
from fastlisten.mail.accounts.roster import Account, Roster
from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.relay.connection import is_ours
from fastlisten.mail.relay.relay_error import LOOPS_BACK, RelayError
from fastlisten.mail.relay.session import RelaySession

__all__ = ["EnvelopeChecks"]

_UNKNOWN_RECIPIENT = reply(550, "5.1.1", "No such mailbox here")
_NO_RELAY = reply(550, "5.7.1", "Relay access denied")
_RELAY_NEEDS_LOGIN = reply(550, "5.7.1", "Relay access denied; authentication required")
_LOOKUP_FAILED = reply(451, "4.3.5", "Temporary lookup failure; try again later")

_LOGIN_REVOKED = reply(530, "5.7.0", "Authentication required; the account has changed since login")

#: RFC 5321 4.5.3.1.5: octets of a reply line, CRLF included.
_LONGEST_LINE = 512


class EnvelopeChecks(MessageDelivery):
    """A connection that accepts and refuses senders and recipients."""

    __slots__ = ()

    def _look_up(self, recipient: Recipient) -> None:
        """Answer RCPT; have the accounts read first if the file has changed."""
        if self._handler.office.accounts.current():
            self._answer_recipient(recipient)
        else:
            self._refresh(lambda: self._answer_recipient(recipient))

    def _refresh(self, then: Callable[[], None]) -> None:
        """Have the accounts read, and go on then."""
        loop = asyncio.get_running_loop()
        self._handler.office.refresh(loop, lambda: self._resume(then))

    # --- MAIL ---------------------------------------------------------------------------------

    def _check_sender(self, transaction: Transaction) -> None:
        """Answer MAIL; have the accounts read first if the file has changed."""
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
            self.engine.reject(_LOOKUP_FAILED)
            return
        valid = roster.admits(login)
        owner = roster.find(parse_mailbox(transaction.sender))
        if valid and owner is not None and owner.name == login.name:
            self.engine.accept()
        elif not roster.certain:
            self.engine.reject(_LOOKUP_FAILED)
        else:
            self.engine.reject(_not_owned(transaction, login) if valid else _LOGIN_REVOKED)

    # --- RCPT ---------------------------------------------------------------------------------

    def _answer_recipient(self, recipient: Recipient) -> None:
        roster = self._handler.office.accounts.roster
        if roster is None:
            self.engine.reject(_LOOKUP_FAILED)
            return
        mailbox = recipient.mailbox
        account = roster.find(mailbox)
        if account is not None:
            self._accounts[account.name] = account
            if self._handler.per_recipient:
                self._lmtp_accounts.append(account.name)
            self.engine.accept()
            return
        local = not mailbox.domain or roster.is_local(mailbox.domain)
        relay = self._handler.relay
        if not local and relay is not None and self._may_send(roster):
            if is_ours(self._info.peer, self._info.port):
                self.engine.reject(reply(*LOOPS_BACK))
            else:
                self._start(self._ask_relay, recipient)
        elif not roster.certain:
            self.engine.reject(_LOOKUP_FAILED)
        elif local:
            self.engine.reject(_UNKNOWN_RECIPIENT)
        else:
            self.engine.reject(_NO_RELAY if relay is None else _RELAY_NEEDS_LOGIN)

    def _may_send(self, roster: Roster) -> bool:
        """Return whether the client may use the relay: it has logged in, and still could.

        An account that has been removed, or whose password was changed because it was stolen, must
        not send any more, not even through sessions that are already open.
        """
        login = self._login
        if login is None or not self.engine.authenticated:
            return False
        return roster.admits(login)

    async def _ask_relay(self, recipient: Recipient) -> None:
        """Answer RCPT with the relay's reply."""
        relay, transaction = self._handler.relay, self.engine.transaction
        assert relay is not None
        assert transaction is not None
        relay_session = self._relay_session
        if relay_session is None:
            relay_session = RelaySession(relay, transaction, self._user)
            self._relay_session = relay_session
        try:
            await relay_session.recipient(recipient)
        except RelayError as error:
            answer = reply(*error.reply)
            self._handler.counts.relayed("recipient", answer)
            self.engine.reject(answer)
        else:
            self._handler.counts.relayed("recipient")
            self.engine.accept()


def _not_owned(transaction: Transaction, login: Account) -> bytes:
    """Return the refusal of a sender address that is not the account's, in Postfix's words."""
    text = f"<{transaction.sender}>: Sender address rejected: not owned by user"
    # RFC 6531 3.5: only a client that asked for SMTPUTF8 understands it.
    name = login.name if transaction.smtputf8 else login.name.encode("ascii", "replace").decode()
    answer = reply(553, "5.7.1", f"{text} {name}")
    if len(answer) > _LONGEST_LINE:
        answer = reply(553, "5.7.1", text)
    return answer
