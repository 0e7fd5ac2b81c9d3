"""What is written is on the disk before it has its name, and so is the name when the call returns.

Rules of this file: the calls are noted and carried out. A file is told by its inode, because its
name changes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastlisten.private_files import create_once, replace

Calls = list[tuple[str, int]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Note what is synced, linked and renamed: the call and the inode."""
    noted: Calls = []
    sync, link, rename = os.fsync, os.link, os.rename

    def noted_sync(fd: int) -> None:
        sync(fd)
        noted.append(("fsync", os.fstat(fd).st_ino))

    def noted_link(source: str, target: str) -> None:
        noted.append(("link", os.stat(source).st_ino))
        link(source, target)

    def noted_rename(source: str, target: str) -> None:
        noted.append(("rename", os.stat(source).st_ino))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "link", noted_link)
    monkeypatch.setattr(os, "rename", noted_rename)
    return noted


def test_created_file(tmp_path: Path, calls: Calls) -> None:
    path = tmp_path / "file"
    assert create_once(str(path), b"content")
    file, directory = path.stat().st_ino, tmp_path.stat().st_ino
    assert calls == [("fsync", file), ("link", file), ("fsync", directory)]


def test_replaced_file(tmp_path: Path, calls: Calls) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    replace(str(path), b"new")
    file, directory = path.stat().st_ino, tmp_path.stat().st_ino
    assert calls == [("fsync", file), ("rename", file), ("fsync", directory)]
