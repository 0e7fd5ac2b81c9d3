"""Garbage in an index and in its snapshot, page by page: mail is served again, and nothing is lost.

Rules of this file: pages are overwritten in the file itself, so that it is no restored copy. What
is damaged may be noticed late, by the first one who reads that page; then one command fails, and
the next one finds an index that was made again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.mail_store import check_account, deliver, inbox, index_of, rows_of, settled_look
from support.store_kills import settle

from fastlisten.mail.store import folders, index_snapshot
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import (
    Flag,
    FolderNotFoundError,
    StoreMode,
    StoreUnavailableError,
)

PAGE = 4096

#: More than a page of each table and index that matters.
MESSAGES = 60


def made(root: Path) -> Counter[tuple[str, int, str]]:
    """Make an account with a snapshot of the day; return names, flags and keywords."""
    with index_of(root) as index:
        work = folders.create(index, "Work", "Archive").id
        for number in range(MESSAGES):
            deliver(index.maildir, name=f"{number}.in-the-inbox")
            deliver(f"{root}/.Work", name=f"{number}.at-work")
        for folder in (inbox(index).id, work):
            look(index, folder)
            uids = list(range(1, MESSAGES, 2))
            store(index, folder, uids, StoreMode.ADD, Flag.SEEN, ["Word", "Other"])
        found = content_of(index)
    os.unlink(root / "index.snapshot")
    with index_of(root):
        pass
    return found


def content_of(index: Index) -> Counter[tuple[str, int, str]]:
    found: Counter[tuple[str, int, str]] = Counter()
    for (folder,) in index.query("SELECT id FROM folder"):
        found.update((name, flags, words) for _, name, flags, words in rows_of(index, folder))
    return found


def write_page(path: Path, number: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(number * PAGE)
        file.write(content)


def pages_of(path: Path) -> list[bytes]:
    whole = path.read_bytes()
    return [whole[at : at + PAGE] for at in range(0, len(whole), PAGE)]


def garbage() -> bytes:
    return random.Random(0).randbytes(PAGE)


def zeros() -> bytes:
    return bytes(PAGE)


def use(root: Path) -> None:
    """Do what sessions do."""
    with index_of(root) as index:
        settle(index)
        folders.folders(index)
        store(index, inbox(index).id, [2], StoreMode.ADD, Flag.FLAGGED)
        store(index, inbox(index).id, [2], StoreMode.REMOVE, Flag.FLAGGED)


def used_again(root: Path) -> int:
    """Use an account until it works; return how often it did not."""
    for failures in range(3):
        try:
            use(root)
        except sqlite3.Error:
            continue
        return failures
    raise AssertionError("it does not work again")


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[Any]]:
    root = tmp_path_factory.mktemp("damaged")
    return root, made(root)


@pytest.mark.parametrize("damage", [garbage, zeros])
def test_damaged_page(
    account: tuple[Path, Counter[Any]],
    damage: Callable[[], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    root, expected = account
    path = root / "index.db"
    snapshot = (root / "index.snapshot").read_bytes()
    pages = pages_of(path)
    assert len(pages) > 15
    again = 0
    for number in range(len(pages)):
        path.write_bytes(b"".join(pages))
        write_page(path, number, damage())
        validity = _uidvalidity(root)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fastlisten.mail"):
            failures = used_again(root)
        assert failures <= 1, number
        said = [record.getMessage() for record in caplog.records]
        remade = sum("made again" in text for text in said)
        assert remade <= 1
        assert remade == sum("the index was lost" in text for text in said), (number, said)
        assert failures <= remade
        again += remade
        with index_of(root) as index:
            assert content_of(index) == expected, (number, said)
            if remade:
                assert inbox(index).uidvalidity > validity
            assert folders.find(index, "Work").id
            roles = {one.role for one in folders.folders(index)}
            assert "Archive" in roles
            check_account(index)
        # For the next page, the first index is put back, and its snapshot.
        (root / "index.snapshot").write_bytes(snapshot)
    assert again > len(pages) // 2


def _uidvalidity(root: Path) -> int:
    return int((root / "uidvalidity").read_text())


@pytest.mark.parametrize("size", [100, PAGE, 3 * PAGE, 7 * PAGE + 1])
def test_truncated_index(tmp_path: Path, size: int) -> None:
    expected = made(tmp_path)
    os.truncate(tmp_path / "index.db", size)
    used_again(tmp_path)
    with index_of(tmp_path) as index:
        assert content_of(index) == expected
        check_account(index)


def test_damaged_snapshot(tmp_path: Path) -> None:
    """What cannot be read is left out, and never stands in the way."""
    made(tmp_path)
    path = tmp_path / "index.snapshot"
    pages = pages_of(path)
    for number in range(len(pages)):
        path.write_bytes(b"".join(pages))
        write_page(path, number, garbage())
        for file in tmp_path.glob("index.db*"):
            file.unlink()
        with index_of(tmp_path) as index:
            settle(index)
            assert len(content_of(index)) == 2 * MESSAGES
            assert rows_of(index, inbox(index).id)[0][2] == Flag.SEEN


def test_damaged_index_does_not_become_the_snapshot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = made(tmp_path)
    path = tmp_path / "index.db"
    write_page(path, len(pages_of(path)) - 1, garbage())
    past = time.time() - index_snapshot.KEPT_FOR - 1
    os.utime(tmp_path / "index.snapshot", (past, past))
    with caplog.at_level(logging.WARNING, "fastlisten.mail"), index_of(tmp_path) as index:
        settle(index)
        assert content_of(index) == expected
    assert sum("made again" in one.getMessage() for one in caplog.records) == 1


def test_error_without_damage_changes_nothing(tmp_path: Path) -> None:
    """An index that is suspected is checked, and kept if it is whole."""
    made(tmp_path)
    with index_of(tmp_path) as index:
        before = inbox(index).uidvalidity
        index.suspect = True
        with index.locked():
            pass
        assert not index.suspect
        assert inbox(index).uidvalidity == before
    assert not (tmp_path / "index.db.damaged").exists()


def test_index_that_cannot_be_opened_for_a_while(tmp_path: Path) -> None:
    """Whatever opens again later, the same object works then."""
    with index_of(tmp_path) as index:
        path, aside = tmp_path / "index.db", tmp_path / "aside"
        with index.locked():
            index._checkpoint()
        path.rename(aside)
        path.mkdir()
        for _ in range(2):
            with pytest.raises((sqlite3.Error, OSError)), index.locked():
                pass
        path.rmdir()
        shutil.copy(aside, path)
        with index.locked():
            pass
        assert inbox(index).name == "INBOX"


def test_sessions_of_a_damaged_index(tmp_path: Path) -> None:
    """Whoever notices it is told to try again; a folder that was open has another UIDVALIDITY."""
    expected = made(tmp_path)

    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            before = MaildirAccount(str(tmp_path), pool)
            folder = await before.open("Work")
            account = MaildirAccount(str(tmp_path), pool)
            await account.folders()
            path = tmp_path / "index.db"
            for number in range(1, len(pages_of(path))):
                write_page(path, number, garbage())
            with pytest.raises(StoreUnavailableError):
                await account.open("Work")
            found = await account.open("Work")
            assert len(found.uids()) == MESSAGES
            assert found.uidvalidity > folder.uidvalidity
            with pytest.raises(FolderNotFoundError):
                await folder.sync()
            await before.close()
            await account.close()

    asyncio.run(main())
    with index_of(tmp_path) as index:
        settled_look(index, inbox(index).id)
        assert content_of(index) == expected
