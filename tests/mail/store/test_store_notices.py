"""Notices: a folder is looked at when something has happened, and only then.

Rules of this file: what is counted are refreshes, which go through a thread. Other processes are
real ones; what they have done is known when they have ended. Watches are counted in /proc.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.mail_store import compared_look, deliver
from support.waiting import PATIENCE

from fastlisten.mail.store import absorb, shared_folder
from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.interface import Flag, StoreMode
from fastlisten.mail.store.maildir_folder import MaildirFolder
from fastlisten.mail.store.notices import Notices
from fastlisten.mail.store.open_accounts import OpenAccounts

ADD, SEEN = StoreMode.ADD, Flag.SEEN


def watches() -> int:
    """Return how many inotify watches this process has."""
    count = 0
    for name in os.listdir("/proc/self/fdinfo"):
        try:
            text = Path("/proc/self/fdinfo", name).read_text(encoding="ascii")
        except FileNotFoundError:
            continue
        count += text.count("\ninotify ") + text.startswith("inotify ")
    return count


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every refresh: whether it looked into the directories."""
    found: list[bool] = []
    real = shared_folder._refreshed

    def counted(*arguments: Any, look_at_it: bool, **options: Any) -> Any:
        found.append(look_at_it)
        return real(*arguments, look_at_it=look_at_it, **options)

    monkeypatch.setattr(shared_folder, "_refreshed", counted)
    return found


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[tuple[OpenAccounts, MaildirAccount]]:
    """Open an account; check that all watches are given back."""
    before = watches()
    accounts = OpenAccounts.enter(str(directory))
    try:
        yield accounts, accounts.acquire(str(directory / "alice"))
        accounts.release(str(directory / "alice"))
    finally:
        await accounts.leave()
    assert watches() == before


Test = Callable[[OpenAccounts, MaildirAccount, Path, list[bool]], Awaitable[None]]


def in_account(test: Test) -> Callable[[Path, list[bool]], None]:
    def run(tmp_path: Path, looks: list[bool]) -> None:
        async def main() -> None:
            async with opened(tmp_path) as (accounts, account):
                await test(accounts, account, tmp_path / "alice", looks)

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


def elsewhere(root: Path, *lines: str) -> None:
    """Do something to an account in another process, with `index` and its INBOX `inbox`."""
    program = (
        "import sys",
        "from fastlisten.mail.store.index import Index",
        "from fastlisten.mail.store.pending import finish",
        "from fastlisten.mail.store import folders, flags, expunge, absorb",
        "from fastlisten.mail.store.interface import StoreMode, Flag",
        "index = Index(sys.argv[1], finish)",
        "inbox = folders.find(index, 'INBOX').id",
        *lines,
        "index.close()",
    )
    subprocess.run([sys.executable, "-c", "\n".join(program), str(root)], check=True)


async def settled(folder: MaildirFolder) -> None:
    """Sync until there is nothing to do."""
    for _ in range(1000):
        if folder.is_current():
            return
        await folder.sync()
        await asyncio.sleep(0.01)  # directories have to be unchanged for a while
    raise AssertionError("never current")


@in_account
async def test_nothing_is_looked_at_if_nothing_has_happened(
    accounts: OpenAccounts, account: MaildirAccount, root: Path, looks: list[bool]
) -> None:
    deliver(str(root))
    folder = await account.open("INBOX")
    await settled(folder)
    looks.clear()
    for _ in range(5):
        changes = await folder.sync()
        assert (changes.arrived, changes.changed, changes.gone) == ([], [], [])
        assert folder.is_current()
    await folder.keep_structures({1: b"kept"})  # which no client can see
    assert folder.is_current()
    for _ in range(3):
        again = await account.open("inbox")
        assert list(again.uids()) == [1]
        again.close()
    assert looks == []
    folder.close()


@in_account
async def test_what_other_processes_commit_is_noticed(
    accounts: OpenAccounts, account: MaildirAccount, root: Path, looks: list[bool]
) -> None:
    for _ in range(3):
        deliver(str(root))
    folder = await account.open("INBOX")
    await settled(folder)
    elsewhere(root, "flags.store(index, inbox, [2], StoreMode.ADD, Flag.SEEN, ['Word'])")
    assert not folder.is_current()
    changed = (await folder.sync()).changed
    assert [(one.uid, one.flags, one.keywords) for one in changed] == [(2, SEEN, ("Word",))]
    await settled(folder)
    looks.clear()
    # A keyword touches no file: the notice is the index's alone, and no directory is looked into.
    elsewhere(root, "flags.store(index, inbox, [3], StoreMode.ADD, Flag(0), ['Word'])")
    assert not folder.is_current()
    assert [one.uid for one in (await folder.sync()).changed] == [3]
    assert looks == [False]
    folder.close()


@in_account
async def test_foreign_programs_are_noticed(
    accounts: OpenAccounts, account: MaildirAccount, root: Path, looks: list[bool]
) -> None:
    folder = await account.open("INBOX")
    await settled(folder)
    name = deliver(str(root))
    assert not folder.is_current()
    assert [one.uid for one in (await folder.sync()).arrived] == [1]
    await settled(folder)
    os.rename(root / "cur" / f"{name}:2,", root / "cur" / f"{name}:2,S")
    assert not folder.is_current()
    assert [one.flags for one in (await folder.sync()).changed] == [SEEN]
    await settled(folder)
    os.unlink(root / "cur" / f"{name}:2,S")
    assert not folder.is_current()
    await settled(folder)
    assert list(folder.uids()) == []
    folder.close()


@in_account
async def test_own_changes_cause_no_comparison(
    accounts: OpenAccounts, account: MaildirAccount, root: Path, looks: list[bool]
) -> None:
    """A look compares times only; it lists cur/ if another program has been there."""
    for _ in range(3):
        deliver(str(root))
    folder = await account.open("INBOX")
    await settled(folder)
    await account.run(compared_look, int(folder.mailbox_id[1:]))
    listed: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        real = absorb._compare

        def counted(*arguments: Any) -> Any:
            listed.append(1)
            return real(*arguments)

        patch.setattr(absorb, "_compare", counted)
        await folder.store([1, 2], ADD, SEEN)
        await folder.sync()
        deliver(str(root))
        await folder.sync()
        await settled(folder)
        assert listed == []
        (root / "cur" / "foreign:2,").write_bytes(b"x")
        await folder.sync()
        assert len(listed) == 1
    folder.close()


@in_account
async def test_many_notices_to_many_sessions_are_one_look(
    accounts: OpenAccounts, account: MaildirAccount, root: Path, looks: list[bool]
) -> None:
    deliver(str(root))
    folders = [await account.open("INBOX") for _ in range(200)]
    await settled(folders[0])
    told: dict[int, int] = {}
    everyone = asyncio.Event()

    def waiting(number: int) -> Callable[[], None]:
        def called() -> None:
            told[number] = told.get(number, 0) + 1
            if len(told) == len(folders):
                everyone.set()

        return called

    for number, folder in enumerate(folders):
        folder.watch(waiting(number))
    looks.clear()
    for _ in range(500):
        deliver(str(root))
    await asyncio.wait_for(everyone.wait(), PATIENCE)
    assert len(looks) <= 2  # the second is of our own renames into cur/
    arrived = [len((await folder.sync()).arrived) for folder in folders]
    assert arrived == [500] * 200
    assert len(looks) <= 3
    await settled(folders[0])
    looks.clear()
    deliver(str(root))
    synced = await asyncio.gather(*(folder.sync() for folder in folders))
    assert [len(one.arrived) for one in synced] == [1] * 200
    assert len(looks) <= 2
    for folder in folders:
        folder.close()


@in_account
async def test_overflow_of_the_queue_is_a_notice_to_all(
    accounts: OpenAccounts, account: MaildirAccount, root: Path, looks: list[bool]
) -> None:
    folder = await account.open("INBOX")
    await settled(folder)
    notices = accounts.resources.notices
    assert notices is not None
    overflow = b"\xff\xff\xff\xff" + (0x4000).to_bytes(4, "little") + bytes(8)
    notices._tell(overflow)
    assert not folder.is_current()
    looks.clear()
    await folder.sync()
    assert looks == [True]
    folder.close()


@in_account
async def test_replaced_lock_is_watched_again(
    accounts: OpenAccounts, account: MaildirAccount, root: Path, looks: list[bool]
) -> None:
    """As if the directory had been restored from a backup."""
    deliver(str(root))
    folder = await account.open("INBOX")
    await settled(folder)
    (root / "index.lock").unlink()
    elsewhere(root, "flags.store(index, inbox, [1], StoreMode.ADD, Flag(0), ['One'])")
    assert not folder.is_current()
    await folder.sync()
    await settled(folder)
    elsewhere(root, "flags.store(index, inbox, [1], StoreMode.ADD, Flag(0), ['Two'])")
    assert not folder.is_current()
    await folder.sync()
    assert folder.keywords() == ["One", "Two"]
    folder.close()


def test_without_inotify_every_sync_looks(
    tmp_path: Path, looks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Notices, "add", lambda *_: -1)

    async def main() -> None:
        async with opened(tmp_path) as (_, account):
            folder = await account.open("INBOX")
            deliver(str(tmp_path / "alice"))
            assert not folder.is_current()
            assert len((await folder.sync()).arrived) == 1
            looks.clear()
            await folder.sync()
            assert looks == [True]
            folder.close()

    asyncio.run(main())


@in_account
async def test_watches_of_folders_that_are_deleted_are_given_back(
    accounts: OpenAccounts, account: MaildirAccount, root: Path, looks: list[bool]
) -> None:
    inbox = await account.open("INBOX")
    before = watches()
    await account.create("Work")
    work = await account.open("Work")
    assert watches() == before + 2
    await account.delete("Work")
    assert not work.is_current()
    work.close()
    # Removed by another program while nobody has it open.
    await account.create("Play")
    (await account.open("Play")).close()
    shutil.rmtree(root / ".Play")
    notices = accounts.resources.notices
    assert notices is not None
    notices.poll()
    assert watches() == len(notices)
    # There is no more room for it in memory.
    await account.create("Old")
    (await account.open("Old")).close()
    account._folders[-1].drop()
    assert watches() == len(notices)
    inbox.close()
