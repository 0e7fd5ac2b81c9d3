"""`fastlisten serve` without a file: the embedded default.

Its ports are fixed. Where the tests may make network namespaces they are free; elsewhere the
tests are skipped while something else uses them.
"""

from __future__ import annotations

import contextlib
import os
import smtplib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import Namespace, why_not
from serving import Program, program

HTTP = 2080
PORTS = {"smtp": 2525, "submission": 2587, "submissions": 2465}

NOT_SERVED = [
    'listener "imap": not served: this version has no protocol = "imap"',
    'listener "imaps": not served: this version has no protocol = "imap"',
    'listener "jmap": not served: this version has no protocol = "jmap"',
    'listener "lmtp": not served: this version has no protocol = "lmtp"',
    'listener "managesieve": not served: this version has no protocol = "managesieve"',
]


def served_line(name: str) -> str:
    protocol, port = ("smtp", PORTS[name]) if name in PORTS else (name, HTTP)
    return (
        f'listener "{name}": {protocol} on 127.0.0.1:{port}; '
        "max-connections 1000, then refuse; needs up to 1001 descriptors"
    )


@pytest.fixture(autouse=True)
def free_ports() -> Iterator[None]:
    """Run on a host of its own, or skip if the ports are taken on this one."""
    with contextlib.ExitStack() as stack:
        if not why_not():
            stack.enter_context(stack.enter_context(Namespace.made()))
        for port in (HTTP, *PORTS.values()):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    pytest.skip(f"port {port} is in use, and {why_not()}")
        yield


@contextlib.contextmanager
def default(directory: Path, **environ: str) -> Iterator[Program]:
    with program(directory, None, listeners=4, environ=environ) as started:
        yield started


def deliver(port: int, recipient: str, body: bytes) -> None:
    kind = smtplib.SMTP_SSL if port == PORTS["submissions"] else smtplib.SMTP
    with kind("127.0.0.1", port, "client.example.com", timeout=20) as session:
        assert session.sendmail("sender@example.com", [recipient], body) == {}


@pytest.mark.parametrize("variable", ["XDG_DATA_HOME", "STATE_DIRECTORY", "HOME"])
def test_it_makes_an_account_and_delivers_mail(tmp_path: Path, variable: str) -> None:
    root = tmp_path / "place"
    data = {
        "XDG_DATA_HOME": root / "fastlisten",
        "STATE_DIRECTORY": root,
        "HOME": root / ".local" / "share" / "fastlisten",
    }[variable]
    environ = {variable: str(root)}
    if variable != "XDG_DATA_HOME":
        environ["XDG_DATA_HOME"] = ""
    accounts = data / "accounts.toml"
    with default(tmp_path, **environ) as started:
        assert started.out.splitlines() == [
            *NOT_SERVED,
            f"added user@localhost to {accounts}",
            f"mail is kept in {data}; accounts in {accounts}",
            served_line("http"),
            served_line("smtp"),
            served_line("submission"),
            served_line("submissions"),
        ]
        assert stat.S_IMODE(accounts.stat().st_mode) == 0o600
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        for port in PORTS.values():
            deliver(port, "user@localhost", b"Subject: hello\r\n\r\nbody\r\n")
        assert started.stop() == 0
        assert "ERROR" not in started.err
        # One, of the certificate that was made.
        assert started.err.count("WARNING") == 1
        assert f"kept in {data}/self-signed.pem; SHA-256 " in started.err
    messages = [path.read_bytes() for path in (data / "mail/user@localhost/new").iterdir()]
    assert [message.endswith(b"Subject: hello\r\n\r\nbody\r\n") for message in messages] == [
        True
    ] * 3


def test_it_keeps_accounts_and_mail(tmp_path: Path) -> None:
    data = tmp_path / "fastlisten"
    with default(tmp_path, XDG_DATA_HOME=str(tmp_path)) as started:
        deliver(2525, "user@localhost", b"Subject: first\r\n\r\n")
        assert started.stop() == 0
    accounts = data / "accounts.toml"
    accounts.write_text('# mine\n[account."me@localhost"]\n')
    with default(tmp_path, XDG_DATA_HOME=str(tmp_path)) as started:
        assert "added" not in started.out
        deliver(2525, "me@localhost", b"Subject: second\r\n\r\n")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            deliver(2525, "user@localhost", b"Subject: third\r\n\r\n")
        assert started.stop() == 0
    assert accounts.read_text().startswith("# mine\n")
    assert len(list((data / "mail/user@localhost/new").iterdir())) == 1
    assert len(list((data / "mail/me@localhost/new").iterdir())) == 1


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with default(tmp_path, XDG_DATA_HOME=str(tmp_path)) as started:
        inodes = {
            os.readlink(f"/proc/{started.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{started.pid}/fd")
        }
        table = Path(f"/proc/{started.pid}/net/tcp").read_text().splitlines()[1:]
        table += Path(f"/proc/{started.pid}/net/tcp6").read_text().splitlines()[1:]
        own = [line.split() for line in table if f"socket:[{line.split()[9]}]" in inodes]
        # 127.0.0.1 in words of this machine, ports in hexadecimal; 0A is listening.
        assert sorted((row[1], row[3]) for row in own) == [
            (f"{socket.htonl(0x7F000001):08X}:{2080:04X}", "0A"),
            (f"{socket.htonl(0x7F000001):08X}:{2465:04X}", "0A"),
            (f"{socket.htonl(0x7F000001):08X}:{2525:04X}", "0A"),
            (f"{socket.htonl(0x7F000001):08X}:{2587:04X}", "0A"),
        ]
        assert started.stop() == 0


def test_taken_ports_are_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 2587)):
        with program(
            tmp_path, None, listeners=0, environ={"XDG_DATA_HOME": str(tmp_path)}
        ) as started:
            assert started.ended() == 3
        name = Path("/proc/self/comm").read_text().strip()
        assert started.err == (
            'error: listener "submission" on 127.0.0.1:2587: bind: Address already in use '
            f"(held by PID {os.getpid()}, {name})\n"
        )


def test_a_place_that_cannot_be_written_is_3(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environ = {"XDG_DATA_HOME": str(tmp_path / "file")}
    with program(tmp_path, None, listeners=0, environ=environ) as started:
        assert started.ended() == 3
        assert started.err.startswith("error: ")
        assert "Not a directory" in started.err
        assert "Traceback" not in started.err
