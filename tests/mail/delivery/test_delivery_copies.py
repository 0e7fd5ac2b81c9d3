"""Mailboxes on different file systems, where messages are copied instead of linked.

Rules of this file: link(2) fails as it does between file systems. Files are identified by inode,
because their names change.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.deliveries import ALL, WatchedDelivery, in_office, new
from support.deliveries import files as files_of

from fastlisten.mail.delivery.post_office import PostOffice

Calls = list[tuple[str, int]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Make links fail; record which inodes are synced and renamed, in order."""
    noted: Calls = []
    sync, rename = os.fsync, os.rename

    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def noted_sync(fd: int) -> None:
        sync(fd)
        noted.append(("synced", os.fstat(fd).st_ino))

    def noted_rename(source: str, target: str, **keywords: int) -> None:
        noted.append(("renamed", os.stat(source).st_ino))
        rename(source, target, **keywords)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "rename", noted_rename)
    return noted


@pytest.mark.parametrize("spool", [False, True])
def test_all_copies_are_synced_before_the_first_rename(
    tmp_path: Path, calls: Calls, spool: bool
) -> None:
    @in_office
    async def scene(office: PostOffice) -> None:
        watched = WatchedDelivery(office, ALL, spool=spool)
        content = watched.fill(10_000)
        await watched.prepare()
        await watched.commit()
        assert files_of(office) == new(*ALL)
        inodes = set()
        for account in ALL:
            (message,) = office.maildir(account).messages()
            assert office.maildir(account).read(message) == content
            inodes.add(os.stat(Path(office.maildir(account).new) / message.name).st_ino)
        assert len(inodes) == len(ALL)
        renamed = {inode for what, inode in calls if what == "renamed"}
        assert renamed == inodes
        first = [what for what, _ in calls].index("renamed")
        assert inodes <= {inode for what, inode in calls[:first] if what == "synced"}

    scene(tmp_path)
