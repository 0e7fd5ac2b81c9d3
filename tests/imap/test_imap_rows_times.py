"""imap.idle-keep-alive and imap.timeout-before-login, on the wire.

Rules of this file: times are short, and responses are waited for. The time after a login is the
listener's, and it is none where a test does not set it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, ImapServer, Lines, serve_imap

STILL_HERE = b"* OK Still here"
INACTIVE = b"* BYE Disconnected for inactivity."


def idle(client: Lines) -> None:
    client.send(b"i IDLE\r\n")
    assert client.response() == b"+ idling"


def done(client: Lines) -> None:
    client.send(b"DONE\r\n")
    assert client.answers(b"i")[-1] == b"OK Idle completed."


def served(tmp_path: Path, idle_timeout: float = 0.0, tls: str = "implicit", **options: Any) -> Any:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return serve_imap(tmp_path, tls=tls, idle_timeout=idle_timeout, options=named)


# --- IDLE -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mailbox", ["", "INBOX"])
def test_a_client_in_idle_hears_that_we_are_here(tmp_path: Path, mailbox: str) -> None:
    with served(tmp_path, idle_keep_alive=0.05) as server:
        client = server.lines(mailbox)
        idle(client)
        assert [client.response() for _ in range(3)] == [STILL_HERE] * 3
        done(client)
        client.ok("NOOP")


def test_news_come_in_between(tmp_path: Path) -> None:
    with served(tmp_path, idle_keep_alive=0.05) as server:
        client, other = server.lines("INBOX"), server.lines("INBOX")
        idle(client)
        assert client.response() == STILL_HERE
        other.ok(b"APPEND INBOX {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
        while (said := client.response()) == STILL_HERE:
            pass
        assert said == b"* 1 EXISTS"
        while client.response() != STILL_HERE:
            pass
        done(client)


def test_nothing_is_said_outside_of_idle(tmp_path: Path) -> None:
    """The other client's notices show that the time has passed."""
    with served(tmp_path, idle_keep_alive=0.02) as server:
        client, other = server.lines("INBOX"), server.lines("INBOX")
        for ends in (b"DONE\r\n", b"NOOP\r\n"):
            idle(client)
            client.send(ends)
            client.answers(b"i")
            idle(other)
            for _ in range(5):
                assert other.response() == STILL_HERE
            done(other)
            assert client.ok("NOOP") == []


def test_none_is_said_if_it_is_off(tmp_path: Path) -> None:
    with served(tmp_path, idle_timeout=0.2, idle_keep_alive=None) as server:
        client = server.lines("INBOX")
        idle(client)
        assert client.response() == INACTIVE


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_the_listeners_time_ends_idle(tmp_path: Path, tls: str) -> None:
    """Not a multiple of the keep-alive: the last wait is shorter."""
    with served(tmp_path, idle_timeout=0.25, tls=tls, idle_keep_alive=0.1) as server:
        client = connected(server)
        client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
        client.ok("SELECT INBOX")
        idle(client)
        lines = client.stream.read().splitlines()
        assert lines == [STILL_HERE, STILL_HERE, INACTIVE]


def connected(server: ImapServer) -> Lines:
    """Return a client that talks over TLS."""
    client: Lines = server.connect()
    if b"STARTTLS" in client.greeting:
        client.ok("STARTTLS")
        client.stream.close()
        client.connection = server.encrypt(client.connection)
        client.stream = client.connection.makefile("rb")
    return client


# --- before login ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_a_client_that_does_not_log_in_is_disconnected(tmp_path: Path, tls: str) -> None:
    with served(tmp_path, tls=tls, timeout_before_login=0.1) as server:
        client = connected(server)
        client.ok("NOOP")
        assert client.stream.read() == INACTIVE + b"\r\n"


def test_in_plain_text_before_starttls_too(tmp_path: Path) -> None:
    with served(tmp_path, tls="starttls", timeout_before_login=0.1) as server:
        client = server.connect()
        client.ok("NOOP")
        assert client.stream.read() == INACTIVE + b"\r\n"


def test_a_client_that_has_logged_in_has_the_listeners_time(tmp_path: Path) -> None:
    with served(tmp_path, timeout_before_login=0.1) as server:
        client, other = server.lines(), server.connect()
        other.ok("NOOP")
        # Its time is over, and so would be that of the first, which began before.
        assert other.stream.read() == INACTIVE + b"\r\n"
        client.ok("NOOP")
