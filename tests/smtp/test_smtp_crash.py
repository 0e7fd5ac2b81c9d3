"""SIGKILL at random moments: each acknowledged message is stored exactly once, and whole.

If the reply is lost, the message has been delivered to each recipient once or not at all; a client
that retries, as it must (RFC 5321 4.5.4.1), may therefore deliver it a second time. No message is
ever stored in part.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.smtp_harness import ACCOUNTS, body_of

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import STALE_AFTER

NAMES = ("alice@example.org", "bob@example.org")

#: Starts servers one after the other, as forks of a process that has imported everything.
SERVERS = """
import os, sys, threading
from pathlib import Path
from support.smtp_harness import serve
from fastlisten.mail.delivery import storage
for line in sys.stdin:
    protocol, threads = line.split()
    child = os.fork()
    if child == 0:
        with serve(Path(sys.argv[1]), accounts=None, lmtp=protocol == "lmtp") as server:
            print(os.getpid(), server.port, flush=True)
            threading.Event().wait()
    os.waitpid(child, 0)
"""


class ForkServer:
    """A process that forks servers on demand, one at a time."""

    def __init__(self, directory: Path) -> None:
        paths = [str(Path(__file__).parents[1]), *(entry for entry in sys.path if entry)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVERS, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._pid = 0

    def start(self, protocol: str, threads: int) -> int:
        """Start a server with so many threads that deliver; return its port."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{protocol} {threads}\n")
        self._process.stdin.flush()
        pid, port = self._process.stdout.readline().split()
        self._pid = int(pid)
        return int(port)

    def kill(self) -> None:
        """Kill the running server, whatever it is doing."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._pid = 0

    def close(self) -> None:
        self.kill()
        self._process.communicate(timeout=30)


@contextlib.contextmanager
def fork_server(directory: Path) -> Iterator[ForkServer]:
    server = ForkServer(directory)
    try:
        yield server
    finally:
        server.close()


class Sender:
    """A client that sends messages of mixed sizes to both accounts until the server is gone.

    Attributes:
        bodies: the messages, by key.
        attempts: how often each was sent.
        acknowledged: how often each was acknowledged, by key and account.
    """

    def __init__(self, name: str) -> None:
        self._chance = random.Random(name)
        self._name = name
        self._numbers = itertools.count()
        self._unfinished = ""
        self.bodies: dict[str, bytes] = {}
        self.attempts = collections.Counter[str]()
        self.acknowledged = collections.Counter[tuple[str, str]]()

    def run(self, port: int, protocol: str) -> None:
        """Send messages, beginning with the one that was not acknowledged the last time."""
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=20) as client,
                client.makefile("rb") as replies,
            ):
                self._talk(client, replies, protocol)
        except ConnectionError:
            return

    def _talk(self, client: socket.socket, replies: object, protocol: str) -> None:
        def reply() -> bytes:
            while line := replies.readline():  # type: ignore[attr-defined]
                if line[3:4] == b" ":
                    return bytes(line)
            raise ConnectionError

        hello, finals = ("LHLO", 2) if protocol == "lmtp" else ("EHLO", 1)
        reply()
        client.sendall(f"{hello} client.example.com\r\n".encode())
        reply()
        while True:
            key = self._unfinished or f"{self._name}-{next(self._numbers)}"
            body = self.bodies.setdefault(key, self._body(key))
            self._unfinished = key
            self.attempts[key] += 1
            client.sendall(b"MAIL FROM:<a@b.example>\r\n")
            client.sendall(b"".join(b"RCPT TO:<%s>\r\n" % name.encode() for name in NAMES))
            for _ in range(3):
                assert reply().startswith(b"250")
            if self._chance.random() < 0.3:
                client.sendall(b"BDAT %d LAST\r\n%b" % (len(body), body))
            else:
                client.sendall(b"DATA\r\n")
                assert reply().startswith(b"354")
                stuffed = body.replace(b"\r\n.", b"\r\n..")
                client.sendall(stuffed + b".\r\n")
            for names in [NAMES] if finals == 1 else [(name,) for name in NAMES]:
                assert reply().startswith(b"250")
                for name in names:
                    self.acknowledged[key, name] += 1
            self._unfinished = ""

    def _body(self, key: str) -> bytes:
        line = b"." * self._chance.choice((0, 1, 70)) + b"\r\n"
        return (
            f"Subject: {key}\r\n\r\n".encode() + line * self._chance.choice((1, 9000)) + b"end\r\n"
        )


def kill_servers(directory: Path, rounds: Iterator[int], chance: random.Random) -> int:
    """Kill servers while clients send, then check the Maildirs; return the count of 250 replies."""
    (directory / "accounts.toml").write_text(ACCOUNTS)
    senders = [Sender(f"{number}") for number in range(4)]

    def acknowledged() -> int:
        return sum(sender.acknowledged.total() for sender in senders)

    with fork_server(directory) as server:
        for number in rounds:
            protocol = ("smtp", "smtp", "lmtp")[number % 3]
            # With one thread, the messages of all clients are committed in groups.
            port = server.start(protocol, (8, 1)[number % 2])
            threads = [
                threading.Thread(target=sender.run, args=(port, protocol)) for sender in senders
            ]
            before = acknowledged() + chance.choice((0, 1, 10, 40))
            for thread in threads:
                thread.start()
            while acknowledged() < before:
                time.sleep(0.0005)
            time.sleep(chance.uniform(0, 0.02))
            server.kill()
            for thread in threads:
                thread.join()
    check_maildirs(directory, senders)
    return acknowledged()


def check_maildirs(directory: Path, senders: list[Sender]) -> None:
    bodies = {key: body for sender in senders for key, body in sender.bodies.items()}
    for name in NAMES:
        box = Maildir(str(directory / "mail" / name))
        found = collections.Counter[str]()
        for message in box.messages():
            body = body_of(box.read(message))
            key = body.partition(b"\r\n")[0].removeprefix(b"Subject: ").decode()
            assert body == bodies[key]
            found[key] += 1
        for sender in senders:
            for key, attempts in sender.attempts.items():
                acknowledged = sender.acknowledged[key, name]
                assert acknowledged <= found[key] <= attempts, (key, name)
                if acknowledged == attempts:
                    assert found[key] == acknowledged == 1
        box.clean(time.time() + 2 * STALE_AFTER)
        assert os.listdir(box.tmp) == []


def test_acknowledged_messages_survive_sigkill(tmp_path: Path) -> None:
    assert kill_servers(tmp_path, iter(range(40)), random.Random()) > 300


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_acknowledged_messages_survive_sigkill_soak(tmp_path: Path) -> None:
    ends = time.monotonic() + 180
    rounds = itertools.takewhile(lambda _: time.monotonic() < ends, itertools.count())
    assert kill_servers(tmp_path, rounds, random.Random()) > 2000
