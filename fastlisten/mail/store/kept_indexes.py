"""Indexes that threads use for a moment, and that stay open for the next one.

Rules of this file: which are open; called in any thread. Opening an index and closing it costs more
than most of what is done with it (726 µs and several syncs), so that some that nobody uses stay
open. One that has failed is closed: its directory may have been replaced or removed.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator

from fastlisten.mail.store.folders import discover
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.pending import finish

__all__ = ["KeptIndexes"]

logger = logging.getLogger("fastlisten.mail")

#: How many stay open that nobody uses; each takes some 400 kB and 3 descriptors.
MOST = 16


class _Kept:
    """An index, once it is open, and how many use it."""

    __slots__ = ("index", "opening", "users")

    def __init__(self) -> None:
        self.index: Index | None = None
        self.opening = threading.Lock()
        self.users = 0


class KeptIndexes:
    """The open indexes, by the account's directory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}  # the one that was used last comes last

    @contextlib.contextmanager
    def use(self, root: str) -> Iterator[Index]:
        """Use the index of an account, which is made if it is missing.

        Raises:
            OSError: the directory cannot be used.
            sqlite3.Error: the index cannot be used.
        """
        with self._lock:
            kept = self._kept.pop(root, None) or _Kept()
            self._kept[root] = kept
            kept.users += 1
        try:
            with kept.opening:
                if kept.index is None:
                    kept.index = _opened(root)
            yield kept.index
        except (OSError, sqlite3.Error):
            with self._lock:
                if self._kept.get(root) is kept:
                    del self._kept[root]
            raise
        finally:
            self._release(kept, root)

    def _release(self, kept: _Kept, root: str) -> None:
        """Count one user less, and close what need not stay open."""
        with self._lock:
            kept.users -= 1
            spare = [] if kept.users or self._kept.get(root) is kept else [kept]
            idle = [name for name, one in self._kept.items() if not one.users]
            spare += [self._kept.pop(name) for name in idle[: max(0, len(idle) - MOST)]]
        for one in spare:
            _close(one)

    def close(self) -> None:
        """Close all; nobody uses one any more."""
        with self._lock:
            spare = list(self._kept.values())
            self._kept.clear()
        for one in spare:
            _close(one)


def _opened(root: str) -> Index:
    index = Index(root, finish)
    try:
        discover(index)
    except BaseException:
        index.close()
        raise
    return index


def _close(kept: _Kept) -> None:
    if kept.index is not None:
        try:
            kept.index.close()
        except (OSError, sqlite3.Error) as error:
            logger.warning("%s: index: %s", kept.index.maildir.path, error)
