"""APPEND asks threads once for a small message; what fails is said all the same.

Rules of this file: calls are counted, no time is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.interface import Flag, FolderNotFoundError
from fastlisten.mail.store.maildir_streams import BUFFERED


class CountingPool(Executor):
    """Counts what threads are given to do."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.calls = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.pool.submit(fn, *args, **kwargs)


def run(
    root: Path, work: Callable[[MaildirAccount, CountingPool], Coroutine[Any, Any, None]]
) -> None:
    pool = CountingPool()

    async def main() -> None:
        account = MaildirAccount(str(root), pool)
        await (await account.open("INBOX")).sync()
        await work(account, pool)
        await account.close()

    asyncio.run(main())
    pool.pool.shutdown()
    assert list((root / "tmp").iterdir()) == []


def contents(root: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (root / "cur").iterdir())


def test_small_messages_are_one_call(tmp_path: Path) -> None:
    async def work(account: MaildirAccount, pool: CountingPool) -> None:
        calls = pool.calls
        append = await account.append("INBOX")
        for number in range(3):
            await append.begin(Flag.SEEN, ["$Forwarded"], 1_000_000_000 + number)
            await append.add(b"Subject: x\r\n")
            await append.add(b"\r\n%d" % number)
        assert pool.calls == calls
        appended = await append.commit()
        assert pool.calls == calls + 1
        folder = await account.open("INBOX")
        found = await folder.facts(appended.uids)
        assert [one.date for one in found] == [1_000_000_000, 1_000_000_001, 1_000_000_002]
        state = folder.state(appended.uids[-1])
        assert (state.flags, state.keywords) == (Flag.SEEN, ("$Forwarded",))

    run(tmp_path, work)
    assert contents(tmp_path) == [b"Subject: x\r\n\r\n%d" % number for number in range(3)]


def test_large_message_does_not_stay_in_memory(tmp_path: Path) -> None:
    async def work(account: MaildirAccount, pool: CountingPool) -> None:
        append = await account.append("INBOX")
        await append.begin()
        for _ in range(10):
            await append.add(b"x" * (BUFFERED // 2))
        (staged,) = (tmp_path / "tmp").iterdir()
        assert staged.stat().st_size == 5 * BUFFERED
        await append.add(b"y")
        await append.commit()

    run(tmp_path, work)
    assert contents(tmp_path) == [b"x" * 5 * BUFFERED + b"y"]


def test_folder_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    async def work(account: MaildirAccount, pool: CountingPool) -> None:
        with pytest.raises(FolderNotFoundError):
            await account.append("Nowhere")

    run(tmp_path, work)


@pytest.mark.parametrize("renamed", [False, True])
def test_folder_that_goes_meanwhile_gets_nothing(tmp_path: Path, renamed: bool) -> None:
    async def work(account: MaildirAccount, pool: CountingPool) -> None:
        await account.create("Work")
        (await account.open("Work")).close()
        append = await account.append("Work")
        await append.begin()
        await append.add(b"lost")
        other = MaildirAccount(str(tmp_path), pool)  # as another process does it
        await (other.rename("Work", "Home") if renamed else other.delete("Work"))
        with pytest.raises(FolderNotFoundError):
            await append.commit()
        await append.abort()
        if renamed:
            assert (await other.status("Home")).messages == 0
        await other.close()

    run(tmp_path, work)


def test_nothing_is_done_for_what_is_dropped(tmp_path: Path) -> None:
    async def work(account: MaildirAccount, pool: CountingPool) -> None:
        calls = pool.calls
        append = await account.append("INBOX")
        with pytest.raises(ValueError, match="keyword"):
            await append.begin(keywords=["no keyword"])
        await append.begin()
        await append.add(b"x")
        await append.abort()
        assert pool.calls == calls

    run(tmp_path, work)
    assert contents(tmp_path) == []
