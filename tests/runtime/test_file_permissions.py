"""Files with secrets that others can read or change: the warnings of `check` and `serve`.

Rules of this file: modes are really set; tests can run as any user, because no access is tried.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from support.certificates import authority, table, write
from support.config import MACHINE, listener_table
from support.loops import on_loops

from fastlisten.cli import check
from fastlisten.config import load
from fastlisten.runtime.file_permissions import permission_warnings
from fastlisten.runtime.server import Server

READ = "any user on this host can read it, and it contains"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory with a configuration and files that only their owner can read."""
    write(tmp_path, authority().sign("mx"))
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "accounts.toml").write_text('[account."a@example.org"]\n')
    (tmp_path / "password").write_text("p4ssw0rd\n")
    configure(tmp_path)
    for path in (data / "accounts.toml", tmp_path / "mail.key", tmp_path / "password"):
        path.chmod(0o600)
    return tmp_path


def configure(place: Path, password: str = "%{file:password}%", more: str = "") -> None:
    path = place / "mail.toml"
    path.write_text(
        f"server.data-directory = '{place}/data'\n"
        + table(place)
        + listener_table(
            "it",
            'bind = "127.0.0.1:0"\nsmtp.relay = "relay.example.org:25"\nsmtp.relay-user = "u"\n'
            f'smtp.relay-password = "{password}"',
        )
        + more
    )
    path.chmod(0o644)


def warnings_about(place: Path) -> list[str]:
    lines = permission_warnings(load(place / "mail.toml", machine=MACHINE))
    return [line.replace(f"{place}/", "") for line in lines]


def test_no_warning_for_private_files(place: Path) -> None:
    assert warnings_about(place) == []
    for path in ("data/accounts.toml", "mail.key", "password"):
        (place / path).chmod(0o640)
    (place / "data").chmod(0o1777)
    assert warnings_about(place) == []


@pytest.mark.parametrize(
    ("path", "mode", "expected"),
    [
        ("data/accounts.toml", 0o644, f"{READ} password hashes; chmod 0640"),
        ("mail.key", 0o604, f"{READ} certificate.default.private-key; chmod 0600"),
        ("password", 0o644, f"{READ} server.listener.it.smtp.relay-password; chmod 0640"),
        (
            "password",
            0o666,
            "any user on this host can read and change it, and it contains "
            "server.listener.it.smtp.relay-password; chmod 0640",
        ),
        (
            "mail.key",
            0o602,
            "any user on this host can change it, and it contains "
            "certificate.default.private-key; chmod 0600",
        ),
        (
            "data/accounts.toml",
            0o660,
            "its group can change it, and it contains password hashes; chmod 0640",
        ),
        (
            "data",
            0o777,
            "any user on this host can replace files in it; chmod 0775",
        ),
    ],
)
def test_files_open_to_others_warn(place: Path, path: str, mode: int, expected: str) -> None:
    (place / path).chmod(mode)
    who = "" if path == "data" else f"{path} has mode {mode:04o}: "
    assert warnings_about(place) == [(who or f"data has mode {mode:04o}: ") + expected]


def test_directory_writable_by_others_warns(place: Path) -> None:
    """Anyone who can write to the directory can replace a file of mode 0600 with their own."""
    keys = place / "keys"
    keys.mkdir()
    (place / "password").rename(keys / "password")
    (place / "password").symlink_to(keys / "password")
    keys.chmod(0o777)
    expected = "keys has mode 0777: any user on this host can replace files in it; chmod 0775"
    assert warnings_about(place) == [expected]
    keys.chmod(0o1777)
    assert warnings_about(place) == []
    keys.chmod(0o755)
    place.chmod(0o702)
    try:
        (line,) = permission_warnings(load(place / "mail.toml", machine=MACHINE))
    finally:
        place.chmod(0o700)
    assert line.startswith(f"{place} has mode 0702: ")


def test_key_of_the_self_signed_certificate(place: Path) -> None:
    path = place / "data" / "self-signed.pem"
    path.write_text("x")
    path.chmod(0o644)
    assert warnings_about(place) == [
        f"data/self-signed.pem has mode 0644: {READ} the self-signed certificate's key; chmod 0640"
    ]


def test_target_of_a_symbolic_link_is_checked(place: Path) -> None:
    (place / "password").rename(place / "there")
    (place / "password").symlink_to(place / "there")
    assert warnings_about(place) == []
    (place / "there").chmod(0o644)
    assert [line.partition(" ")[0] for line in warnings_about(place)] == ["password"]


@pytest.mark.parametrize(
    ("password", "more", "key"),
    [
        ("p4ss", "", "server.listener.it.smtp.relay-password"),
        ("%{env:NOT}%x", "", "server.listener.it.smtp.relay-password"),
        ("%{file:password}%", '[store.x]\nsecret = "p4ss"', "store.x.secret"),
        ("%{file:password}%", '[[a.users]]\nname = "u"\npassword = "p"', "a.users[0].password"),
        ("%{file:password}%", '[a]\nkey = "remote-ip"\nauth = "plain"', ""),
        ("%{file:password}%", "[a]\nsecret = '%{file:password}%'\npassword = ''", ""),
    ],
)
def test_configuration_file_with_secrets(place: Path, password: str, more: str, key: str) -> None:
    configure(place, password, more)
    machine = MACHINE
    text = (place / "mail.toml").read_text().replace("%{env:NOT}%", "%{env:PORT}%")
    (place / "mail.toml").write_text(text)
    assert permission_warnings(load(place / "mail.toml", machine=machine)) == (
        [f"{place}/mail.toml has mode 0644: {READ} {key}; chmod 0640"] if key else []
    )
    (place / "mail.toml").chmod(0o640)
    assert warnings_about(place) == []


def test_check_and_serve_warn(place: Path) -> None:
    (place / "password").chmod(0o644)
    expected = f"{place}/password has mode 0644: {READ} server.listener.it.smtp.relay-password"
    out, err = io.StringIO(), io.StringIO()
    assert check.run(str(place / "mail.toml"), out, err) == 0
    assert err.getvalue() == f"warning: {expected}; chmod 0640\n"
    assert Server(load(place / "mail.toml")).notes == [f"{expected}; chmod 0640"]


@on_loops
async def test_renewed_key_with_another_mode(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    (place / "password").chmod(0o644)
    async with Server(load(place / "mail.toml")) as server:
        for mode, warned in ((0o604, 1), (0o604, 0), (0o600, 0), (0o604, 1)):
            (place / "mail.key").chmod(mode)
            caplog.clear()
            assert (await server.reload()).succeeded
            lines = [record.getMessage() for record in caplog.records]
            found = [line.partition(" ")[0] for line in lines if READ in line]
            assert found == [f"{place}/mail.key"] * warned


def test_missing_and_special_files_are_skipped(place: Path) -> None:
    os.unlink(place / "data" / "accounts.toml")
    assert warnings_about(place) == []
    os.mkfifo(place / "data" / "accounts.toml", 0o666)
    os.chmod(place / "data" / "accounts.toml", 0o666)
    assert warnings_about(place) == []
