"""What an account holds while one session waits for mail: few and small objects.

Rules of this file: octets and blocks are counted by tracemalloc, of what the store has allocated;
what the first accounts cost is left out. The bounds are a fifth above what it is now.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

from support.mail_store import deliver

from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.maildir_folder import MaildirFolder
from fastlisten.mail.store.open_accounts import OpenAccounts

#: Octets, and blocks, of an account with one message and one session.
OCTETS, BLOCKS = 2000, 26

FIRST, MORE = 4, 12


class Session:
    """Who waits."""

    __slots__ = ("folder",)

    def __init__(self, folder: MaildirFolder) -> None:
        self.folder = folder
        folder.watch(self.noticed)

    def noticed(self) -> None:
        """Nothing is done with it."""


async def waiting(accounts: OpenAccounts, root: str) -> tuple[MaildirAccount, Session]:
    """Have a session wait, as after a while: the index is closed."""
    account = accounts.acquire(root)
    session = Session(await account.open("INBOX"))
    await account._use.close_index()
    return account, session


def taken() -> tuple[int, int]:
    """Return how much the store has allocated: octets and blocks."""
    gc.collect()
    found = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(True, "*/fastlisten/mail/store/*")]
    )
    statistics = found.statistics("filename")
    return sum(one.size for one in statistics), sum(one.count for one in statistics)


def test_account_of_a_session_that_waits_is_small(tmp_path: Path) -> None:
    roots = [str(tmp_path / f"user{number}") for number in range(FIRST + MORE)]
    for root in roots:
        deliver(root)

    async def main() -> None:
        accounts = OpenAccounts.enter(str(tmp_path))
        held = [await waiting(accounts, root) for root in roots[:FIRST]]
        before = taken()
        held += [await waiting(accounts, root) for root in roots[FIRST:]]
        octets, blocks = ((b - a) / MORE for a, b in zip(before, taken(), strict=True))
        assert octets <= OCTETS
        assert blocks <= BLOCKS
        for root, (_, session) in zip(roots, held, strict=True):
            session.folder.close()
            accounts.release(root)
        await accounts.leave()

    tracemalloc.start()
    try:
        asyncio.run(main())
    finally:
        tracemalloc.stop()
