"""Private files: created once or replaced, completely or not at all.

Rules of this file: real files; a limit on the size of files, in a child, stands in for a full disk.
"""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastlisten.private_files import create_once, open_new, replace, write_all

WRITERS = pytest.mark.parametrize("write", [create_once, replace])


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    """With this umask, a file whose mode is not set explicitly is writable by everyone."""
    before = os.umask(0)
    yield
    os.umask(before)


@WRITERS
def test_new_file_is_private(tmp_path: Path, write: Callable[..., object]) -> None:
    path = tmp_path / "secret"
    assert write(str(path), b"text") is (True if write is create_once else None)
    assert path.read_bytes() == b"text"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["secret"]


@WRITERS
def test_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., object]
) -> None:
    monkeypatch.chdir(tmp_path)
    write("secret", b"text")
    assert os.listdir(tmp_path) == ["secret"]


def test_existing_file_is_not_created_again(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"first")
    assert create_once(str(path), b"second") is False
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["secret"]


def test_dangling_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").symlink_to(tmp_path / "elsewhere")
    assert create_once(str(tmp_path / "secret"), b"text") is False
    with pytest.raises(FileExistsError):
        open_new(tmp_path / "secret")
    assert os.listdir(tmp_path) == ["secret"]


def test_replaced_file_can_still_be_read_and_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    os.link(path, tmp_path / "other-name")
    with path.open("rb") as reader:
        replace(str(path), b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "other-name").read_bytes() == b"old"


def test_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"old")
    (tmp_path / "secret").symlink_to(tmp_path / "elsewhere")
    replace(str(tmp_path / "secret"), b"new")
    assert not (tmp_path / "secret").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"old"


def test_directory_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace(str(tmp_path / "secret"), b"text")
    assert os.listdir(tmp_path) == ["secret"]


FULL = """
import resource, signal, sys
from fastlisten import private_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    getattr(private_files, sys.argv[1])(sys.argv[2], b"x" * 101)
except OSError as error:
    print(error.strerror)
"""


@WRITERS
def test_failed_write_leaves_nothing(tmp_path: Path, write: Callable[..., object]) -> None:
    path = tmp_path / "secret"
    if write is replace:
        path.write_bytes(b"old")
    command = [sys.executable, "-c", FULL, write.__name__, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "File too large\n"
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == (
        {"secret": b"old"} if write is replace else {}
    )


def _create(path: str, number: int) -> bool:
    return create_once(path, b"%d" % number * 10_000)


def test_one_of_several_processes_creates_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        created = pool.starmap(_create, [(str(path), number) for number in range(8)])
        pool.close()
        pool.join()
    assert created.count(True) == 1
    assert path.read_bytes() == b"%d" % created.index(True) * 10_000
    assert os.listdir(tmp_path) == ["secret"]


def test_partial_writes_are_continued() -> None:
    """A write to a pipe without room for all of it writes a part."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(reader, True)
    data = os.urandom(60_000)
    try:
        write_all(writer, data)
        assert os.read(reader, 100_000) == data
        with pytest.raises(BlockingIOError):
            write_all(writer, bytes(100_000))
        assert len(os.read(reader, 100_000)) == 65_536  # all that there was room for
    finally:
        os.close(reader)
        os.close(writer)
