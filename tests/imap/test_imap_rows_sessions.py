"""imap.sessions-per-user and imap.sessions-per-account: how many sessions an account may have.

Rules of this file: limits are small. With several workers they are the limits of all together, also
when one of them is killed.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.certificates import authority, rsa_key, table, write
from support.imap_server import ADDRESS, PASSWORD, ImapServer, Lines, serve_imap
from support.real_server import ALICE, HOST, PASSWORDS, ZOE, accounts
from support.waiting import PATIENCE, until
from support.workers import Workers, stopped, workers

LOGIN = f"LOGIN {ADDRESS} {PASSWORD}"
PER_USER = (
    b"NO [LIMIT] Maximum number of connections from user+IP exceeded (imap.sessions-per-user=2)"
)
PER_ACCOUNT = (
    b"NO [LIMIT] Maximum number of connections from user exceeded (imap.sessions-per-account=2)"
)


@contextlib.contextmanager
def two(server: ImapServer, second: str = "127.0.0.1") -> Iterator[list[Lines]]:
    """Log in twice."""
    clients = [server.connect(), server.connect(second)]
    for client in clients:
        client.ok(LOGIN)
    yield clients
    for client in clients:
        client.close()


def test_one_session_too_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve_imap(tmp_path, options={"sessions-per-user": 2}) as server, two(server) as clients:
        third = server.connect()
        assert third.say(LOGIN) == [PER_USER]
        (record,) = [it for it in caplog.records if getattr(it, "event", "") == "login-deferred"]
        assert "Maximum number of connections from user+IP exceeded" in record.getMessage()
        # The client may stay; it is none of the account's yet.
        assert third.say("SELECT INBOX")[-1].startswith(b"BAD ")
        clients[0].ok("LOGOUT")
        assert clients[0].stream.read() == b""
        third.ok(LOGIN)
        assert server.connect().say(LOGIN) == [PER_USER]


@pytest.mark.parametrize("end", [b"", b"x LOGOUT\r\n", b"x IDLE\r\n", b"x NONSENSE\r\n" * 20])
def test_every_end_gives_the_session_back(tmp_path: Path, end: bytes) -> None:
    with serve_imap(tmp_path, options={"sessions-per-user": 1}) as server:
        for _ in range(3):
            client = server.connect()
            # The session before may end a moment after its connection was closed.
            until(lambda client=client: client.say(LOGIN)[-1].startswith(b"OK "))  # type: ignore[misc]
            client.send(end)
            client.close()


def test_other_addresses_count_for_themselves(tmp_path: Path) -> None:
    options = {"sessions-per-user": 1}
    with serve_imap(tmp_path, options=options) as server, two(server, "127.0.0.2"):
        assert server.connect().say(LOGIN)[0].startswith(b"NO [LIMIT] ")


def test_sessions_of_an_account_from_all_addresses(tmp_path: Path) -> None:
    options = {"sessions-per-user": 2, "sessions-per-account": 2}
    with serve_imap(tmp_path, options=options) as server:
        with two(server, "127.0.0.2"):
            third = server.connect("127.0.0.3")
            assert third.say(LOGIN) == [PER_ACCOUNT]
        # What a refused login had counted for its address is given back.
        with two(server):
            assert third.say(LOGIN) == [PER_ACCOUNT]


def test_no_limit(tmp_path: Path) -> None:
    options = {"sessions-per-user": None, "sessions-per-account": None}
    with serve_imap(tmp_path, options=options) as server:
        for _ in range(15):
            server.connect().ok(LOGIN)


# --- several workers ------------------------------------------------------------------------------

TEXT = f"""
[imap]
sessions-per-user = 3

[server.listener.it]
protocol = "imap"
bind = "{HOST}:0"
tls.implicit = true
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Workers]:
    write(tmp_path, authority().sign("mx.example.org", HOST, key=rsa_key()))
    with workers(tmp_path, 2, table(tmp_path) + TEXT, accounts=accounts()) as found:
        yield found


def log_in(server: Workers, user: str = ALICE) -> imaplib.IMAP4 | None:
    """Return a session, None if it is one too many."""
    context = authority().client_context()
    client = imaplib.IMAP4_SSL(HOST, server.program.port(), ssl_context=context, timeout=PATIENCE)
    try:
        # imaplib's own login() takes ASCII only.
        client.authenticate("PLAIN", lambda _: f"\0{user}\0{PASSWORDS[user]}".encode())
    except imaplib.IMAP4.error as error:
        client.shutdown()
        if "[LIMIT]" not in str(error):
            raise
        return None
    return client


def log_in_at(server: Workers, pid: int) -> imaplib.IMAP4 | None:
    with stopped(*(one for one in server.pids if one != pid)):
        return log_in(server)


def test_all_workers_together(server: Workers) -> None:
    first, second = server.pids
    found = [log_in_at(server, pid) for pid in (first, second, first, second, first)]
    assert [session is not None for session in found] == [True, True, True, False, False]
    # Who else logs in is not concerned.
    other = log_in(server, ZOE)
    assert other is not None
    other.logout()
    # A worker that is killed holds none.
    os.kill(first, signal.SIGKILL)
    server.serve(3)
    again = [log_in(server) for _ in range(3)]
    assert [session is not None for session in again] == [True, True, False]
    for session in (*found, *again):
        if session is not None:
            session.shutdown()
    assert server.end() == 0


def test_clients_that_log_in_at_once(server: Workers) -> None:
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: log_in(server), range(12)))
    assert len([session for session in found if session is not None]) == 3
    for session in found:
        if session is not None:
            session.shutdown()
    assert server.end() == 0
