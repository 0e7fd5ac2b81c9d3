"""The token file: made once, private to its owner, and rejected if others can use it."""

from __future__ import annotations

import concurrent.futures
import os
import socket
import stat
from pathlib import Path

import pytest

from fastlisten.management.token_file import FILE_NAME, TokenError, keep_token

pytestmark = pytest.mark.usefixtures("descriptors_back")


def test_token_is_made_once(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        token, made = keep_token(str(tmp_path / "new" / "data"))
    finally:
        os.umask(before)
    assert made
    # 32 octets in base64url.
    assert len(token) == 43
    file = tmp_path / "new" / "data" / FILE_NAME
    assert file.read_text() == token + "\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert keep_token(str(file.parent)) == (token, False)
    assert os.listdir(file.parent) == [FILE_NAME]
    assert keep_token(str(tmp_path))[0] != token


def test_concurrent_starts_agree_on_a_token(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(keep_token, [str(tmp_path)] * 64))
    assert len({token for token, _ in answers}) == 1
    assert sum(made for _, made in answers) == 1
    assert os.listdir(tmp_path) == [FILE_NAME]


@pytest.mark.parametrize("text", ["x" * 32, "A-._~+/9" * 8 + "==", " " + "y" * 64 + "\r\n"])
def test_token_chosen_by_the_administrator(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    (tmp_path / FILE_NAME).chmod(0o400)
    assert keep_token(str(tmp_path)) == (text.strip(), False)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"x" * 31,
        b"x" * 513,
        b"x" * 2000,
        b"x y" * 20,
        b"\xff" * 40,
        b"x" * 40 + b"\n=\n",
        b"x" * 40 + b"\n" * 1000,
    ],
)
def test_invalid_token_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(TokenError, match="holds no token") as caught:
        keep_token(str(tmp_path))
    assert caught.value.path == str(file)
    # It may be some other secret.
    assert "xxx" not in str(caught.value).removeprefix(str(file))


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o644, 0o660, 0o601, 0o777])
def test_token_file_readable_by_others(tmp_path: Path, mode: int) -> None:
    file = tmp_path / FILE_NAME
    file.write_text("x" * 43)
    file.chmod(mode)
    with pytest.raises(TokenError, match=f"has mode {mode:04o}") as caught:
        keep_token(str(tmp_path))
    assert "remove it" in str(caught.value)
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert file.read_text() == "x" * 43


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_token_file_of_another_user(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_text("x" * 43)
    file.chmod(0o600)
    os.chown(file, 12345, -1)
    with pytest.raises(TokenError, match="belongs to user 12345"):
        keep_token(str(tmp_path))


def test_token_path_is_not_a_regular_file(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.mkdir()
    with pytest.raises(TokenError, match="is not a regular file"):
        keep_token(str(tmp_path))
    file.rmdir()
    os.mkfifo(file, 0o600)
    with pytest.raises(TokenError, match="is not a regular file"):
        keep_token(str(tmp_path))
    file.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(file))
        with pytest.raises(TokenError, match="cannot be read"):
            keep_token(str(tmp_path))


def test_token_path_is_a_dangling_link(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    (tmp_path / "other").write_text("x" * 43)
    (tmp_path / "other").chmod(0o600)
    for target in ("other", "missing"):
        file.symlink_to(target)
        with pytest.raises(TokenError, match="must not be a symbolic link"):
            keep_token(str(tmp_path))
        file.unlink()


def test_no_space_for_the_token_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(OSError, match="data"):
        keep_token(str(tmp_path / "data"))
