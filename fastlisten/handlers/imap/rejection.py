"""Why a command cannot be carried out, and what the client is told.

Rules of this file: exceptions, and errors of the store as responses. Commands raise them; the
session answers.
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.mail.store.interface import (
    FolderExistsError,
    FolderNotFoundError,
    FolderRefusedError,
    LimitReachedError,
    MessageGoneError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)

__all__ = ["BrokenOffError", "ClientGoneError", "MailboxDeletedError", "Rejected", "code_of"]

_CODES: tuple[tuple[type[StoreError], bytes], ...] = (
    (FolderNotFoundError, codes.NONEXISTENT),
    (FolderExistsError, codes.ALREADYEXISTS),
    (FolderRefusedError, codes.CANNOT),
    (MessageGoneError, codes.EXPUNGEISSUED),
    (StoreFullError, codes.OVERQUOTA),
    (LimitReachedError, codes.LIMIT),
    (StoreUnavailableError, codes.UNAVAILABLE),
)


class Rejected(Exception):  # noqa: N818 - a verdict on the client's command, not a fault of ours
    """A command that is answered with NO, or with BAD.

    Args:
        text: for people.
        code: the response code.
        bad: the command is wrong.
    """

    def __init__(self, text: str, code: bytes = b"", *, bad: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.bad = bad


class MailboxDeletedError(Exception):
    """The selected mailbox is no more: the session cannot go on (RFC 2180 3.3)."""


class ClientGoneError(Exception):
    """The connection is lost: nobody waits for the rest of a response."""


class BrokenOffError(Exception):
    """A response cannot be completed of which octets have been sent already."""


def code_of(error: StoreError, *, target: bool = False) -> bytes:
    """Return the response code for an error of the store.

    Args:
        error: the error.
        target: it is about a mailbox that messages were to be put into (RFC 3501 6.3.11, 6.4.7).
    """
    if target and isinstance(error, FolderNotFoundError):
        return codes.TRYCREATE
    return next((code for kind, code in _CODES if isinstance(error, kind)), b"")
