"""Backups: what is copied while others change the account, and what comes of it."""

from __future__ import annotations

import io
import logging
import os
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mail_store import check_account, deliver, inbox, index_of, rows_of, settled_look

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.backup import BackedUp, back_up
from fastlisten.mail.store.backup_forms import (
    DirectorySink,
    DirectorySource,
    NotABackupError,
    TarSink,
    TarSource,
)
from fastlisten.mail.store.copying import move
from fastlisten.mail.store.expunge import expunge
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.folders import create, find, folders
from fastlisten.mail.store.index import RESTORED_STRIDE
from fastlisten.mail.store.interface import Flag, StoreMode
from fastlisten.mail.store.restore import HasMailError, restore

#: INTERNALDATEs that a float would round.
TIME = 1_700_000_000_999_999_999


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An account with three messages in INBOX, and one in Work."""
    root = tmp_path / "mail" / "alice"
    with index_of(root) as index:
        for number in (1, 2, 3):
            name = deliver(index.maildir, b"m%d" % number, f"{number}.a")
            os.utime(f"{root}/new/{name}", ns=(TIME, TIME))
        look(index, inbox(index).id)
        store(index, inbox(index).id, [2], StoreMode.ADD, Flag.SEEN, ["Word"])
        create(index, "Work", "Archive")
        deliver(f"{root}/.Work", b"w1", "1.w")
        (root / ".sieve").write_bytes(b"keep;")
    return root


def backed_up(root: Path, sink: TarSink | DirectorySink) -> BackedUp:
    with index_of(root) as index:
        done = back_up(index, sink)
    sink.close()
    return done


def archive_of(root: Path) -> bytes:
    file = io.BytesIO()
    backed_up(root, TarSink(file))
    return file.getvalue()


def put_back(root: Path, archive: bytes, *, force: bool = False) -> str:
    return restore(str(root), TarSource(io.BytesIO(archive)), force=force).before


def seen(root: Path) -> dict[str, list[tuple[int, str, int, str, bytes]]]:
    """Return the messages of all folders, with their contents."""
    found = {}
    with index_of(root) as index:
        for one in folders(index):
            row = find(index, one.name)
            settled_look(index, row.id, thorough=True)
            box = Maildir(f"{root}/{row.directory}".rstrip("/"))
            found[one.name] = [(*it, box.read(it[1])) for it in rows_of(index, row.id)]
        check_account(index)
    return found


BEFORE = {
    "INBOX": [
        (1, "1.a", 0, "", b"m1"),
        (2, "2.a", 1, "Word", b"m2"),
        (3, "3.a", 0, "", b"m3"),
    ],
    "Work": [(1, "1.w", 0, "", b"w1")],
}


def test_archive(root: Path) -> None:
    file = io.BytesIO()
    assert backed_up(root, TarSink(file)) == BackedUp(messages=4, octets=8, folders=2)
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        names = {info.name for info in tar if info.isreg()}
    assert names == {
        *("index.db", "uidvalidity", ".sieve", ".Work/maildirfolder", ".Work/cur/1.w:2,"),
        *("cur/1.a:2,", "cur/2.a:2,S", "cur/3.a:2,", "index.complete"),
    }
    assert not [name for name in os.listdir(root) if name.startswith("index.backup")]


@pytest.mark.parametrize("form", ["tar", "directory"])
def test_restored_to_a_new_account(root: Path, tmp_path: Path, form: str) -> None:
    new = tmp_path / "mail" / "new"
    if form == "tar":
        assert put_back(new, archive_of(root)) == ""
    else:
        (tmp_path / "copy").mkdir()
        fd = os.open(tmp_path / "copy", os.O_RDONLY)
        backed_up(root, DirectorySink(fd))
        assert restore(str(new), DirectorySource(fd)).messages == 4
        os.close(fd)
    assert seen(new) == BEFORE
    assert (new / ".sieve").read_bytes() == b"keep;"
    assert os.stat(new / "cur" / "1.a:2,").st_mtime_ns == TIME
    with index_of(new) as index, index_of(root) as old:
        for name in ("INBOX", "Work"):
            assert find(index, name).uidvalidity == find(old, name).uidvalidity
        assert {one.name: one.role for one in folders(index)}["Work"] == "Archive"
        assert index.query("SELECT uidnext FROM folder WHERE name = ''") == [(4 + RESTORED_STRIDE,)]
    assert not [name for name in os.listdir(tmp_path / "mail") if name.startswith(".")]


def test_restored_in_place_while_it_is_open(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive = archive_of(root)
    with index_of(root) as session:
        box = inbox(session)
        deliver(session.maildir, b"later", "4.a")
        look(session, box.id)
        newest = create(session, "Newest").uidvalidity
        with pytest.raises(HasMailError):
            put_back(root, archive)
        caplog.set_level(logging.WARNING, "fastlisten.mail")
        before = put_back(root, archive, force=True)
        assert (Path(before) / "cur" / "4.a:2,").read_bytes() == b"later"
        # The session goes on with the account that is there now.
        deliver(str(root), b"new", "5.a")
        assert look(session, box.id).arrived == 1
        assert [uid for uid, *_ in rows_of(session, box.id)] == [1, 2, 3, 4 + RESTORED_STRIDE]
        assert create(session, "Other").uidvalidity > newest
    assert "it was restored from a backup" in caplog.text
    assert not (root / "index.restoring").exists()


def during(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Change something after the index has been copied, and before the first file is."""
    stored = TarSink.file

    def file(self: TarSink, name: str, fd: int, size: int, mtime: int) -> None:
        stored(self, name, fd, size, mtime)
        if name == "index.db":
            change()

    monkeypatch.setattr(TarSink, "file", file)


def test_changes_meanwhile(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change() -> None:
        with index_of(root) as index:
            box, work = inbox(index).id, find(index, "Work").id
            store(index, box, [1], StoreMode.ADD, Flag.FLAGGED | Flag.SEEN)
            move(index, box, [2], work)
            store(index, box, [3], StoreMode.ADD, Flag.DELETED)
            expunge(index, box)
            move(index, work, [1], box)
            deliver(index.maildir, b"later", "9.a")

    during(monkeypatch, change)
    file = io.BytesIO()
    assert backed_up(root, TarSink(file)) == BackedUp(3, 6, 2, missing=1)
    put_back(tmp_path / "mail" / "new", file.getvalue())
    expected = {**BEFORE, "INBOX": BEFORE["INBOX"][:2]}
    assert seen(tmp_path / "mail" / "new") == expected


def member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (b"no archive at all", "could not|truncated|header|empty"),
        (member("../cur/x"), "nothing that an account has"),
        (member("/etc/x"), "nothing that an account has"),
        (member(".Work/../cur/x"), "nothing that an account has"),
        (member("a/b/c"), "nothing that an account has"),
        (member("cur/x", kind=tarfile.SYMTYPE, link="/etc/passwd"), "no regular file"),
        (member("cur/x", kind=tarfile.LNKTYPE, link="/etc/passwd"), "no regular file"),
        (member("cur/x", kind=tarfile.FIFOTYPE), "no regular file"),
        (member("index.db", b"x" * 5000), "index cannot be read"),
        (member("other"), "no mail in it"),
    ],
)
def test_what_is_no_backup_changes_nothing(root: Path, archive: bytes, why: str) -> None:
    with pytest.raises(NotABackupError, match=why):
        put_back(root, archive, force=True)
    assert seen(root) == BEFORE
    assert os.listdir(root.parent) == ["alice"]


def test_archive_that_is_cut(root: Path) -> None:
    archive = archive_of(root)
    end = archive.rstrip(b"\0").rfind(b"index.complete")
    for size in (0, 511, 512, 5000, *range(end - 512 * 12, end + 1, 512)):
        with pytest.raises(NotABackupError):
            put_back(root, archive[:size], force=True)
    assert seen(root) == BEFORE


def test_a_directory_that_is_not_complete(root: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    fd = os.open(tmp_path / "copy", os.O_RDONLY)
    with index_of(root) as index:
        back_up(index, DirectorySink(fd))
    with pytest.raises(NotABackupError, match="not complete"):
        restore(str(root), DirectorySource(fd), force=True)
    os.close(fd)


def test_a_maildir_without_index(root: Path) -> None:
    assert put_back(root, member("new/7.b", b"seven"), force=True)
    with index_of(root) as index:
        look(index, inbox(index).id)
        assert [name for _, name, *_ in rows_of(index, inbox(index).id)] == ["7.b"]


def test_a_damaged_index_is_not_copied(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index_of(root) as index:
        monkeypatch.setattr(
            "fastlisten.mail.store.index_snapshot.copy_into",
            lambda _, path: os.close(os.open(path, os.O_CREAT)),
        )
        with pytest.raises(sqlite3.DatabaseError, match="damaged"):
            back_up(index, TarSink(io.BytesIO()))
    assert not [name for name in os.listdir(root) if name.startswith("index.backup")]
