"""The Maildir store behind the interface: sessions of one folder, errors, what is given back."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.kernel import open_below
from support.mail_store import deliver
from support.waiting import PATIENCE

from fastlisten.mail.store import shared_folder
from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import (
    Account,
    Append,
    Flag,
    Folder,
    FolderExistsError,
    FolderNotFoundError,
    MessageGoneError,
    Octets,
    StoreFullError,
    StoreMode,
    StoreUnavailableError,
)

ADD, S, T = StoreMode.ADD, Flag.SEEN, Flag.DELETED


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Account]:
    """Open an account; check that it gives back what it takes."""
    with ThreadPoolExecutor(4) as pool:
        account = MaildirAccount(str(root), pool)
        try:
            yield account
        finally:
            await account.close()
    assert open_below(root) == []


def in_account(test: Callable[[Account, Path], Awaitable[None]]) -> Callable[[Path], None]:
    """Run a test with an account."""

    def run(tmp_path: Path) -> None:
        async def main() -> None:
            async with opened(tmp_path) as account:
                await test(account, tmp_path)

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


async def append(account: Account, *contents: bytes, folder: str = "INBOX") -> list[int]:
    appending: Append = await account.append(folder)
    for content in contents:
        await appending.begin()
        await appending.add(content)
    return list((await appending.commit()).uids)


async def read(folder: Folder, uid: int) -> bytes:
    octets: Octets = await folder.message(uid)
    try:
        return await octets.read(0, octets.size)
    finally:
        octets.close()


@in_account
async def test_mail_from_delivery_to_expunge(account: Account, root: Path) -> None:
    deliver(str(root), b"Subject: a\r\n\r\na\r\n")
    folder = await account.open("inbox")
    assert (folder.name, list(folder.uids()), folder.uidnext) == ("INBOX", [1], 2)
    assert await read(folder, 1) == b"Subject: a\r\n\r\na\r\n"
    stored = await folder.store([1], ADD, S | T, ["Word"])
    assert [one.flags for one in stored.changed] == [S | T]
    assert folder.state(1).flags == 0  # as of the last sync
    found = await folder.sync()
    assert list(found.changed) == list(stored.changed)
    assert folder.state(1).flags == S | T
    assert folder.keywords() == ["Word"]
    assert folder.highestmodseq == (await account.status("INBOX")).highestmodseq
    assert await folder.expunge() == [1]
    assert list(folder.uids()) == [1]
    assert (await folder.sync()).gone == [1]
    assert list(folder.uids()) == []
    assert folder.uidnext == 2
    with pytest.raises(MessageGoneError):
        await folder.message(1)


@in_account
async def test_two_sessions_of_a_folder(account: Account, root: Path) -> None:
    await append(account, b"1", b"2", b"3")
    one, two = await account.open("INBOX"), await account.open("INBOX", read_only=True)
    assert (list(one.recent), list(two.recent), two.read_only) == ([range(1, 4)], [], True)
    await one.store([2], ADD, T)
    await one.expunge()
    await append(account, b"4")
    await one.sync()
    assert list(one.uids()) == [1, 3, 4]
    assert list(two.uids()) == [1, 2, 3]
    found = await two.sync(expunge=False)
    assert ([one.uid for one in found.arrived], list(found.gone)) == ([4], [])
    assert list(two.uids()) == [1, 2, 3, 4]
    assert (await two.sync()).gone == [2]
    assert list(two.uids()) == [1, 3, 4]
    assert (await two.changes(0)).complete


@in_account
async def test_sessions_that_sync_at_the_same_time(account: Account, root: Path) -> None:
    folders = [await account.open("INBOX") for _ in range(6)]
    for number in range(12):
        work = [append(account, b"%d" % number), *(folder.sync() for folder in folders)]
        if number > 2:
            await folders[0].store([number - 2], ADD, T)
            work.append(folders[1].expunge([number - 2]))
        await asyncio.gather(*work)
    for folder in folders:
        await folder.sync()
        assert list(folder.uids()) == [10, 11, 12]
        assert folder.uidnext == 13


def test_slow_sync_does_not_bring_back_what_a_faster_one_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message arrives after the slow one has begun, is seen by the other, and goes."""

    async def main() -> None:
        async with opened(tmp_path) as account:
            slow, fast = await account.open("INBOX"), await account.open("INBOX")
            real, begun, go_on = shared_folder._refreshed, threading.Event(), threading.Event()

            def waiting(*arguments: Any, **options: Any) -> Any:
                if not begun.is_set():
                    begun.set()
                    assert go_on.wait(PATIENCE)
                return real(*arguments, **options)

            monkeypatch.setattr(shared_folder, "_refreshed", waiting)
            syncing = asyncio.create_task(slow.sync())
            await asyncio.to_thread(begun.wait, PATIENCE)
            await append(account, b"x")
            assert len((await fast.sync()).arrived) == 1
            await fast.store([1], ADD, T)
            await fast.expunge()
            go_on.set()
            await syncing
            await fast.sync()
            assert list(slow.uids()) == list(fast.uids()) == []

    asyncio.run(main())


@in_account
async def test_other_accounts_objects_see_each_other(account: Account, root: Path) -> None:
    """As those of other workers."""
    with ThreadPoolExecutor(2) as pool:
        other = MaildirAccount(str(root), pool)
        mine, theirs = await account.open("INBOX"), await other.open("INBOX")
        await append(other, b"x")
        assert [one.uid for one in (await mine.sync()).arrived] == [1]
        await mine.store([1], ADD, T)
        await mine.expunge()
        assert (await theirs.sync()).gone == []  # it came and went in between
        assert list(theirs.uids()) == []
        # SQLite keeps a descriptor until the process's last connection is closed.
        await other.close()


@in_account
async def test_copy_move_and_folders(account: Account, root: Path) -> None:
    await append(account, b"1", b"2")
    await account.create("Work", "Archive")
    inbox, work = await account.open("INBOX"), await account.open("Work")
    copied = await inbox.copy([1], "work".title())
    moved = await inbox.move([2], "Work")
    assert (list(copied.targets), list(moved.targets)) == ([1], [2])
    await work.sync()
    assert [await read(work, uid) for uid in work.uids()] == [b"1", b"2"]
    facts = [*await inbox.facts([1]), *await work.facts([1, 2])]
    assert facts[0].email_id == facts[1].email_id != facts[2].email_id
    await work.keep_structures({2: b"kept"})
    assert (await work.facts([2]))[0].structure == b"kept"
    await account.rename("Work", "Play")
    assert (await work.sync()).complete  # it is the same folder
    assert (await account.status("Play")).mailbox_id == work.mailbox_id
    with pytest.raises(FolderNotFoundError):
        await inbox.copy([1], "Work")
    with pytest.raises(FolderExistsError):
        await account.create("Play")
    await account.delete("Play")
    with pytest.raises(FolderNotFoundError):
        await work.sync()
    await account.subscribe("Play", False)
    assert [one.name for one in await account.folders()] == ["INBOX", "Work"]


@in_account
async def test_renamed_inbox_stays_and_its_messages_move(account: Account, root: Path) -> None:
    await append(account, *(b"%d" % number for number in range(5)))
    deliver(str(root))
    await account.rename("INBOX", "Old")
    assert (await account.status("INBOX")).messages == 0
    assert (await account.status("Old")).messages == 6
    assert [one.name for one in await account.folders()] == ["INBOX", "Old"]


@in_account
async def test_octets_of_lf_and_parts(account: Account, root: Path) -> None:
    await append(account, b"a\nb\n" * 1000, b"a\r\nb\r\n" * 1000)
    folder = await account.open("INBOX")
    for uid in (1, 2):
        octets = await folder.message(uid)
        assert octets.size == 6000
        assert await octets.read(5998, 10) == b"\r\n"
        assert await octets.read(3, 4) == b"b\r\na"
        assert await octets.read(6000, 1) == b""
        octets.close()


@in_account
async def test_watchers_are_called_once_for_several_changes(account: Account, root: Path) -> None:
    folder = await account.open("INBOX")
    calls: list[int] = []
    called = asyncio.Event()

    def callback() -> None:
        calls.append(1)
        called.set()

    folder.watch(callback)
    await append(account, b"1")
    await asyncio.wait_for(called.wait(), PATIENCE)
    assert calls == [1]
    folder.watch(None)
    await append(account, b"2")
    await folder.sync()
    assert calls == [1]
    folder.close()


@in_account
async def test_aborted_append(account: Account, root: Path) -> None:
    appending = await account.append("INBOX")
    await appending.begin(S, ["Word"], 5)
    await appending.add(b"x")
    await appending.abort()
    assert (await account.status("INBOX")).messages == 0
    assert os.listdir(root / "tmp") == []
    with pytest.raises(FolderNotFoundError):
        await account.append("Missing")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StoreFullError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StoreFullError),
        (OSError(errno.EIO, "Input/output error"), StoreUnavailableError),
        (OSError(errno.EROFS, "Read-only file system"), StoreUnavailableError),
        (sqlite3.OperationalError("database or disk is full"), StoreFullError),
        (sqlite3.OperationalError("disk I/O error"), StoreUnavailableError),
        (sqlite3.DatabaseError("database disk image is malformed"), StoreUnavailableError),
    ],
)
def test_errors_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception]
) -> None:
    async def main() -> None:
        async with opened(tmp_path) as account:
            folder = await account.open("INBOX")

            def failing(*_: object, **__: object) -> None:
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(Index, "transaction", failing)
                appending = await account.append("INBOX")
                await appending.begin()
                with pytest.raises(expected):
                    await appending.commit()
            assert os.listdir(tmp_path / "tmp") == []
            await append(account, b"x")
            await folder.sync()
            assert list(folder.uids()) == [1]

    asyncio.run(main())
