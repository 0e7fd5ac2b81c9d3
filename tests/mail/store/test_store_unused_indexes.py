"""Indexes that nobody uses are closed: whoever only waits for mail has none open.

Rules of this file: what is open is seen in /proc; the time after which an index counts as unused is
made short, and conditions are waited for.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.kernel import open_below
from support.mail_store import deliver
from support.waiting import eventually

from fastlisten.mail.store import resources
from fastlisten.mail.store.open_accounts import OpenAccounts


def indexes_open(directory: Path) -> int:
    return sum(path.endswith("/index.lock") for path in open_below(directory))


@pytest.mark.parametrize("trim", [True, False], ids=["malloc_trim", "without"])
def test_who_waits_has_no_index_open_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trim: bool
) -> None:
    monkeypatch.setattr(resources, "UNUSED_FOR", 0.02)
    if not trim:
        monkeypatch.setattr(resources, "_malloc_trim", None)

    async def main() -> None:
        accounts = OpenAccounts.enter(str(tmp_path))
        roots = [str(tmp_path / f"user{number}") for number in range(5)]
        folders = [await accounts.acquire(root).open("INBOX") for root in roots]
        told = [asyncio.Event() for _ in folders]
        for folder, event in zip(folders, told, strict=True):
            folder.watch(event.set)
        for root, folder, event in zip(roots, folders, told, strict=True):
            await eventually(lambda: not indexes_open(tmp_path), "no index is open")
            await eventually(lambda: accounts.resources._timer is None, "nothing is waited for")
            deliver(root)
            await eventually(event.is_set, "the session is told")
            assert len((await folder.sync()).arrived) == 1
        for root, folder in zip(roots, folders, strict=True):
            folder.close()
            accounts.release(root)
        await accounts.leave()
        assert open_below(tmp_path) == []

    asyncio.run(main())


def test_index_in_use_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "UNUSED_FOR", 0.02)

    async def main() -> None:
        accounts = OpenAccounts.enter(str(tmp_path))
        used, unused = (accounts.acquire(str(tmp_path / name)) for name in ("used", "unused"))
        used._use.pin()
        for account in (used, unused):
            await account.status("INBOX")
        await eventually(lambda: indexes_open(tmp_path) == 1, "one is closed")
        assert any("/used/" in path for path in open_below(tmp_path))
        assert accounts.resources._timer is not None
        used._use.unpin()
        await eventually(lambda: not indexes_open(tmp_path), "no index is open")
        for name in ("used", "unused"):
            accounts.release(str(tmp_path / name))
        await accounts.leave()
        assert open_below(tmp_path) == []

    asyncio.run(main())


def test_index_that_was_used_lately_stays_open(tmp_path: Path) -> None:
    async def main() -> None:
        accounts = OpenAccounts.enter(str(tmp_path))
        account = accounts.acquire(str(tmp_path / "alice"))
        await account.status("INBOX")
        await accounts.resources._close_unused()
        assert indexes_open(tmp_path) == 1
        accounts.release(str(tmp_path / "alice"))
        await accounts.leave()
        assert open_below(tmp_path) == []

    asyncio.run(main())
