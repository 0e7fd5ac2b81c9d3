"""A new index for an account: new UIDs under a new UIDVALIDITY, from what the files say.

Rules of this file: blocking. Keywords, subscriptions and roles come from the old index, by way of
the snapshot (index_snapshot.py). What is pending is done first. A crash leaves the old index, or
none: then whoever opens it next makes it, from the same snapshot.
"""

from __future__ import annotations

from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.folders import discover
from fastlisten.mail.store.index import Index

__all__ = ["rebuild"]


def rebuild(index: Index) -> None:
    """Make the index again, and find all messages.

    Raises:
        OSError, sqlite3.Error: it cannot be done.
    """
    with index.locked():
        index.renew()
    discover(index)
    for (folder,) in index.query("SELECT id FROM folder"):
        look(index, folder, thorough=True)
