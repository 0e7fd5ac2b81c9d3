"""`fastlisten account` as a program: where passwords come from, and where they never appear."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli
from serving import PATIENCE, clean_environment, run

from fastlisten.cli import serve
from fastlisten.config import default_config
from fastlisten.mail import passwords


def account(tmp_path: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastlisten", "account", *arguments],
        env=clean_environment(XDG_DATA_HOME=str(tmp_path)),
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def hashed(tmp_path: Path, name: str) -> str:
    text = (tmp_path / "fastlisten" / "accounts.toml").read_text()
    return str(tomli.loads(text)["account"][name].get("password", ""))


def test_passwords_from_everywhere(tmp_path: Path) -> None:
    done = account(tmp_path, "add", "a@x.example")
    assert done.returncode == 0
    assert hashed(tmp_path, "a@x.example") == ""
    done = account(tmp_path, "passwd", "a@x.example")
    assert done.returncode == 2
    assert "--password-stdin" in done.stderr
    done = account(tmp_path, "passwd", "a@x.example", "--password-stdin", given="gehéim\n")
    assert done.returncode == 0
    assert "geh" not in done.stdout
    assert passwords.verify(hashed(tmp_path, "a@x.example"), "gehéim".encode())
    done = account(tmp_path, "add", "b@x.example", "--generate")
    made = re.search(r"^password: (\w{20})$", done.stdout, re.MULTILINE)
    assert made is not None
    assert passwords.verify(hashed(tmp_path, "b@x.example"), made[1].encode())
    done = account(tmp_path, "add", "b@x.example", "--generate")
    assert done.returncode == 2
    assert "password" not in done.stdout
    assert account(tmp_path, "alias", "a@x.example", "@y.example").returncode == 0
    assert account(tmp_path, "list").stdout == "a@x.example\t@y.example\nb@x.example\n"
    assert account(tmp_path, "remove", "a@x.example").returncode == 0
    assert account(tmp_path, "list").stdout == "b@x.example\n"


def test_a_terminal_is_asked_without_echo(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "fastlisten", "account", "add", "a@x.example"],
        env=clean_environment(XDG_DATA_HOME=str(tmp_path)),
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,  # not the terminal that the tests are run on
    )
    os.close(end)
    said = b""
    answers = [b"gehe1m\n", b"gehe1m\n"]
    with open(terminal, "r+b", buffering=0) as dialogue:
        while True:
            try:
                piece = dialogue.read(1000)
            except OSError:  # EIO: the other end is closed
                break
            said += piece
            if said.endswith((b"none): ", b"again: ")) and answers:
                dialogue.write(answers.pop(0))
    assert program.wait(PATIENCE) == 0
    assert b"added a@x.example" in said
    assert b"gehe1m" not in said
    assert passwords.verify(hashed(tmp_path, "a@x.example"), b"gehe1m")


def test_usage() -> None:
    assert run("account", "add", "a@x.example", "--generate", "--password-stdin").returncode == 2
    assert run("account", "passwd", "a@x.example", "secret").returncode == 2


def make_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> tuple[str, Path]:
    """Make the embedded default's account; return what was said, and where all is."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    out = io.StringIO()
    out.isatty = lambda: terminal  # type: ignore[method-assign]
    serve._make_default_account(default_config(), out)
    return out.getvalue(), tmp_path / "fastlisten"


def test_the_default_s_password_is_shown_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for terminal in (True, False):
        said, data = make_default(tmp_path, monkeypatch, terminal=terminal)
        password = (data / "user@localhost.password").read_text().strip()
        assert (password in said) is terminal
        assert passwords.verify(hashed(tmp_path, "user@localhost"), password.encode())
        (data / "accounts.toml").unlink()


def test_without_argon2_the_default_has_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "available", lambda: False)
    said, data = make_default(tmp_path, monkeypatch, terminal=True)
    assert "nobody can log in to it: " in said
    assert "fastlisten[auth]" in said
    assert hashed(tmp_path, "user@localhost") == ""
    assert not (data / "user@localhost.password").exists()
