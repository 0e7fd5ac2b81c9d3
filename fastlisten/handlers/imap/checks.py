"""Checks of imap listeners' settings that concern each other.

Rules of this file: a listener that nobody could log in to is an error; a setting that merely has no
effect gets a warning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastlisten.handlers.check_interface import CheckedListener, CheckedProtocol

__all__ = ["check_imap"]


def check_imap(imap: CheckedProtocol) -> None:
    """Check all imap listeners."""
    for listener in imap.listeners:
        if listener["handler"] is None:
            _check_tls(listener)
            _check_literal(imap.name, listener)


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
