"""MAIL: which senders are accepted from users.

Rules of this file: one decision, no I/O. With `sender-must-match`, an authenticated user may use
only sender addresses whose mail the account receives. The null sender is always allowed, as with
Postfix's reject_sender_login_mismatch: users' programs send bounces too. While the accounts file
may be half written, 451 takes the place of a refusal (accounts_file.py).
"""

from __future__ import annotations

from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine.smtp_events import Transaction
from fastlisten.mail.accounts.roster import Account, Roster
from fastlisten.mail.address import parse_mailbox

__all__ = ["sender_refusal"]

_LOOKUP_FAILED = reply(451, "4.3.5", "Temporary lookup failure; try again later")
_LOGIN_REVOKED = reply(530, "5.7.0", "Authentication required; the account has changed since login")

#: RFC 5321 4.5.3.1.5: octets of a reply line, CRLF included.
_LONGEST_LINE = 512


def sender_refusal(roster: Roster | None, login: Account, transaction: Transaction) -> bytes | None:
    """Return the refusal of a sender that must be the user's own; None if it is.

    Args:
        roster: the accounts, None if they cannot be read.
        login: the account that the client has logged in to, as it was then.
        transaction: the sender's; it has one.
    """
    if roster is None:
        return _LOOKUP_FAILED
    valid = roster.admits(login)
    owner = roster.find(parse_mailbox(transaction.sender))
    if valid and owner is not None and owner.name == login.name:
        return None
    if not roster.certain:
        return _LOOKUP_FAILED
    return _not_owned(transaction, login) if valid else _LOGIN_REVOKED


def _not_owned(transaction: Transaction, login: Account) -> bytes:
    """Return the refusal of a sender address that is not the account's, in Postfix's words."""
    text = f"<{transaction.sender}>: Sender address rejected: not owned by user"
    # RFC 6531 3.5: only a client that asked for SMTPUTF8 understands it.
    name = login.name if transaction.smtputf8 else login.name.encode("ascii", "replace").decode()
    answer = reply(553, "5.7.1", f"{text} {name}")
    if len(answer) > _LONGEST_LINE:
        answer = reply(553, "5.7.1", text)
    return answer
