"""Maildirs that lack some of their directories: a delivery makes what is missing.

tmp/ alone says nothing: backups and synchronising programs leave out empty directories, and new/
is empty whenever its reader has seen everything.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.deliveries import ALICE, ALL, WatchedDelivery, files, in_office, new

from fastlisten.mail.delivery.post_office import PostOffice


@pytest.mark.parametrize("missing", [("new",), ("tmp",), ("cur", "new"), ("cur", "new", "tmp")])
def test_missing_directories_are_made_again(missing: tuple[str, ...], tmp_path: Path) -> None:
    @in_office
    async def test(office: PostOffice) -> None:
        for account in ALL:
            office.maildir(account).prepare()
        box = office.maildir(ALICE)
        for name in missing:
            shutil.rmtree(f"{box.path}/{name}")
        watched = WatchedDelivery(office, ALL)
        watched.fill(100)
        await watched.prepare()
        await watched.commit()
        assert watched.delivery.error is None
        assert files(office) == new(*ALL)

    test(tmp_path)


@in_office
async def test_new_that_is_removed_before_the_move_is_made_again(office: PostOffice) -> None:
    watched = WatchedDelivery(office, ALL)
    watched.fill(100)
    await watched.prepare()
    shutil.rmtree(office.maildir(ALICE).new)
    await watched.commit()
    assert watched.delivery.error is None
    assert files(office) == new(*ALL)


@in_office
async def test_message_that_is_removed_before_it_is_moved_is_an_error(office: PostOffice) -> None:
    watched = WatchedDelivery(office, ALL)
    watched.fill(100)
    await watched.prepare()
    shutil.rmtree(office.maildir(ALICE).path)
    await watched.commit()
    assert isinstance(watched.delivery.error, FileNotFoundError)
    assert files(office) == []
