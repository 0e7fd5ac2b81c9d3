"""Post offices for tests, deliveries whose stages can be awaited, and the files that they leave."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.delivery_queue import sync_directories
from fastlisten.mail.delivery.message_writer import SPOOL_SIZE, MessageWriter
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.maildir.spool import unique_name
from support.kernel import open_below

ALICE, BOB, CAROL = (Account(f"{name}@example.org") for name in ("alice", "bob", "carol"))
ALL = [ALICE, BOB, CAROL]

#: Sizes of messages that stay in memory, and of some that are spooled.
SIZES = [0, 100, SPOOL_SIZE + 1, 3 * SPOOL_SIZE + 5]


def running() -> set[threading.Thread]:
    """Return the running threads of post offices; a server that a test talks to has its own."""
    pools = ("delivery", "logins")
    return {one for one in threading.enumerate() if one.name.startswith(pools)}


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[PostOffice]:
    """Open a post office; check that it leaves no threads and descriptors."""
    threads, before = running(), open_below(directory)
    office = PostOffice.enter(str(directory))
    try:
        yield office
    finally:
        await asyncio.to_thread(office.leave)
        assert running() <= threads
        assert open_below(directory) == before


def in_office(test: Callable[[PostOffice], Awaitable[None]]) -> Callable[[Path], None]:
    """Run a test in a post office."""

    def run(tmp_path: Path) -> None:
        async def main() -> None:
            async with opened(tmp_path) as office:
                await test(office)

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


class WatchedDelivery:
    """A delivery whose stages can be awaited."""

    def __init__(self, office: PostOffice, accounts: list[Account], **options: Any) -> None:
        self.changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.delivery = MessageWriter(
            office, accounts, unique_name(), loop, self.changed.set, **options
        )

    def fill(self, size: int) -> bytes:
        content = os.urandom(size)
        for start in range(0, size, 50_000):
            self.delivery.add(content[start : start + 50_000])
        return content

    async def until(self, stage: Callable[[MessageWriter], bool]) -> None:
        while not stage(self.delivery):
            self.changed.clear()
            await self.changed.wait()

    async def prepare(self) -> None:
        self.delivery.prepare()
        await self.until(lambda it: it.prepared or it.done)

    async def commit(self) -> None:
        self.delivery.commit()
        await self.until(lambda it: it.done)


def commit(staged: StagedMessage) -> None:
    """Deliver a message that has been written, without its pool."""
    staged.prepare()
    staged.settle(sync_directories(staged.move()))


def files(office: PostOffice) -> list[str]:
    """Return the folder of each file below the data directory."""
    root = office.mail.parent
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(str(path.parent) for path in found)


def new(*accounts: Account) -> list[str]:
    """Return what `files` returns if each account has one new message."""
    return [f"mail/{account.name}/new" for account in accounts]
