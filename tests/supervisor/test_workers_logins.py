"""Logins at several workers: penalties and verified logins hold for all of them.

Rules of this file: the program is real. Nobody waits for a penalty: where an attempt would have to,
no more may wait (WAITING is 0), and the reply is 454.
"""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

from support.accounts import cheap_hash, write_accounts
from support.figures import show
from support.relay import USERS, plain
from support.smtp_client import SmtpClient, connected
from support.waiting import PATIENCE, until
from support.workers import Workers, patched, stopped, workers

TEXT = """
[server.listener.it]
protocol = "smtp"
bind = "127.0.0.1:0"
tls.implicit = true
"""

#: A penalty lasts until the end of the test, and nobody gives up waiting for the supervisor before.
LOCK_OUT = f"""
from fastlisten.mail.logins import penalties
from fastlisten.runtime.supervisor import remote_penalties

remote_penalties.ANSWER_SECONDS = {PATIENCE}

pause = penalties._Record.pause
penalties._Record.pause = lambda record, now: pause(record, now) and 3600.0
penalties.WAITING = 0
"""

#: The supervisor is given up soon.
IMPATIENT = (
    LOCK_OUT
    + """
remote_penalties.ANSWER_SECONDS = 0.1
remote_penalties.SILENCE = 3600.0
"""
)

#: A file has the process id for each verification; while there is a file `hold` none ends.
VERIFICATIONS = """
import os
import time
from pathlib import Path

from fastlisten.mail.accounts import passwords

told = Path(os.environ["TOLD"])
verify = passwords.verify

def told_verify(phc, secret):
    with (told / "verified").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    while (told / "hold").exists():
        time.sleep(0.01)
    return verify(phc, secret)

passwords.verify = told_verify
"""

#: A file has a line for each message to a worker about verified passwords.
TOLD = """
from fastlisten.runtime.supervisor import channel

send = channel.Channel.send

def told_send(self, kind, body, fds=()):
    send(self, kind, body, fds)
    if kind == "logins-known":
        with (told / "known").open("a") as file:
            file.write("known\\n")

channel.Channel.send = told_send
"""

RIGHT, WRONG = plain("alice@example.org", "wonder"), plain("alice@example.org", "wrong")


@contextlib.contextmanager
def client_of(server: Workers, pid: int) -> Iterator[SmtpClient]:
    """Connect to one of the workers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:
        with stopped(*(one for one in server.pids if one != pid)):
            client = stack.enter_context(connected(server.program.port(), tls=context))
        assert client.ask("EHLO client.example.com")[0] == 250
        yield client


def login(server: Workers, pid: int, auth: bytes) -> bytes:
    """Log in at one of the workers; return the code of the reply."""
    with client_of(server, pid) as client:
        return client.say(auth)[:3]


def verified(directory: Path) -> list[int]:
    file = directory / "verified"
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def told(directory: Path) -> int:
    """Return how many messages about verified passwords workers have got."""
    file = directory / "known"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_failures_in_one_worker_count_in_the_other(tmp_path: Path) -> None:
    environ = patched(tmp_path, LOCK_OUT)
    with workers(tmp_path, 2, TEXT, environ=environ, accounts=USERS) as two:
        first, second = two.pids
        assert [login(two, pid, WRONG) for pid in (first, second, first)] == [b"535"] * 3
        for pid in (first, second):
            assert login(two, pid, WRONG) == b"454"
            assert login(two, pid, RIGHT) == b"454"
        # A worker that replaces one of them does not begin afresh.
        os.kill(first, signal.SIGKILL)
        two.serve(3)
        (new,) = set(two.pids) - {first, second}
        assert login(two, new, RIGHT) == b"454"
        assert two.end() == 0


def test_logins_while_the_supervisor_is_stopped(tmp_path: Path) -> None:
    environ = patched(tmp_path, IMPATIENT)
    with workers(tmp_path, 2, TEXT, environ=environ, accounts=USERS) as two:
        first, second = two.pids
        with client_of(two, first) as one, client_of(two, second) as other, stopped(two.pid):
            assert one.say(RIGHT)[:3] == b"235"
            assert other.say(WRONG)[:3] == b"535"
            # Each worker has a table of its own now.
            for expected in (b"535", b"535", b"454"):
                assert login(two, second, WRONG) == expected
            assert login(two, first, RIGHT) == b"235"
        assert two.end() == 0


def test_worker_killed_within_an_attempt(tmp_path: Path) -> None:
    environ = patched(tmp_path, LOCK_OUT + VERIFICATIONS)
    with workers(tmp_path, 2, TEXT, environ=environ, accounts=USERS) as two:
        first, second = two.pids
        (tmp_path / "hold").touch()
        with client_of(two, first) as one:
            one.send(RIGHT.strip())
            until(lambda: verified(tmp_path) == [first], "a verification")
            os.kill(first, signal.SIGKILL)
            two.serve(3)
        (tmp_path / "hold").unlink()
        # With the one that nobody knows the result of these are three failures.
        assert [login(two, second, WRONG) for _ in range(3)] == [b"535", b"535", b"454"]
        assert two.end() == 0


def test_password_is_verified_once_for_all_workers(tmp_path: Path) -> None:
    environ = patched(tmp_path, LOCK_OUT + VERIFICATIONS + TOLD)
    with workers(tmp_path, 2, TEXT, environ=environ, accounts=USERS) as two:
        first, second = two.pids
        assert login(two, first, RIGHT) == b"235"
        until(lambda: told(tmp_path) == 1, "the other worker to be told")
        logins = [login(two, pid, RIGHT) for pid in (second, first) * 3]
        # A worker that replaces one of them does not begin afresh.
        os.kill(first, signal.SIGKILL)
        two.serve(3)
        until(lambda: told(tmp_path) == 2, "the new worker to be told")
        (new,) = set(two.pids) - {first, second}
        logins += [login(two, pid, RIGHT) for pid in (new, second)]
        assert logins == [b"235"] * 8
        assert verified(tmp_path) == [first]
        # A new password is another login, for all of them.
        changed = USERS.replace(USERS.split('"')[5], cheap_hash("another"))
        write_accounts(tmp_path / "data" / "accounts.toml", changed)
        assert [login(two, pid, RIGHT) for pid in (new, second)] == [b"535"] * 2
        another = plain("alice@example.org", "another")
        assert login(two, new, another) == b"235"
        until(lambda: told(tmp_path) == 3, "the other worker to be told")
        assert login(two, second, another) == b"235"
        assert verified(tmp_path) == [first, new, second, new]
        assert two.end() == 0
    show(f"{1 + len(logins)} logins with 2 workers and a new one, 1 verification")
