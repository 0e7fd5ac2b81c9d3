"""`check` tries the files that `serve` opens: the relay's CA file and the accounts.

Rules of this file: what `serve` refuses to start with is an error of `check`; what it serves anyway
is a warning. A mistake that several listeners inherit is reported once.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from support.certificates import authority
from support.config import listener_table
from support.registered import registered

from fastlisten.cli import check
from fastlisten.config import load
from fastlisten.errors import ConfigurationError
from fastlisten.runtime.file_checks import check_files
from fastlisten.runtime.server import Server

PLAIN = "tls.enable = false\n"
LMTP = "fastlisten.handlers.smtp.settings:LMTP"
RELAY = PLAIN + 'smtp.relay = "relay.example.org:25"\n'
VERIFIED = RELAY + 'smtp.relay-tls = "verify"\n'


def configure(place: Path, *bodies: str, before: str = "") -> Path:
    path = place / "mail.toml"
    text = f"server.data-directory = '{place}/data'\n" + before
    for number, body in enumerate(bodies):
        text += listener_table(f"it{number}", f"bind = '127.0.0.1:{2525 + number}'\n" + body)
    path.write_text(text)
    path.chmod(0o600)
    return path


def run_check(path: Path) -> tuple[int, list[str]]:
    """Return check's exit code and its output, without directory names."""
    err = io.StringIO()
    code = check.run(str(path), io.StringIO(), err)
    return code, err.getvalue().replace(f"{path.parent}/", "").splitlines()


def write_accounts(place: Path, content: bytes) -> Path:
    path = place / "data" / "accounts.toml"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    return path


# --- the relay's CA file ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory"),
        (b"", "no certificate"),
        (b"not PEM at all\n", "no certificate"),
    ],
    ids=["missing", "empty", "text"],
)
def test_unusable_relay_ca(tmp_path: Path, content: bytes | None, says: str) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    path = configure(tmp_path, VERIFIED + 'smtp.relay-ca = "ca.pem"')
    code, lines = run_check(path)
    assert code == 2
    assert lines[0].startswith('error: mail.toml:9: server.listener.it0.smtp.relay-ca = "ca.pem": ')
    assert "the authorities cannot be read: " in lines[0]
    assert says.lower() in lines[0].lower()
    with pytest.raises(ConfigurationError, match="the authorities cannot be read"):
        Server(load(path))


def test_relay_ca_that_is_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca.pem")
    code, lines = run_check(configure(tmp_path, VERIFIED + 'smtp.relay-ca = "ca.pem"'))
    assert (code, lines[-1]) == (2, "1 error")
    assert "it is a pipe (FIFO), not a regular file" in lines[0]


def test_inherited_relay_ca_is_reported_once(tmp_path: Path) -> None:
    before = (
        '[smtp]\nrelay = "a.example:25"\nrelay-tls = "verify"\nrelay-ca = "no.pem"\n'
        '[certificate.x]\ncert = "file://no.crt"\nprivate-key = "file://no.key"\n'
    )
    code, lines = run_check(configure(tmp_path, "", "", before=before))
    assert code == 2
    assert [line.split(":")[:3] for line in lines[:-1]] == [
        ["error", " mail.toml", "5"],
        ["error", " mail.toml", "7"],
    ]


def test_valid_relay_ca(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    path = configure(tmp_path, VERIFIED + 'smtp.relay-ca = "ca.pem"', RELAY, PLAIN)
    assert run_check(path) == (0, [])


def test_relay_ca_of_a_custom_handler_is_not_checked(tmp_path: Path) -> None:
    body = VERIFIED + 'smtp.relay-ca = "no.pem"\nhandler = "support.serving_handlers:Echo"'
    assert run_check(configure(tmp_path, body)) == (0, [])


# --- the accounts -------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty; for no accounts, write a comment into it"),
        (b'[account."a@example.org"\n', "not valid TOML"),
        (b'[account."a@example.org"]\npassword = "x"\n', "password"),
        (b"\xff\n", "byte 0xff is not UTF-8"),
        (b"x = " + b"9" * 5000, "a number with 5,000 digits is too long"),
    ],
    ids=["empty", "torn", "password", "octets", "number"],
)
def test_unusable_accounts_file(tmp_path: Path, protocol: str, content: bytes, says: str) -> None:
    write_accounts(tmp_path, content)
    code, lines = run_check(configure(tmp_path, f'protocol = "{protocol}"\n{PLAIN}'))
    assert code == 0
    assert len(lines) == 2
    assert (
        lines[0]
        == "warning: data/accounts.toml cannot be used; mail is deferred until this is fixed"
    )
    assert lines[1].startswith("warning: data/accounts.toml:")
    assert says in lines[1]


def test_accounts_file_that_is_a_pipe_does_not_block(tmp_path: Path) -> None:
    write_accounts(tmp_path, b"").unlink()
    os.mkfifo(tmp_path / "data" / "accounts.toml", 0o600)
    assert run_check(configure(tmp_path, PLAIN)) == (
        0,
        [
            "warning: data/accounts.toml cannot be read: it is a pipe (FIFO), not a regular file; "
            "mail is deferred until this is fixed"
        ],
    )


def test_valid_or_missing_accounts_file(tmp_path: Path) -> None:
    path = configure(tmp_path, PLAIN)
    assert run_check(path) == (0, [])
    write_accounts(tmp_path, b"# nobody\n")
    assert run_check(path) == (0, [])


@pytest.mark.parametrize(
    "body",
    [
        'protocol = "http"',
        PLAIN + 'handler = "support.serving_handlers:Echo"',
        PLAIN + 'smtp.aiosmtpd-handler = "support.serving_handlers:Echo"',
    ],
)
def test_accounts_are_not_checked_without_mail(tmp_path: Path, body: str) -> None:
    write_accounts(tmp_path, b"nonsense")
    path = configure(tmp_path, body, before='server.postmaster = "x@example.org"\n')
    assert run_check(path) == (0, [])


@pytest.mark.parametrize(
    ("name", "there"),
    [("a@example.org", True), ("al@example.org", True), ("b@example.org", False)],
)
def test_postmaster_without_an_account_warns(tmp_path: Path, name: str, there: bool) -> None:
    path = configure(tmp_path, PLAIN, before=f'server.postmaster = "{name}"\n')
    assert run_check(path)[0] == 0  # the accounts may be made later
    write_accounts(tmp_path, b'[account."a@example.org"]\naliases = ["al@example.org"]\n')
    expected = (
        f'error: mail.toml:2: server.postmaster = "{name}": data/accounts.toml has no account of '
        "this name"
    )
    assert run_check(path) == ((0, []) if there else (2, [expected, "1 error"]))


def test_check_creates_no_files(tmp_path: Path) -> None:
    check_files(load(configure(tmp_path, RELAY, PLAIN)))
    assert [path.name for path in tmp_path.iterdir()] == ["mail.toml"]


def test_files_of_another_smtp_are_not_checked(tmp_path: Path) -> None:
    """Another package's smtp has options of its own, and perhaps no accounts."""
    write_accounts(tmp_path, b"[broken")
    with registered(handlers={"smtp": "support.serving_handlers:Echo"}, protocols={"lmtp": LMTP}):
        config = load(configure(tmp_path, PLAIN))
    assert check_files(config) == ([], [])
