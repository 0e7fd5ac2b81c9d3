"""How sessions of a running server end: refusals, timeouts, SIGTERM, a reload, an upgrade.

Rules of this file: the program with a real file, clients in plain text and over TLS. What a client
has been told that is done, is there afterwards.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import cheap_hash
from support.certificates import authority, rsa_key, table, write
from support.imap_server import MESSAGE, Lines
from support.kernel import ended, open_below, sockets
from support.mail_store import deliver
from support.program import Program, program, run
from support.waiting import PATIENCE, until
from support.workers import Workers, stopped, workers

HOST = "127.0.0.1"
ALICE = "alice@example.org"
ACCOUNTS = f'[account."{ALICE}"]\npassword = "{cheap_hash("wonder")}"\n'

#: More than the socket buffers of both sides hold.
LONG = b"Subject: long\r\n\r\n" + b"0123456789abcd\r\n" * 500_000

SHUTTING_DOWN = b"* BYE [UNAVAILABLE] Server shutting down.\r\n"


def listeners(*more: str) -> str:
    both = (("imap", ""), ("imaps", "tls.implicit = true\n"))
    lines = "".join(f"{line}\n" for line in more)
    return "".join(
        f'[server.listener.{name}]\nprotocol = "imap"\nbind = "{HOST}:0"\n{tls}{lines}'
        for name, tls in both
    )


@contextlib.contextmanager
def serving(directory: Path, *more: str) -> Iterator[Program]:
    write(directory, authority().sign("mx.example.org", HOST, key=rsa_key()))
    text = table(directory) + listeners(*more)
    with program(directory, text, accounts=ACCOUNTS, listeners=2) as started:
        yield started


def inbox(directory: Path) -> str:
    return str(directory / "data" / "mail" / ALICE)


class Clients(contextlib.ExitStack):
    """Clients of a program; all are closed at the end."""

    def __init__(self, started: Program) -> None:
        super().__init__()
        self.started = started

    def socket(self, listener: str = "imap") -> socket.socket:
        """Connect; over TLS where that is from the first byte."""
        plain = socket.create_connection((HOST, self.started.port(listener)), PATIENCE)
        if listener == "imap":
            return self.enter_context(plain)
        context = authority().client_context()
        return self.enter_context(context.wrap_socket(plain, server_hostname=HOST))

    def greeted(self, listener: str = "imap") -> Lines:
        """Connect and read the greeting."""
        client = Lines(self.socket(listener))
        self.callback(client.stream.close)
        return client

    def lines(self, listener: str = "imap", mailbox: str = "INBOX") -> Lines:
        """Log in, over TLS, and select a mailbox."""
        client = self.greeted(listener)
        if listener == "imap":
            client.ok("STARTTLS")
            client.stream.close()
            context = authority().client_context()
            encrypted = context.wrap_socket(client.connection, server_hostname=HOST)
            client.connection = self.enter_context(encrypted)
            client.stream = self.enter_context(encrypted.makefile("rb"))
        client.ok(f"LOGIN {ALICE} wonder")
        client.ok(f"SELECT {mailbox}")
        return client


both = pytest.mark.parametrize("listener", ["imap", "imaps"])


# --- refusals -------------------------------------------------------------------------------------


def test_clients_beyond_the_limit(tmp_path: Path) -> None:
    with serving(tmp_path, "max-connections = 1") as started, Clients(started) as clients:
        first = clients.greeted("imap")
        with contextlib.closing(clients.socket("imap")) as second:
            text = b"* BYE [UNAVAILABLE] Too many connections; try again later\r\n"
            assert everything(second) == text
        first.ok("NOOP")
        # With TLS from the first byte nothing can be said before the handshake, but an alert.
        clients.greeted("imaps")
        with socket.create_connection((HOST, started.port("imaps")), PATIENCE) as third:
            assert everything(third)[:1] == b"\x15"
        assert started.stop() == 0


def everything(client: socket.socket) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            said += piece
    return said


@both
def test_silent_clients(tmp_path: Path, listener: str) -> None:
    times = ('timeout.first-byte = "1s"', 'timeout.idle = "1s"')
    with serving(tmp_path, *times) as started, Clients(started) as clients:
        before = sockets(started.pid)
        silent, idle = clients.greeted(listener), clients.lines(listener)
        idle.send(b"i IDLE\r\n")
        assert idle.response() == b"+ idling"
        for client in (silent, idle):
            assert client.stream.read() == b"* BYE Disconnected for inactivity.\r\n"
        clients.close()
        until(lambda: sockets(started.pid) == before, "the ends of connections")
        assert started.stop() == 0
        assert started.err.count(" ended: timeout; ") == 1  # the silent one was no session


# --- SIGTERM --------------------------------------------------------------------------------------


@both
def test_sigterm(tmp_path: Path, listener: str) -> None:
    """Idle clients hear it at once; what has begun is finished."""
    with serving(tmp_path) as started, Clients(started) as clients:
        for message in (MESSAGE, LONG):
            deliver(inbox(tmp_path), message)
        silent, quiet, waiting = clients.greeted(listener), *both_of(clients, listener)
        fetching, storing = both_of(clients, listener)
        waiting.send(b"i IDLE\r\n")
        assert waiting.response() == b"+ idling"
        fetching.send(b"f FETCH 2 BODY.PEEK[]\r\n")
        head = fetching.stream.readline()
        assert head.startswith(b"* 2 FETCH ")
        storing.send(b"s APPEND INBOX {%d}\r\n" % len(MESSAGE))
        assert storing.response().startswith(b"+ ")
        storing.send(MESSAGE[:20])
        started.signal()
        for client in (silent, quiet, waiting):
            assert client.stream.read() == SHUTTING_DOWN
        assert started.process.poll() is None
        rest = fetching.stream.read()
        assert rest == LONG + b")\r\nf OK Fetch completed.\r\n" + SHUTTING_DOWN
        storing.send(MESSAGE[20:] + b"\r\n")
        # Another session may have taken what is recent, so that RECENT is said or not.
        said = [storing.stream.readline()]
        while said[-1].startswith(b"* ") and said[-1] != SHUTTING_DOWN:
            said.append(storing.stream.readline())
        assert said[-1].startswith(b"s OK [APPENDUID "), said
        assert storing.stream.read() == SHUTTING_DOWN
        clients.close()
        assert started.ended() == 0
    assert open_below(tmp_path) == []
    stored = [path.read_bytes() for path in Path(inbox(tmp_path), "cur").iterdir()]
    assert sorted(map(len, stored)) == sorted([len(LONG), len(MESSAGE), len(MESSAGE)])


def both_of(clients: Clients, listener: str) -> tuple[Lines, Lines]:
    return clients.lines(listener), clients.lines(listener)


# --- several workers ------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Workers]:
    write(tmp_path, authority().sign("mx.example.org", HOST, key=rsa_key()))
    head = f'control-socket = "{tmp_path / "control"}"\n'
    text = table(tmp_path) + listeners()
    with workers(tmp_path, 2, text, head=head, accounts=ACCOUNTS) as found:
        until(lambda: len(found.program.addresses) == 2, "both listeners")
        yield found


def in_idle(server: Workers, clients: Clients) -> list[Lines]:
    """Return a client of each worker that is in IDLE, and has set a flag that all have seen."""
    made = []
    for pid in server.pids:
        with stopped(*(one for one in server.pids if one != pid)):
            made.append(clients.lines("imaps"))
    for number, client in enumerate(made, 1):
        client.ok(f"STORE {number} +FLAGS (\\Flagged)")
    for client in made:
        client.send(b"i IDLE\r\n")
        while client.response() != b"+ idling":
            pass
    return made


def flagged(clients: Clients) -> list[bool]:
    """Return which messages have the flag."""
    found = clients.lines("imaps").ok("FETCH 1:* FLAGS")
    return [b"\\Flagged" in one for one in found]


def control(directory: Path, command: str) -> None:
    done = run(command, "--config", directory / "mail.toml", TOLD=str(directory))
    assert done.returncode == 0, done.stderr


def end_of(client: Lines) -> bytes:
    """Return the last line that a client gets."""
    return client.stream.readlines()[-1]


@pytest.mark.parametrize("command", ["restart", "upgrade"])
def test_workers_that_are_replaced(two: Workers, tmp_path: Path, command: str) -> None:
    for _ in range(2):
        deliver(inbox(tmp_path), MESSAGE)
    old = two.pids
    with Clients(two.program) as clients:
        waiting = in_idle(two, clients)
        control(tmp_path, command)
        assert [end_of(client) for client in waiting] == [SHUTTING_DOWN] * 2
        until(lambda: all(ended(pid) for pid in old), "the end of the old workers")
        assert flagged(clients) == [True] * 2
    assert two.end() == 0


def test_sigterm_of_several_workers(two: Workers, tmp_path: Path) -> None:
    for _ in range(2):
        deliver(inbox(tmp_path), MESSAGE)
    with Clients(two.program) as clients:
        waiting = in_idle(two, clients)
        assert two.end() == 0
        assert [end_of(client) for client in waiting] == [SHUTTING_DOWN] * 2


def test_a_reload_leaves_sessions_alone(two: Workers, tmp_path: Path) -> None:
    """They keep the settings that they began with; a listener that is gone ends its own."""
    for _ in range(2):
        deliver(inbox(tmp_path), MESSAGE)
    file = tmp_path / "mail.toml"
    with Clients(two.program) as clients:
        waiting = in_idle(two, clients)
        file.write_text(file.read_text() + "[imap]\nappend-limit = 100000\n")
        control(tmp_path, "reload")
        new = clients.lines("imaps")
        assert b" APPENDLIMIT=100000" in new.ok("CAPABILITY")[0]
        new.ok("STORE 1 +FLAGS (\\Seen)")
        for client in waiting:
            client.send(b"DONE\r\n")
            assert b"\\Seen" in b" ".join(client.answers(b"i"))
            assert b" APPENDLIMIT=52428800" in client.ok("CAPABILITY")[0]
        text = file.read_text()
        start = text.index("[server.listener.imaps]")
        file.write_text(text[:start] + text[text.index("[imap]") :])
        control(tmp_path, "reload")
        assert [end_of(client) for client in (*waiting, new)] == [SHUTTING_DOWN] * 3
    assert two.end() == 0
