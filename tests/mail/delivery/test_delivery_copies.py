"""Mailboxes on different filesystems, between which a message cannot be linked: copies are synced.

Rules of this file: link(2) fails as it does between filesystems. Which file was synced is told by
its inode, because names change.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.deliveries import ALL, Watched, in_office, new
from support.deliveries import files as files_of

from fastlisten.mail.delivery.post_office import PostOffice

Calls = list[tuple[str, int]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Let links fail; note which inodes are synced and renamed, in order."""
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
def test_every_copy_is_synced_before_anybody_sees_one(
    tmp_path: Path, calls: Calls, spool: bool
) -> None:
    @in_office
    async def scene(office: PostOffice) -> None:
        watched = Watched(office, ALL, spool=spool)
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
