"""What stays open: indexes up to a limit, accounts for a while, folders as long as there is room.

Rules of this file: limits are made small; what is open is seen in /proc.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.kernel import open_below
from support.mail_store import deliver
from support.waiting import PATIENCE

from fastlisten.mail.store import open_accounts, resources
from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, StoreMode
from fastlisten.mail.store.open_accounts import OpenAccounts


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "OPEN_INDEXES", 2)
    monkeypatch.setattr(open_accounts, "UNUSED_ACCOUNTS", 2)


def locks_below(directory: Path) -> int:
    """Return how many indexes are open."""
    return sum(path.endswith("/index.lock") for path in open_below(directory))


def in_memory(account: MaildirAccount) -> int:
    """Return how many folders of an account are in memory."""
    return len(account._folders)


async def closed(accounts: OpenAccounts) -> None:
    """Wait until what is being closed is."""
    while accounts._closing:
        await asyncio.wait(accounts._closing, timeout=PATIENCE)


def test_indexes_that_are_not_used_are_closed(tmp_path: Path) -> None:
    async def main() -> None:
        accounts = OpenAccounts.enter(str(tmp_path))
        roots = [str(tmp_path / f"user{number}") for number in range(6)]
        folders = [await accounts.acquire(root).open("INBOX") for root in roots]
        assert locks_below(tmp_path) == 2
        # All of them answer as before, whatever is open.
        for root, folder in zip(roots, folders, strict=True):
            deliver(root)
            assert not folder.is_current()
            assert len((await folder.sync()).arrived) == 1
            await folder.store([1], StoreMode.ADD, Flag.SEEN)
            assert [one.flags for one in (await folder.sync()).changed] == [Flag.SEEN]
        assert locks_below(tmp_path) == 2
        # Several at a time: what is in use is not closed, and they take turns.
        await asyncio.gather(*(folder.store([1], StoreMode.SET) for folder in folders))
        for folder in folders:
            await folder.sync()
            assert folder.state(1).flags == 0
        await accounts.resources.settle()
        assert locks_below(tmp_path) == 2
        for root, folder in zip(roots, folders, strict=True):
            folder.close()
            accounts.release(root)
        await accounts.leave()
        assert open_below(tmp_path) == []

    asyncio.run(main())


def test_message_on_its_way_keeps_the_index_open(tmp_path: Path) -> None:
    async def main() -> None:
        accounts = OpenAccounts.enter(str(tmp_path))
        roots = [str(tmp_path / f"user{number}") for number in range(4)]
        first, *others = [accounts.acquire(root) for root in roots]
        appending = await first.append("INBOX")
        await appending.begin()
        await appending.add(b"x")
        for account in others:
            await account.folders()
        assert len((await appending.commit()).uids) == 1
        aborted = await first.append("INBOX")
        await aborted.begin()
        await aborted.abort()
        for account in others:
            await account.folders()
        assert not any(roots[0] in path for path in open_below(tmp_path))
        assert (await first.status("INBOX")).messages == 1
        for root in roots:
            accounts.release(root)
        await accounts.leave()
        assert open_below(tmp_path) == []

    asyncio.run(main())


def test_index_is_not_closed_while_it_is_in_use(tmp_path: Path) -> None:
    """As when somebody begins to use it while whoever makes room waits for its turn."""

    async def main() -> None:
        accounts = OpenAccounts.enter(str(tmp_path))
        account = accounts.acquire(str(tmp_path / "alice"))
        await account.status("INBOX")
        account._use.pin()
        await account._use.close_index()
        assert locks_below(tmp_path) == 1
        account._use.unpin()
        await account._use.close_index()
        assert locks_below(tmp_path) == 0
        accounts.release(str(tmp_path / "alice"))
        await accounts.leave()

    asyncio.run(main())


def test_account_stays_open_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that comes back finds its folder as it has left it."""

    async def main() -> None:
        accounts = OpenAccounts.enter(str(tmp_path))
        root = str(tmp_path / "alice")
        deliver(root)
        account = accounts.acquire(root)
        (await account.open("INBOX")).close()
        accounts.release(root)
        assert accounts.acquire(root) is account
        with monkeypatch.context() as patch:
            patch.setattr(Index, "__init__", None)  # nothing is opened
            accounts.release(root)
            again = accounts.acquire(root)
            (await again.open("INBOX")).close()
        accounts.release(root)
        # The third account without sessions makes the first one go.
        for name in ("bob", "carol"):
            accounts.acquire(str(tmp_path / name))
            accounts.release(str(tmp_path / name))
        await closed(accounts)
        assert accounts.acquire(root) is not account
        accounts.release(root)
        monkeypatch.setattr(open_accounts, "UNUSED_FOR", 0.0)
        accounts._timer.cancel()
        accounts._sweep()
        await closed(accounts)
        assert accounts._accounts == {}
        assert accounts.resources.notices is not None
        assert len(accounts.resources.notices) == 0
        assert open_below(tmp_path) == []
        await accounts.leave()

    asyncio.run(main())


def test_folders_that_nobody_has_open_are_kept_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "KEPT_FOLDERS", 3)
    monkeypatch.setattr(resources, "KEPT_MESSAGES", 10)

    async def main() -> None:
        accounts = OpenAccounts.enter(str(tmp_path))
        account = accounts.acquire(str(tmp_path / "alice"))
        names = [f"Folder{number}" for number in range(5)]
        for name in names:
            await account.create(name)
            await account.status(name)
        assert in_memory(account) == 3
        folder = await account.open(names[-1])
        for name in names[:-1]:
            (await account.open(name)).close()
        assert in_memory(account) == 4  # the one that is open is none of those that are kept
        folder.close()
        assert in_memory(account) == 3
        # A folder with more messages than may be kept is not kept at all.
        for _ in range(11):
            deliver(f"{tmp_path}/alice/.Folder0")
        full = await account.open("Folder0")
        full.close()
        assert in_memory(account) == 0
        accounts.release(str(tmp_path / "alice"))
        await accounts.leave()

    asyncio.run(main())


def test_status_of_a_folder_that_has_not_changed_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        accounts = OpenAccounts.enter(str(tmp_path))
        root = str(tmp_path / "alice")
        account = accounts.acquire(root)
        await account.create("Work")
        deliver(f"{root}/.Work")
        assert (await account.status("Work")).messages == 1
        before = await account.status("Work")  # the look has moved the file into cur/
        with monkeypatch.context() as patch:
            patch.setattr(Index, "query", None)
            assert await account.status("Work") == before
        deliver(f"{root}/.Work")
        assert (await account.status("Work")).messages == 2
        await account.rename("Work", "Play")
        assert (await account.status("Play")).messages == 2
        await account.create("Work")
        assert (await account.status("Work")).messages == 0
        accounts.release(root)
        await accounts.leave()

    asyncio.run(main())
