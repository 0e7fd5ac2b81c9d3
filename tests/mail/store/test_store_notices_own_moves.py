"""A look that moves mail into cur/ causes no second one, and hides nothing that others do.

Rules of this file: what is counted are refreshes, and which of them look into the directories.
What others do in the middle of a look is done by the test, when the look is at its end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.mail_store import deliver

from fastlisten.mail.store import shared_folder
from fastlisten.mail.store.interface import Flag
from fastlisten.mail.store.maildir_folder import MaildirFolder
from fastlisten.mail.store.open_accounts import OpenAccounts


class Looks:
    """Every refresh: whether it looked into the directories."""

    def __init__(self) -> None:
        self.into: list[bool] = []
        self.then: Callable[[], None] | None = None
        self._real = shared_folder._refreshed

    def __call__(self, *arguments: Any, look_at_it: bool, **options: Any) -> Any:
        self.into.append(look_at_it)
        found = self._real(*arguments, look_at_it=look_at_it, **options)
        then, self.then = self.then, None
        if then is not None:
            then()
        return found


def after(looks: Looks, path: Path, do: Callable[[MaildirFolder], None]) -> list[bool]:
    """Sync a folder until it is current after a delivery; return the looks it took.

    Args:
        looks: counts them.
        path: the data directory.
        do: sets what happens in the middle.
    """

    async def main() -> list[bool]:
        root = str(path / "alice")
        accounts = OpenAccounts.enter(str(path))
        account = accounts.acquire(root)
        deliver(root)
        folder = await account.open("INBOX")
        await settled(folder)
        looks.into.clear()
        deliver(root)
        do(folder)
        await settled(folder)
        found = list(looks.into)
        folder.close()
        accounts.release(root)
        await accounts.leave()
        return found

    return asyncio.run(main())


async def settled(folder: MaildirFolder) -> None:
    for _ in range(1000):
        if folder.is_current():
            return
        await folder.sync()
        await asyncio.sleep(0.01)  # directories have to be unchanged for a while
    raise AssertionError("never current")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    counted = Looks()
    monkeypatch.setattr(shared_folder, "_refreshed", counted)
    return counted


def test_a_delivery_is_looked_for_once(looks: Looks, tmp_path: Path) -> None:
    # The second refresh is for what the look has committed, and asks the index alone.
    assert after(looks, tmp_path, lambda folder: None) == [True, False]


def test_another_delivery_at_the_end_of_a_look_is_found(looks: Looks, tmp_path: Path) -> None:
    found: list[MaildirFolder] = []

    def do(folder: MaildirFolder) -> None:
        def again() -> None:
            deliver(str(tmp_path / "alice"))

        looks.then = again
        found.append(folder)

    assert after(looks, tmp_path, do) == [True, True, False]
    assert list(found[0].uids()) == [1, 2, 3]


def test_a_flag_that_another_program_sets_at_the_end_of_a_look_is_found(
    looks: Looks, tmp_path: Path
) -> None:
    cur = tmp_path / "alice" / "cur"
    found: list[MaildirFolder] = []

    def flag() -> None:
        (name, *_) = sorted(os.listdir(cur))
        os.rename(cur / name, cur / (name.partition(":")[0] + ":2,F"))

    def do(folder: MaildirFolder) -> None:
        looks.then = flag
        found.append(folder)

    assert after(looks, tmp_path, do)[:2] == [True, True]
    assert sum(found[0].state(uid).flags == Flag.FLAGGED for uid in (1, 2)) == 1
