"""Passwords are verified by all workers together at a bounded cost, also if one is killed.

Rules of this file: the program is real; verifications are counted by what they write into a file.
Clients come from addresses of their own, each of which may try to log in a few times at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
from pathlib import Path

from support.accounts import cheap_hash
from support.figures import show
from support.relay import plain
from support.smtp_client import SmtpClient
from support.waiting import PATIENCE, until
from support.workers import Workers, patched, stopped, workers

from fastlisten.mail.logins.logins import AT_ONCE, shared_verifications

TEXT = """
[server.listener.it]
protocol = "smtp"
bind = "127.0.0.1:0"
tls.implicit = true
"""

#: Clients of each worker.
CLIENTS = 8

#: As many passwords as clients: what has been verified once is remembered.
USERS = "".join(
    f'[account."user{number}@example.org"]\npassword = "{cheap_hash("wonder")}"\n'
    for number in range(2 * CLIENTS)
)

#: Verifications take a while and say when they begin and end, and wait while a file exists. Nobody
#: does without a slot.
VERIFICATIONS = """
import os
import time
from pathlib import Path

from fastlisten.mail.accounts import passwords
from fastlisten.mail.logins import verification_queue

verification_queue.PATIENCE = 3600.0
told = Path(os.environ["TOLD"])
verify = passwords.verify

def tell(word):
    with (told / "verified").open("a") as file:
        file.write(f"{word} {os.getpid()}\\n")

def told_verify(phc, secret):
    tell("begin")
    time.sleep(0.05)
    while (told / "hold").exists():
        time.sleep(0.01)
    tell("end")
    return verify(phc, secret)

passwords.verify = told_verify
"""


def told(directory: Path) -> list[tuple[str, int]]:
    """Return what verifications have said, in order."""
    file = directory / "verified"
    words = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [(word, int(pid)) for word, pid in words]


def client_of(server: Workers, pid: int, number: int, stack: contextlib.ExitStack) -> SmtpClient:
    """Return a client of a worker that has sent a user's password."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = ("127.0.0.1", server.program.port())
    with stopped(*(one for one in server.pids if one != pid)):
        sock = socket.create_connection(address, PATIENCE, (f"127.0.1.{number}", 0))
        client = SmtpClient(context.wrap_socket(sock))
        stack.callback(client.close)
        assert client.answer()[0] == 220
    assert client.ask("EHLO client.example.com")[0] == 250
    return client


def test_workers_verify_as_many_passwords_at_a_time_as_one(tmp_path: Path) -> None:
    environ = patched(tmp_path, VERIFICATIONS)
    with (
        workers(tmp_path, 2, TEXT, environ=environ, accounts=USERS) as two,
        contextlib.ExitStack() as stack,
    ):
        clients = [
            client_of(two, two.pids[number % 2], number, stack) for number in range(2 * CLIENTS)
        ]
        for number, client in enumerate(clients):
            client.send(plain(f"user{number}@example.org", "wonder").strip())
        assert [client.answer()[0] for client in clients] == [235] * len(clients)
        assert two.end() == 0
    running = most = 0
    for word, _ in told(tmp_path):
        running += 1 if word == "begin" else -1
        most = max(most, running)
    assert most == AT_ONCE == shared_verifications(2)
    assert len({pid for _, pid in told(tmp_path)}) == 2
    show(f"{len(clients)} logins at two workers, at most {most} verifications at a time")


def test_killed_worker_gives_its_verifications_back(tmp_path: Path) -> None:
    environ = patched(tmp_path, VERIFICATIONS)
    with (
        workers(tmp_path, 2, TEXT, environ=environ, accounts=USERS) as two,
        contextlib.ExitStack() as stack,
    ):
        first, second = two.pids
        (tmp_path / "hold").touch()
        for number in range(AT_ONCE):
            client = client_of(two, first, number, stack)
            client.send(plain(f"user{number}@example.org", "wonder").strip())
        until(lambda: told(tmp_path) == [("begin", first)] * AT_ONCE, "two verifications")
        waits = client_of(two, second, AT_ONCE, stack)
        waits.send(plain(f"user{AT_ONCE}@example.org", "wonder").strip())
        os.kill(first, signal.SIGKILL)
        two.serve(3)
        (tmp_path / "hold").unlink()
        assert waits.answer()[0] == 235
        assert told(tmp_path)[AT_ONCE:] == [("begin", second), ("end", second)]
        assert two.end() == 0


def test_more_workers_verify_more() -> None:
    assert [shared_verifications(count) for count in (1, 2, 4, 5, 6, 53)] == [2, 2, 2, 2, 3, 26]
