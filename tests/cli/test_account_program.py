"""`fastlisten account` as a program: where passwords come from, and where they never appear."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tomli
from support.environment import clean_environment
from support.waiting import PATIENCE

from fastlisten.cli import serve
from fastlisten.cli.main import main
from fastlisten.config import default_config
from fastlisten.mail.accounts import passwords

NOBODY = "(no password: nobody can log in)"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Run `fastlisten account` with the embedded default's data below `tmp_path`."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    def run(*arguments: str, given: str = "") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        code = main(["account", *arguments])
        return Ran(code, *capsys.readouterr())

    return run


def hashed(tmp_path: Path, name: str) -> str:
    text = (tmp_path / "fastlisten" / "accounts.toml").read_text()
    return str(tomli.loads(text)["account"][name].get("password", ""))


def test_password_sources(tmp_path: Path, account: Callable[..., Ran]) -> None:
    assert account("add", "a@x.example").code == 0
    assert hashed(tmp_path, "a@x.example") == ""
    done = account("passwd", "a@x.example")
    assert done.code == 2
    assert "--password-stdin" in done.err
    done = account("passwd", "a@x.example", "--password-stdin", given="gehéim\nmore")
    assert done.code == 0
    assert "geh" not in done.out
    assert passwords.verify(hashed(tmp_path, "a@x.example"), "gehéim".encode())
    done = account("add", "b@x.example", "--generate")
    made = re.search(r"^password: (\w{20})$", done.out, re.MULTILINE)
    assert made is not None
    assert passwords.verify(hashed(tmp_path, "b@x.example"), made[1].encode())
    done = account("add", "b@x.example", "--generate")
    assert done.code == 2
    assert "password" not in done.out


def test_alias_and_remove(account: Callable[..., Ran]) -> None:
    for name in ("a@x.example", "b@x.example"):
        assert account("add", name).code == 0
    assert account("alias", "a@x.example", "@y.example").code == 0
    assert account("list").out == (f"a@x.example\t@y.example\t{NOBODY}\nb@x.example\t{NOBODY}\n")
    assert account("remove", "a@x.example", "--delete-mail").code == 0
    assert account("list").out == f"b@x.example\t{NOBODY}\n"
    assert account("remove", "a@x.example").code == 2


def test_missing_config_option_is_pointed_out(tmp_path: Path, account: Callable[..., Ran]) -> None:
    """A user who forgets --config edits accounts that the server never reads."""
    file = tmp_path / "fastlisten" / "accounts.toml"
    hint = "(no --config given: using the accounts of the embedded default)\n"
    for arguments in (("list",), ("passwd", "a@x.example", "--generate")):
        done = account(*arguments)
        assert done.code != 0
        assert done.err.endswith(hint)
    done = account("add", "a@x.example")
    assert done.out == (
        f"added a@x.example to {file}, without a password: "
        "it receives mail, but nobody can log in\n" + hint
    )
    assert "--config" not in account("add", "b@x.example", "--generate").out
    named = tmp_path / "mail.toml"
    named.write_text(
        f"[server]\ndata-directory = '{tmp_path}/other'\n"
        "[server.listener.it]\nprotocol = 'smtp'\nbind = '127.0.0.1:2525'\n"
    )
    done = account("add", "a@x.example", "--config", str(named))
    assert done.code == 0, done.err
    assert "--config" not in done.out + done.err


def test_terminal_is_asked_without_echo(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "fastlisten", "account", "add", "a@x.example"],
        env=clean_environment(XDG_DATA_HOME=str(tmp_path)),
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,  # not the terminal that the tests run on
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


def closed_output() -> None:
    os.close(1)


@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_generated_password_that_cannot_be_printed_is_reported_lost(
    tmp_path: Path, buffered: str
) -> None:
    def run(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fastlisten", "account", *arguments],
            env=clean_environment(XDG_DATA_HOME=str(tmp_path), PYTHONUNBUFFERED=buffered),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            **how,
        )

    with open("/dev/full", "wb") as full:
        done = run("add", "a@x.example", "--generate", stdout=full)
        assert done.returncode == 1
        assert done.stderr == (
            "standard output: No space left on device\n"
            "the password is lost; set another one: fastlisten account passwd a@x.example\n"
        )
        assert hashed(tmp_path, "a@x.example")
        done = run("list", stdout=full)
        assert done.returncode == 1
        assert done.stderr == "standard output: No space left on device\n"
    heard, end = os.pipe()
    os.close(heard)
    with open(end, "wb") as broken:
        done = run("passwd", "a@x.example", "--generate", stdout=broken)
        assert done.returncode == 1
        assert "the password is lost" in done.stderr
        done = run("list", stdout=broken)
        assert (done.returncode, done.stderr) == (1, "")
    done = run("add", "b@x.example", "--generate", preexec_fn=closed_output)
    assert (done.returncode, done.stderr) == (1, "standard output is closed\n")
    with pytest.raises(KeyError):
        hashed(tmp_path, "b@x.example")


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "a@x.example", "--generate", "--password-stdin"),
        ("passwd", "a@x.example", "secret"),
        ("alias", "a@x.example"),
    ],
)
def test_usage_errors(account: Callable[..., Ran], arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        account(*arguments)
    assert caught.value.code == 2


def make_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> tuple[str, Path]:
    """Make the embedded default's account; return the output and where everything is."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    out = io.StringIO()
    out.isatty = lambda: terminal  # type: ignore[method-assign]
    serve._make_default_account(default_config(), out)
    return out.getvalue(), tmp_path / "fastlisten"


def test_default_password_is_shown_on_a_terminal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for terminal in (True, False):
        said, data = make_default(tmp_path, monkeypatch, terminal=terminal)
        password = (data / "user@localhost.password").read_text().strip()
        assert (password in said) is terminal
        assert passwords.verify(hashed(tmp_path, "user@localhost"), password.encode())
        (data / "accounts.toml").unlink()


def test_default_account_without_argon2_has_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "available", lambda: False)
    said, data = make_default(tmp_path, monkeypatch, terminal=True)
    assert "nobody can log in to it: " in said
    assert "fastlisten[auth]" in said
    assert hashed(tmp_path, "user@localhost") == ""
    assert not (data / "user@localhost.password").exists()
