"""Maildirs: names, staged messages, failures, and cleaning up after crashes."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.deliveries import commit
from support.kernel import open_below

from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.maildir import spool
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import STALE_AFTER, unique_name


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def boxes(tmp_path: Path) -> list[Maildir]:
    return [Maildir(str(tmp_path / name)) for name in ("a", "b", "c")]


def test_names_are_unique_and_well_formed() -> None:
    names = [unique_name() for _ in range(1000)]
    assert len(set(names)) == 1000
    for name in names:
        assert re.fullmatch(r"[0-9]+\.M[0-9]+P[0-9]+Q[0-9]+R[0-9a-f]{8}\.[^/:]+", name)


def test_names_of_forked_processes_differ() -> None:
    program = (
        "import os\nfrom fastlisten.mail.maildir.maildir import unique_name\n"
        "unique_name()\nchild = os.fork()\n"
        "os.write(1, (unique_name() + '\\n').encode())\n"
        "if child: os.waitpid(child, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    assert len(set(done.stdout.split())) == 2


def test_host_name_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "a/b:c")
    monkeypatch.setattr(spool, "_process", (0, ""))
    assert unique_name().endswith(".a\\057b\\072c")


def test_message_for_several_is_one_file(tmp_path: Path, boxes: list[Maildir]) -> None:
    staged = StagedMessage(boxes, "name")
    staged.write([b"one\r\n", b"two\r\n"])
    staged.write([b"three\r\n"])
    assert files(tmp_path) == ["a/tmp/name"]
    commit(staged)
    assert not staged.opened
    assert files(tmp_path) == ["a/new/name", "b/new/name", "c/new/name"]
    inodes = {(Path(box.new) / "name").stat().st_ino for box in boxes}
    assert len(inodes) == 1
    assert (Path(boxes[2].new) / "name").read_bytes() == b"one\r\ntwo\r\nthree\r\n"
    status = (Path(boxes[0].new) / "name").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    for part in ("", "cur", "new", "tmp"):
        assert stat.S_IMODE((tmp_path / "b" / part).stat().st_mode) == 0o700


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_files_are_copied_if_links_fail(
    tmp_path: Path, boxes: list[Maildir], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    content = os.urandom(3_000_000)
    staged = StagedMessage(boxes, "name")
    staged.write([content])
    commit(staged)
    assert files(tmp_path) == ["a/new/name", "b/new/name", "c/new/name"]
    for box in boxes:
        assert (Path(box.new) / "name").read_bytes() == content
        assert (Path(box.new) / "name").stat().st_nlink == 1


def test_files_are_synced_before_the_first_rename(
    boxes: list[Maildir], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for box in boxes:
        box.prepare()
    for name in ("fsync", "link", "rename"):
        real = getattr(os, name)

        def noted(*arguments: object, name: str = name, real: object = real) -> object:
            what = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else ""
            calls.append(name + (":" + "/".join(what.split("/")[-2:]) if what else ""))
            return real(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(os, name, noted)
    staged = StagedMessage(boxes, "name")
    staged.write([b"x"])
    commit(staged)
    assert calls == [
        "fsync:tmp/name",
        "link",
        "link",
        "rename",
        "rename",
        "rename",
        "fsync:a/new",
        "fsync:b/new",
        "fsync:c/new",
    ]


def test_suspended_message_holds_no_open_file(tmp_path: Path, boxes: list[Maildir]) -> None:
    before = open_below(tmp_path)
    staged = StagedMessage(boxes, "name")
    for number in range(3):
        staged.write([b"%d\r\n" % number])
        staged.suspend()
        assert open_below(tmp_path) == before
    staged.write([])
    commit(staged)
    assert (Path(boxes[2].new) / "name").read_bytes() == b"0\r\n1\r\n2\r\n"


def test_unwanted_message_is_discarded(tmp_path: Path, boxes: list[Maildir]) -> None:
    staged = StagedMessage(boxes, "name")
    staged.write([b"x"])
    staged.prepare()
    assert files(tmp_path) == ["a/tmp/name", "b/tmp/name", "c/tmp/name"]
    staged.discard()
    assert files(tmp_path) == []
    assert not staged.opened


@pytest.mark.parametrize("call", ["fsync", "link", "rename", "close"])
@pytest.mark.parametrize("at", range(1, 7))
def test_any_failing_call_delivers_to_nobody(
    tmp_path: Path, boxes: list[Maildir], monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    for box in boxes:
        box.prepare()
    real = getattr(os, call)
    count = 0

    def failing(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count == at:
            if call == "close":
                real(*arguments)
            raise OSError(errno.EIO, "Input/output error")
        return real(*arguments)

    before = open_below(tmp_path)
    staged = StagedMessage(boxes, "name")
    staged.write([b"x"])
    failed = False
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        try:
            commit(staged)
        except OSError as error:
            failed = error.errno == errno.EIO
    assert failed is (count >= at)
    if failed:
        assert files(tmp_path) == []
        assert not staged.opened
        # The client retries, and everybody gets the message once.
        staged = StagedMessage(boxes, "again")
        staged.write([b"x"])
        commit(staged)
    assert [len(list(Path(box.new).iterdir())) for box in boxes] == [1, 1, 1]
    assert open_below(tmp_path) == before


def test_failing_discard_is_logged(
    boxes: list[Maildir], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    staged = StagedMessage(boxes, "name")
    staged.write([b"x"])

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        staged.discard()
    assert "cannot remove" in caplog.text
    assert not staged.opened


def test_deleted_maildir_is_created_again(tmp_path: Path, boxes: list[Maildir]) -> None:
    for name in ("one", "two"):
        staged = StagedMessage(boxes, name)
        staged.write([b"x"])
        commit(staged)
        for box in boxes[1:]:
            for path in sorted(Path(box.path).rglob("*"), reverse=True):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
            Path(box.path).rmdir()
    assert files(tmp_path) == ["a/new/one", "a/new/two"]


def test_short_writes_are_continued(boxes: list[Maildir], monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:1000])))
    content = os.urandom(10_500)
    staged = StagedMessage(boxes, "name")
    staged.write([content])
    commit(staged)
    assert (Path(boxes[1].new) / "name").read_bytes() == content


def test_clean_removes_files_older_than_36_hours(boxes: list[Maildir]) -> None:
    box = boxes[0]
    assert box.clean() == 0
    box.prepare()
    now = time.time()
    for name, age in (("old", STALE_AFTER + 60), ("young", STALE_AFTER - 60), ("new", 0)):
        (Path(box.tmp) / name).write_bytes(b"x")
        os.utime(Path(box.tmp) / name, (now - age, now - age))
    (Path(box.tmp) / "read").write_bytes(b"x")
    os.utime(Path(box.tmp) / "read", (now, now - STALE_AFTER - 60))
    (Path(box.tmp) / "directory").mkdir()
    os.utime(Path(box.tmp) / "directory", (1, 1))
    assert box.clean() == 1
    assert sorted(path.name for path in Path(box.tmp).iterdir()) == [
        "directory",
        "new",
        "read",
        "young",
    ]
    assert box.clean(now + 2 * STALE_AFTER) == 3
