"""The samples on the configuration page, served on their own addresses and ports.

A host and its client are two network namespaces joined by a cable. The host has the addresses of
the page's first sample.
"""

from __future__ import annotations

import imaplib
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from support.marks import external
from support.netns import Namespace, needs_netns
from support.page_samples import WHOLE
from support.program import Program, program
from support.real_server import ALICE, BOB, PASSWORDS, accounts, split

pytestmark = needs_netns()

#: The page's first sample; the protocol is left out.
FIRST = """
[server.listener."smtp"]
bind = ["10.0.0.21:25", "10.0.0.22:25", "a:3f::2"]
protocol = "smtp"
"""

#: Those listeners of its complete sample that anyone can use without implicit TLS.
BOTH = """
[server.listener."smtp"]
bind = "[::]:25"
protocol = "smtp"

[server.listener."submission"]
bind = "[::]:587"
protocol = "smtp"
"""

#: Its sample of two protocols.
TWO = """
[server.listener."smtp"]
bind = ["[::]:25"]
protocol = "smtp"

[server.listener."imap"]
bind = ["[::]:143"]
protocol = "imap"
"""


class Net(NamedTuple):
    """Two joined hosts."""

    host: Namespace
    client: Namespace


@pytest.fixture
def net() -> Iterator[Net]:
    with Namespace.made() as host, Namespace.made() as client:
        host.connect(client, "eth0", "eth0")
        host.ip(
            "addr add 10.0.0.21/24 dev eth0",
            "addr add 10.0.0.22/24 dev eth0",
            "addr add a:3f::2/64 dev eth0 nodad",
        )
        client.ip("addr add 10.0.0.99/24 dev eth0", "addr add a:3f::9/64 dev eth0 nodad")
        yield Net(host, client)


def trusting(started: Program) -> ssl.SSLContext:
    """Return a context for clients that trust the server's generated certificate."""
    made = started.directory / "data" / "self-signed.pem"
    context = ssl.create_default_context(cafile=str(made))
    context.check_hostname = False
    return context


def deliver(host: str, port: int, subject: str, context: ssl.SSLContext | None = None) -> None:
    """Send a message, over the family of the address; on port 587 as a user."""
    with smtplib.SMTP(host, port, "client.example.com", timeout=20) as session:
        if port == 587:
            session.starttls(context=context)
            session.login(ALICE, PASSWORDS[ALICE])
        refused = session.sendmail(
            ALICE if port == 587 else "sender@example.com",
            "alice@example.org",
            f"Subject: {subject}\r\n\r\n.a line with a dot\r\n".encode(),
        )
    assert refused == {}


def test_first_sample_is_served_to_another_host(net: Net, tmp_path: Path) -> None:
    with net.host, program(tmp_path, FIRST) as started:
        assert started.addresses == {
            "smtp": ["10.0.0.21:25", "10.0.0.22:25", "[a:3f::2]:25"],
        }
        with net.client:
            for address in ("10.0.0.21", "10.0.0.22", "a:3f::2"):
                deliver(address, 25, address)
            # It listens on these addresses and on no others.
        with pytest.raises(ConnectionRefusedError):
            deliver("127.0.0.1", 25, "nowhere")
        assert started.stop() == 0
        messages = started.messages()
    assert sorted(message.partition(b"Subject: ")[2] for message in messages) == [
        b"10.0.0.21\r\n\r\n.a line with a dot\r\n",
        b"10.0.0.22\r\n\r\n.a line with a dot\r\n",
        b"a:3f::2\r\n\r\n.a line with a dot\r\n",
    ]
    peers = [
        message.partition(b"client.example.com (")[2].partition(b")")[0] for message in messages
    ]
    assert sorted(peers) == [b"[10.0.0.99]", b"[10.0.0.99]", b"[IPv6:a:3f::9]"]


def test_missing_address_fails_the_start(net: Net, tmp_path: Path) -> None:
    net.host.ip("addr del a:3f::2/64 dev eth0")
    with net.host, program(tmp_path, FIRST, listeners=0) as started:
        assert started.ended() == 3
        assert started.out == ""
        assert started.err == (
            'error: listener "smtp" on a:3f::2: bind: Cannot assign requested address\n'
        )


def test_ports_25_and_587_are_served_to_both_families(net: Net, tmp_path: Path) -> None:
    with net.host, program(tmp_path, BOTH, accounts=accounts(), listeners=2) as started:
        assert started.addresses == {"smtp": ["[::]:25"], "submission": ["[::]:587"]}
        context = trusting(started)
        with net.client:
            for port in (25, 587):
                for address in ("10.0.0.21", "10.0.0.22", "a:3f::2"):
                    deliver(address, port, f"{address} {port}", context)
        for address in ("127.0.0.1", "::1"):
            deliver(address, 25, address)
        assert started.stop() == 0
        assert len(started.messages()) == 8
        # Every delivery is logged with its listener, its client and its user.
        log = [line[20:] for line in started.err.splitlines() if "octets delivered" in line]
        strangers = [line for line in log if line.startswith("INFO fastlisten.smtp: smtp: ")]
        users = [line for line in log if line.startswith("INFO fastlisten.smtp: submission: ")]
        assert (len(strangers), len(users), len(log)) == (5, 3, 8)
        for lines in (strangers, users):
            assert sum("at [10.0.0.99]" in line for line in lines) == 2
            assert sum("at [a:3f::9]" in line for line in lines) == 1
        assert [f" as {ALICE} " in line for line in users] == [True] * 3
        assert f" as {ALICE} " not in "".join(strangers)


def test_smtp_and_imap_are_served_to_both_families(net: Net, tmp_path: Path) -> None:
    with net.host, program(tmp_path, TWO, accounts=accounts(), listeners=2) as started:
        assert started.addresses == {"imap": ["[::]:143"], "smtp": ["[::]:25"]}
        context = trusting(started)
        with net.client:
            for number, address in enumerate(("10.0.0.21", "10.0.0.22", "a:3f::2"), 1):
                deliver(address, 25, address)
                with imaplib.IMAP4(address, 143, timeout=20) as session:
                    session.starttls(context)
                    session.login(ALICE, PASSWORDS[ALICE])
                    assert session.select() == ("OK", [b"%d" % number])
                    found = session.fetch(str(number), "(BODY[HEADER.FIELDS (SUBJECT)])")[1][0]
                    assert isinstance(found, tuple)
                    assert found[1] == f"Subject: {address}\r\n\r\n".encode()
        assert started.stop() == 0


@external("swaks")
@pytest.mark.parametrize("port", [25, 587])
def test_swaks_delivers_on_both_ports(net: Net, tmp_path: Path, port: int) -> None:
    user = ("--tls", "--auth", "PLAIN", "--auth-user", ALICE, "--auth-password", PASSWORDS[ALICE])
    with net.host, program(tmp_path, BOTH, accounts=accounts(), listeners=2) as started:
        with net.client:
            done = subprocess.run(
                [
                    *("swaks", "--server", "10.0.0.21", "--port", str(port)),
                    *("--helo", "client.example.com", "--from", ALICE),
                    *("--to", "alice@example.org", "--body", "from swaks"),
                    *(user if port == 587 else ()),
                ],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "<-  220 mx.example.org ESMTP" in done.stdout
        assert started.stop() == 0
        (message,) = started.messages()
    assert b"\r\nfrom swaks\r\n" in message


def test_second_server_reports_who_holds_the_ports(net: Net, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with net.host, program(tmp_path, BOTH, listeners=2) as first:
        with program(tmp_path / "second", BOTH, listeners=0) as second:
            assert second.ended() == 3
            holder = f"(held by PID {first.pid}, "
            lines = second.err.splitlines()
            assert [line.partition(holder)[0] for line in lines] == [
                'error: listener "smtp" on [::]:25: bind: Address already in use ',
                'error: listener "submission" on [::]:587: bind: Address already in use ',
            ]
        # It does not harm the first.
        deliver("127.0.0.1", 25, "still served")
        assert first.stop() == 0


def test_port_can_be_served_again_at_once(net: Net, tmp_path: Path) -> None:
    """Connections that the server closed remain in TIME_WAIT; reuse-addr is on by default."""
    for _ in range(3):
        with net.host, program(tmp_path, BOTH, listeners=2) as started:
            deliver("127.0.0.1", 25, "again")
            assert started.stop() == 0
    assert len(started.messages()) == 3


# --- the last sample, unchanged ---------------------------------------------------------------

LISTENERS = {
    "management": ["127.0.0.1:8080"],
    "smtp": ["[::]:25"],
    "submission": ["[::]:587"],
    "submissions": ["[::]:465"],
}

LETTER = b"Subject: %b\r\n\r\n.\r\n.a line with a dot\r\n\xe4\xf6\xfc\r\n"


@pytest.fixture
def example(net: Net, tmp_path: Path) -> Iterator[Program]:
    """The page's last sample as it is: no line is changed or added."""
    with (
        net.host,
        program(
            tmp_path, WHOLE, unchanged=True, accounts=accounts(), listeners=len(LISTENERS)
        ) as started,
    ):
        assert (tmp_path / "mail.toml").read_text() == WHOLE
        assert started.addresses == LISTENERS
        yield started
        assert started.stop() == 0
        assert "ERROR" not in started.err


def arrived(started: Program, account: str) -> bytes:
    """Return an account's only message without the header fields added at its top."""
    (message,) = started.messages(account)
    return split(message)[1]


@pytest.mark.parametrize("address", ["10.0.0.21", "a:3f::2"])
def test_port_25_of_the_complete_sample(net: Net, example: Program, address: str) -> None:
    """Strangers can send mail to a local account with STARTTLS; mail for others is refused."""
    with net.client, smtplib.SMTP(address, 25, "client.example.com", timeout=20) as session:
        session.starttls(context=trusting(example))
        assert not session.has_extn("auth")  # before EHLO
        refused = session.sendmail(
            "sender@example.com", [ALICE, "x@example.net", "no@example.org"], LETTER % b"25"
        )
    assert [(name, code, text[:6]) for name, (code, text) in refused.items()] == [
        ("x@example.net", 550, b"5.7.1 "),
        ("no@example.org", 550, b"5.1.1 "),
    ]
    assert arrived(example, ALICE) == LETTER % b"25"
    (stored,) = example.messages(ALICE)
    assert b" with ESMTPS id " in stored


@pytest.mark.parametrize("address", ["10.0.0.21", "a:3f::2"])
@pytest.mark.parametrize("port", [587, 465])
def test_submission_ports_of_the_complete_sample(
    net: Net, example: Program, address: str, port: int
) -> None:
    """A user can send mail to a local account but not to others; nobody else can send at all."""
    context = trusting(example)

    def session() -> smtplib.SMTP:
        if port == 465:
            return smtplib.SMTP_SSL(address, port, "me.example", timeout=20, context=context)
        made = smtplib.SMTP(address, port, "me.example", timeout=20)
        made.starttls(context=context)
        return made

    with net.client:
        with session() as stranger, pytest.raises(smtplib.SMTPSenderRefused) as unknown:
            stranger.sendmail(ALICE, [BOB], LETTER % b"none")
        assert unknown.value.smtp_code == 530
        with session() as user:
            user.login(ALICE, PASSWORDS[ALICE])
            refused = user.sendmail(ALICE, ["x@example.net", BOB], LETTER % b"user")
    (code, text) = refused["x@example.net"]
    assert (code, text[:6]) == (550, b"5.7.1 ")
    assert arrived(example, BOB) == LETTER % b"user"
    assert example.messages(ALICE) == []
    (stored,) = example.messages(BOB)
    assert b" with ESMTPSA id " in stored


def test_port_8080_of_the_complete_sample(net: Net, example: Program) -> None:
    """It shows all four listeners, and changes one with the token; only on loopback."""
    with (
        net.client,
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("10.0.0.21", 8080), 20),
    ):
        pass
    token = (example.directory / "data" / "management.token").read_text().strip()
    with httpx.Client(base_url="http://127.0.0.1:8080", timeout=20) as client:
        assert client.get("/healthz/live").status_code == 200
        assert client.get("/healthz/ready").status_code == 200
        told = client.get("/api/listeners").json()["listeners"]
        assert {one["id"]: one["addresses"] for one in told} == LISTENERS
        assert {one["state"] for one in told} == {"listening"}
        metrics = client.get("/metrics").text
        for name in LISTENERS:
            assert f'fastlisten_connections_limit{{listener="{name}"}} 8192.0' in metrics
        # Changes take effect at once, and none is made without the token.
        place = "/api/listeners/submission/limit"
        assert client.post(place, json={"limit": 7}).status_code == 401
        permission = {"authorization": f"Bearer {token}"}
        assert client.post(place, json={"limit": 7}, headers=permission).status_code == 200
        assert client.get("/api/listeners/submission").json()["limit"] == 7
        sockets = [socket.create_connection(("127.0.0.1", 587), 20) for _ in range(8)]
        try:
            greetings = [one.recv(4) for one in sockets]
        finally:
            for one in sockets:
                one.close()
        assert sorted(greetings) == [b"220 "] * 7 + [b"421 "]
        # A paused listener accepts nothing, and the server is not ready.
        assert client.post("/api/listeners/smtp/pause", headers=permission).status_code == 200
        assert client.get("/healthz/ready").status_code == 503
        assert client.post("/api/listeners/smtp/resume", headers=permission).status_code == 200
        assert client.get("/healthz/ready").status_code == 200
    deliver("127.0.0.1", 25, "resumed")
    assert len(example.messages()) == 1
