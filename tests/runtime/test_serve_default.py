"""`fastlisten serve` without a file: the embedded default.

Its ports are fixed. Where the tests can create network namespaces the ports are free; elsewhere the
tests are skipped while something else uses them.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import smtplib
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.environment import clean_environment
from support.netns import Namespace, why_not
from support.program import Program, program
from support.waiting import until

PORTS = {
    "http": 2080,
    "imap": 2143,
    "imaps": 2993,
    "lmtp": 2424,
    "smtp": 2525,
    "submission": 2587,
    "submissions": 2465,
}

NOT_SERVED = [
    "not served, because not available in this version: jmap, managesieve",
]

USER = "user@localhost"


def served_line(name: str) -> str:
    protocol = "smtp" if name.startswith("sub") else name.removesuffix("s")
    return (
        f'listener "{name}": {protocol} on 127.0.0.1:{PORTS[name]}; '
        "max-connections 1000, then refuse"
    )


@pytest.fixture(autouse=True)
def free_ports() -> Iterator[None]:
    """Run on a host of its own, or skip if the ports are in use on this one."""
    with contextlib.ExitStack() as stack:
        if not why_not():
            stack.enter_context(stack.enter_context(Namespace.made()))
        for port in PORTS.values():
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    pytest.skip(f"port {port} is in use, and {why_not()}")
        yield


@contextlib.contextmanager
def default(directory: Path, **environ: str) -> Iterator[Program]:
    with program(directory, None, listeners=len(PORTS), environ=environ) as started:
        yield started


def deliver(recipient: str, body: bytes) -> None:
    """Send a message to a local user, without a login."""
    with smtplib.SMTP("127.0.0.1", PORTS["smtp"], "client.example.com", timeout=20) as session:
        assert session.sendmail("sender@example.com", [recipient], body) == {}


def submit(name: str, data: Path, password: str, body: bytes) -> None:
    """Send a message as the only user, who trusts the generated certificate."""
    context = ssl.create_default_context(cafile=str(data / "self-signed.pem"))
    context.check_hostname = False
    session: smtplib.SMTP
    if name == "submissions":
        session = smtplib.SMTP_SSL("127.0.0.1", PORTS[name], "me", timeout=20, context=context)
    else:
        session = smtplib.SMTP("127.0.0.1", PORTS[name], "me", timeout=20)
    with session:
        if name == "submission":
            session.starttls(context=context)
        with pytest.raises(smtplib.SMTPSenderRefused) as stranger:
            session.sendmail(USER, [USER], body)
        assert stranger.value.smtp_code == 530
        session.login(USER, password)
        assert session.sendmail(USER, [USER], body) == {}


def read(name: str, data: Path, password: str) -> list[bytes]:
    """Return the messages in the user's inbox, read by IMAP."""
    context = ssl.create_default_context(cafile=str(data / "self-signed.pem"))
    context.check_hostname = False
    session: imaplib.IMAP4
    if name == "imaps":
        session = imaplib.IMAP4_SSL("127.0.0.1", PORTS[name], ssl_context=context, timeout=20)
    else:
        session = imaplib.IMAP4("127.0.0.1", PORTS[name], timeout=20)
    with session:
        if name == "imap":
            session.starttls(context)
        session.login(USER, password)
        session.select(readonly=True)
        fetched = session.fetch("1:*", "(BODY[])")[1]
        return [one[1] for one in fetched if isinstance(one, tuple)]


def hand_over(body: bytes) -> None:
    """Send a message by LMTP."""
    with (
        socket.create_connection(("127.0.0.1", PORTS["lmtp"]), 20) as connection,
        connection.makefile("rwb") as session,
    ):
        envelope = f"LHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<{USER}>\r\nDATA\r\n".encode()
        session.write(envelope + body + b".\r\nQUIT\r\n")
        session.flush()
        replies = [line[:4] for line in session.read().splitlines() if line[3:4] == b" "]
    assert replies == [b"220 ", b"250 ", b"250 ", b"250 ", b"354 ", b"250 ", b"221 "]


@pytest.mark.parametrize("variable", ["XDG_DATA_HOME", "STATE_DIRECTORY", "HOME"])
def test_default_makes_an_account_and_delivers_mail(tmp_path: Path, variable: str) -> None:
    root = tmp_path / "place"
    data = {
        "XDG_DATA_HOME": root / "fastlisten",
        "STATE_DIRECTORY": root,
        "HOME": root / ".local" / "share" / "fastlisten",
    }[variable]
    environ = {variable: str(root)}
    if variable != "XDG_DATA_HOME":
        environ["XDG_DATA_HOME"] = ""
    accounts, kept = data / "accounts.toml", data / f"{USER}.password"
    with default(tmp_path, **environ) as started:
        until(lambda: "not served" in started.out, "the last line")
        assert started.out.splitlines() == [
            f"added user@localhost to {accounts}",
            f"its password is in {kept}",
            f"mail is kept in {data}; accounts in {accounts}",
            *map(served_line, PORTS),
            *NOT_SERVED,
        ]
        assert stat.S_IMODE(accounts.stat().st_mode) == 0o600
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        body = b"Subject: hello\r\n\r\nbody\r\n"
        deliver(USER, body)
        hand_over(body)
        for name in ("submission", "submissions"):
            submit(name, data, kept.read_text().strip(), body)
        for name in ("imap", "imaps"):
            found = read(name, data, kept.read_text().strip())
            assert [message.endswith(b"\r\n" + body) for message in found] == [True] * 4
        answer = httpx.get(f"http://127.0.0.1:{PORTS['http']}/healthz/ready")
        assert answer.status_code == 200
        assert started.stop() == 0
        assert "ERROR" not in started.err
        # Only one, about the certificate that was made.
        assert started.err.count("WARNING") == 1
        assert f"kept in {data}/self-signed.pem; SHA-256 " in started.err
    messages = [path.read_bytes() for path in (data / "mail" / USER / "cur").iterdir()]
    assert [message.endswith(b"\r\n" + body) for message in messages] == [True] * 4


def test_accounts_and_mail_survive_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "fastlisten"
    with default(tmp_path, XDG_DATA_HOME=str(tmp_path)) as started:
        deliver(USER, b"Subject: first\r\n\r\n")
        assert started.stop() == 0
    accounts = data / "accounts.toml"
    accounts.write_text('# mine\n[account."me@localhost"]\n')
    with default(tmp_path, XDG_DATA_HOME=str(tmp_path)) as started:
        assert "added" not in started.out
        assert "its password" not in started.out
        deliver("me@localhost", b"Subject: second\r\n\r\n")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            deliver(USER, b"Subject: third\r\n\r\n")
        assert started.stop() == 0
    assert accounts.read_text().startswith("# mine\n")
    assert len(list((data / "mail/user@localhost/new").iterdir())) == 1
    assert len(list((data / "mail/me@localhost/new").iterdir())) == 1


def test_default_listens_on_loopback_only(tmp_path: Path) -> None:
    with default(tmp_path, XDG_DATA_HOME=str(tmp_path)) as started:
        inodes = {
            os.readlink(f"/proc/{started.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{started.pid}/fd")
        }
        table = Path(f"/proc/{started.pid}/net/tcp").read_text().splitlines()[1:]
        table += Path(f"/proc/{started.pid}/net/tcp6").read_text().splitlines()[1:]
        own = [line.split() for line in table if f"socket:[{line.split()[9]}]" in inodes]
        # 127.0.0.1 in this machine's byte order, ports in hexadecimal; 0A means listening.
        assert sorted((row[1], row[3]) for row in own) == [
            (f"{socket.htonl(0x7F000001):08X}:{port:04X}", "0A") for port in sorted(PORTS.values())
        ]
        assert started.stop() == 0


def test_ports_in_use_exit_with_3(tmp_path: Path) -> None:
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


def test_unwritable_data_directory_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environ = {"XDG_DATA_HOME": str(tmp_path / "file")}
    with program(tmp_path, None, listeners=0, environ=environ) as started:
        assert started.ended() == 3
        assert started.err.startswith("error: ")
        assert "Not a directory" in started.err
        assert "Traceback" not in started.err


def test_listener_without_its_library_is_left_out(tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError('missing', name='httptools')"
    (tmp_path / "httptools.py").write_text(missing)
    path = f"{tmp_path}:{clean_environment()['PYTHONPATH']}"
    environ = {"XDG_DATA_HOME": str(tmp_path), "PYTHONPATH": path}
    with program(tmp_path, None, listeners=len(PORTS) - 1, environ=environ) as started:
        until(lambda: NOT_SERVED[0] in started.out, "the last line")
        assert started.out.splitlines()[-2:] == [
            'listener "http": not served: http needs the package httptools: '
            'pip install "fastlisten[http]"',
            *NOT_SERVED,
        ]
        assert started.stop() == 0
