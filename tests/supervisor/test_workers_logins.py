"""Logins at several workers: penalties hold for all of them, and new passwords do at once.

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


def test_changed_password_is_forgotten_by_all_workers(tmp_path: Path) -> None:
    environ = patched(tmp_path, LOCK_OUT + VERIFICATIONS)
    with workers(tmp_path, 2, TEXT, environ=environ, accounts=USERS) as two:
        pids = two.pids
        assert [login(two, pid, RIGHT) for pid in pids * 2] == [b"235"] * 4
        assert sorted(verified(tmp_path)) == sorted(pids)  # each remembers it
        changed = USERS.replace(USERS.split('"')[5], cheap_hash("another"))
        write_accounts(tmp_path / "data" / "accounts.toml", changed)
        assert [login(two, pid, RIGHT) for pid in pids] == [b"535"] * 2
        another = plain("alice@example.org", "another")
        assert [login(two, pid, another) for pid in pids] == [b"235"] * 2
        assert two.end() == 0
