"""The supervisor is killed under mail sessions: workers finish them, and a new server can start.

Rules of this file: SIGKILL, with real SMTP sessions in all states. What clients were told is
compared with the messages in the mailbox.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from support.figures import show
from support.kernel import ended
from support.smtp_client import SmtpClient, connected
from support.waiting import PATIENCE, until
from support.workers import Workers, workers

WORKERS = 4
LIMIT = 100

#: Sessions of each kind.
SESSIONS = 40


def text(port: int) -> str:
    return f"""
[server.listener.it]
protocol = "smtp"
bind = "127.0.0.1:{port}"
max-connections = {LIMIT}
"""


@contextlib.contextmanager
def orphans(server: Workers) -> Iterator[list[int]]:
    """Yield the workers; kill those that are left at the end, which have no supervisor then."""
    pids = server.pids
    try:
        yield pids
    finally:
        for pid in pids:
            if not ended(pid):
                os.kill(pid, signal.SIGKILL)


def begin(stack: contextlib.ExitStack, port: int, number: int) -> SmtpClient:
    """Return a client that has sent half of a message."""
    client = stack.enter_context(connected(port))
    to = "RCPT TO:<alice@example.org>"
    assert client.codes("EHLO x.example.com", "MAIL FROM:<>", to, "DATA") == [250, 250, 250, 354]
    client.send(f"Subject: {number}", "", "first half")
    return client


def places(port: int) -> int:
    """Return how many clients are greeted at a time until one is refused."""
    with contextlib.ExitStack() as stack:
        for count in range(LIMIT + 1):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            if not client.recv(100).startswith(b"220 "):
                return count
    return LIMIT + 1


def delivered(port: int) -> bool:
    """Deliver a message; return False if there is no place."""
    with connected(port) as client:
        if "ESMTP" not in client.greeting[0]:
            return False
        assert client.ask("EHLO x.example.com")[0] == 250
        assert client.ask("MAIL FROM:<>")[0] == 250
        assert client.ask("RCPT TO:<alice@example.org>")[0] == 250
        assert client.data()[0] == 250
    return True


def test_transactions_end_and_a_new_server_starts_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "data").symlink_to(tmp_path / "data")
    head = 'shutdown-timeout = "1h"\n'
    with (
        workers(tmp_path, WORKERS, text(0), head=head) as old,
        orphans(old) as pids,
        contextlib.ExitStack() as stack,
    ):
        port = old.program.port()
        busy = [begin(stack, port, number) for number in range(SESSIONS)]
        idle = [stack.enter_context(connected(port)) for _ in range(SESSIONS)]
        old.signal(signal.SIGKILL)
        for client in idle:
            assert client.answer()[0] == 421
            assert client.rest() == b""
        with workers(tmp_path / "new", WORKERS, text(port)) as new:
            # Its limit does not count the sessions that its predecessor still has.
            until(lambda: places(port) == LIMIT, "all places")
            until(lambda: delivered(port), "a place that the clients before have given back")
            assert not any(ended(pid) for pid in pids), "the test needs all workers to be busy"
            told = 0
            for client in busy:
                told += client.ask("second half\r\n.")[0] == 250
                assert client.answer()[0] == 421
                assert client.rest() == b""
            assert told == SESSIONS
            until(lambda: all(ended(pid) for pid in pids), "the end of the old workers")
            until(lambda: places(port) == LIMIT, "all places")
            assert new.end() == 0
        messages = old.program.messages()
        assert sum(b"first half\r\nsecond half\r\n" in one for one in messages) == SESSIONS
        assert len(messages) == SESSIONS + 1
    assert old.err.count("the supervisor has ended: draining") == WORKERS
    show(
        f"supervisor of {WORKERS} workers killed with {2 * SESSIONS} sessions",
        f"{SESSIONS} transactions in progress: {told} acknowledged and {len(messages) - 1} in "
        f"the mailbox; {SESSIONS} idle sessions: {len(idle)} got 421",
        f"the new server on the same port has {LIMIT} of {LIMIT} places",
    )
