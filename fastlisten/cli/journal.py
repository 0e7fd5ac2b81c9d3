"""Levels for systemd's journal: the prefix of a line that sd-daemon(3) describes.

Rules of this file: whether a stream ends in the journal, and the prefix. The journal takes it
off, so that `journalctl -p warning` finds what it should; any other reader would see it, and gets
none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TextIO

__all__ = ["at_level", "is_journal", "with_level"]

#: The priorities of syslog(3).
_ERR, _WARNING, _INFO, _DEBUG = 3, 4, 6, 7


def is_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether what is written to a stream goes to the journal.

    The manager passes device and inode of the stream that it has connected (JOURNAL_STREAM,
    systemd.exec(5)), because a program that was started by a service may write somewhere else.
    """
    connected = environ.get("JOURNAL_STREAM", "")
    if not connected:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no descriptor, or one that is closed
        return False
    return connected == f"{found.st_dev}:{found.st_ino}"


def with_level(text: str, level: int) -> str:
    """Return a text whose lines have the prefix of a level of `logging`."""
    if level >= logging.ERROR:
        priority = _ERR
    elif level >= logging.WARNING:
        priority = _WARNING
    else:
        priority = _INFO if level >= logging.INFO else _DEBUG
    prefix = f"<{priority}>"
    return prefix + text.replace("\n", f"\n{prefix}")


def at_level(text: str, level: int, stream: TextIO) -> str:
    """Return a text as it is to be written to a stream: with the level if that is the journal."""
    return with_level(text, level) if is_journal(stream) else text
