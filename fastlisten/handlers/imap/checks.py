"""Checks of imap listeners' settings that concern each other.

Rules of this file: a listener that nobody could log in to is an error; a setting that merely has no
effect gets a warning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlisten.mail.maildir.folder_names import FolderNameError, directory_of

if TYPE_CHECKING:
    from fastlisten.handlers.check_interface import CheckedListener, CheckedProtocol

__all__ = ["check_imap"]


def check_imap(imap: CheckedProtocol) -> None:
    """Check all imap listeners."""
    for listener in imap.listeners:
        if listener["handler"] is None:
            _check_tls(listener)
            _check_literal(imap.name, listener)
            _check_folders(imap.name, listener)


def _check_tls(listener: CheckedListener) -> None:
    """Report a listener without TLS: passwords are taken over TLS only."""
    if not (listener["tls.implicit"] or listener.starttls):
        listener.error("tls.enable", "nobody could log in here: imap takes passwords over TLS only")


def _check_literal(protocol: str, listener: CheckedListener) -> None:
    """Warn where commands are too short for the largest literal that is set."""
    literal, line = f"{protocol}.max-literal", f"{protocol}.max-line"
    if any(listener.is_wrong(key) for key in (literal, line)) or not listener.is_set(literal):
        return
    if listener[literal] > listener[line]:
        message = f"this has no effect beyond {line}, which is smaller"
        listener.warning(literal, message)


def _check_folders(protocol: str, listener: CheckedListener) -> None:
    """Report names that no folder can have, or two have."""
    names: dict[str, str] = {}
    for use in ("drafts", "sent", "junk", "trash", "archive"):
        key = f"{protocol}.folders.{use}"
        name = None if listener.is_wrong(key) else listener[key]
        if name is None:
            continue
        try:
            directory = directory_of(name)
        except FolderNameError as error:
            listener.error(key, str(error))
            continue
        if name.upper() == "INBOX":
            listener.error(key, "INBOX has a use of its own")
        elif directory in names:
            listener.error(key, f"this is the name of {names[directory]} too")
        names[directory] = key
