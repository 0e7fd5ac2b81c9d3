"""Reading messages again: without a thread where their files are known, and never a wrong one.

Rules of this file: threads are counted, no time is measured.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.mail_store import deliver

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store import known_files
from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.interface import (
    Flag,
    MessageGoneError,
    StoreMode,
    StoreUnavailableError,
)
from fastlisten.mail.store.known_files import KnownFile, KnownFiles
from fastlisten.mail.store.maildir_folder import MaildirFolder


class CountingPool(Executor):
    """Counts what threads are given to do."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.calls = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.pool.submit(fn, *args, **kwargs)


@pytest.fixture
def pool() -> Iterator[CountingPool]:
    pool = CountingPool()
    yield pool
    pool.pool.shutdown()


async def opened(
    root: Path, pool: Executor, *messages: bytes
) -> tuple[MaildirAccount, MaildirFolder]:
    box = Maildir(str(root))
    box.prepare()
    for number, data in enumerate(messages, 1):
        deliver(box, data, f"{number}.a")
    account = MaildirAccount(str(root), pool)
    return account, await account.open("INBOX")


async def content(folder: MaildirFolder, uid: int, offset: int = 0, size: int = 1 << 20) -> bytes:
    octets = await folder.message(uid)
    try:
        return await octets.read(offset, size)
    finally:
        octets.close()


def files_of(root: Path) -> list[Path]:
    return sorted((root / "cur").iterdir())


@pytest.mark.parametrize("data", [b"a\r\n\r\nb\0\r\n", b"a\n\nb\n", b""])
def test_message_is_read_again_without_a_thread(
    tmp_path: Path, pool: CountingPool, data: bytes
) -> None:
    async def main() -> None:
        account, folder = await opened(tmp_path, pool, data)
        served = data if b"\r" in data else data.replace(b"\n", b"\r\n")
        assert await content(folder, 1) == served
        calls = pool.calls
        for offset in range(len(served) + 2):
            assert await content(folder, 1, offset, 3) == served[offset : offset + 3]
        octets = await folder.message(1)
        assert await octets.read(0, 2) + await octets.read(2, 99) == served
        octets.close()
        assert pool.calls == calls
        await account.close()

    asyncio.run(main())


def test_facts_of_many_are_one_question(tmp_path: Path, pool: CountingPool) -> None:
    async def main() -> None:
        account, folder = await opened(tmp_path, pool, b"one\n", b"two", b"threee")
        calls = pool.calls
        assert [one.size for one in await folder.facts([1, 3])] == [5, 6]
        assert [await content(folder, uid) for uid in (1, 3)] == [b"one\r\n", b"threee"]
        assert pool.calls == calls + 1
        found = await folder.facts([1, 2, 3, 4])
        assert [(one.uid, one.size) for one in found] == [(1, 5), (2, 3), (3, 6)]
        assert pool.calls == calls + 2
        assert await folder.facts([1, 2, 3]) == found
        assert pool.calls == calls + 2
        await account.close()

    asyncio.run(main())


def test_kept_structure_is_returned(tmp_path: Path, pool: CountingPool) -> None:
    async def main() -> None:
        account, folder = await opened(tmp_path, pool, b"one", b"two")
        await folder.facts([1, 2])
        await folder.keep_structures({1: b"first", 2: b"x" * 5000})
        for _ in range(2):
            structures = [one.structure for one in await folder.facts([1, 2])]
            assert structures == [b"first", b"x" * 5000]
        await account.close()

    asyncio.run(main())


def test_file_that_another_program_moves_is_found(tmp_path: Path, pool: CountingPool) -> None:
    async def main() -> None:
        account, folder = await opened(tmp_path, pool, b"one")
        await content(folder, 1)
        (path,) = files_of(tmp_path)
        path.rename(f"{path}FS")
        assert await content(folder, 1) == b"one"
        await folder.store([1], StoreMode.ADD, Flag.ANSWERED)
        assert await content(folder, 1) == b"one"
        await account.close()

    asyncio.run(main())


@pytest.mark.parametrize("data", [b"TWO", b"other octets\r\n", b"lf\n"])
def test_file_that_is_another_one_is_not_taken_for_it(
    tmp_path: Path, pool: CountingPool, data: bytes
) -> None:
    async def main() -> None:
        account, folder = await opened(tmp_path, pool, b"one")
        await content(folder, 1)
        (path,) = files_of(tmp_path)
        other = tmp_path / "other"
        other.write_bytes(data)
        other.replace(path)
        served = data.replace(b"\n", b"\r\n") if data == b"lf\n" else data
        assert await content(folder, 1) == served
        assert [one.size for one in await folder.facts([1])] == [len(served)]
        await account.close()

    asyncio.run(main())


def test_link_is_not_followed(tmp_path: Path, pool: CountingPool) -> None:
    async def main() -> None:
        account, folder = await opened(tmp_path, pool, b"one")
        await content(folder, 1)
        (path,) = files_of(tmp_path)
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StoreUnavailableError):
            await content(folder, 1)
        await account.close()

    asyncio.run(main())


def test_message_that_has_been_expunged_is_gone(tmp_path: Path, pool: CountingPool) -> None:
    async def main() -> None:
        account, folder = await opened(tmp_path, pool, b"one", b"two")
        await content(folder, 1)
        await folder.store([1], StoreMode.ADD, Flag.DELETED)
        await folder.expunge()
        with pytest.raises(MessageGoneError):
            await content(folder, 1)
        await folder.sync()
        assert [one.uid for one in await folder.facts([1, 2])] == [2]
        await account.close()

    asyncio.run(main())


def test_without_openat2_a_thread_reads(
    tmp_path: Path, pool: CountingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_files, "_syscall", lambda *_: -1)

    async def main() -> None:
        account, folder = await opened(tmp_path, pool, b"one")
        for _ in range(2):
            calls = pool.calls
            assert await content(folder, 1) == b"one"
            assert pool.calls == calls + 1
        await account.close()

    asyncio.run(main())


def test_no_descriptor_is_left(tmp_path: Path, pool: CountingPool) -> None:
    async def main() -> None:
        account, folder = await opened(tmp_path, pool, b"one")
        await content(folder, 1)
        before = os.listdir("/proc/self/fd")
        for data in (b"one", b"another"):
            files_of(tmp_path)[0].write_bytes(data)
            await content(folder, 1)
            await content(folder, 1)
        assert os.listdir("/proc/self/fd") == before
        await account.close()

    asyncio.run(main())


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fastlisten.mail.store.files import Inspected
    from fastlisten.mail.store.interface import Facts

    monkeypatch.setattr(known_files, "MOST", 3)
    files = KnownFiles()
    keys = [("a", 1, 1, uid) for uid in range(5)]
    for key in keys:
        files.put(key, KnownFile("x", Inspected(1, 0, 1, 1, 1), Facts(key[3], 1, 1, "E1")))
    assert [files.get(key) is not None for key in keys] == [False, False, True, True, True]
