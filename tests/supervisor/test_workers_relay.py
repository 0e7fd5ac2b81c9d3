"""The limits of sessions with relays hold for all workers together, also when one is killed.

Rules of this file: the program is real; it, or each user, may have one session with the relay.
"""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

from support.relay import FOREIGN, USERS, relaying
from support.waiting import PATIENCE, until
from support.workers import Workers, patched, stopped, workers

TEXT = """
[server.listener.it]
protocol = "smtp"
bind = "127.0.0.1:0"
tls.implicit = true
smtp.relay = "127.0.0.1:{port}"
smtp.relay-tls = "none"
"""

#: One session, and a short wait for it; all other waits are as long as usual.
ONE = """
import dataclasses
from fastlisten.mail.relay import relay
relay.SESSIONS = 1
acquire = relay.Relay.acquire_session
async def acquire_soon(self, user):
    settings = self.settings
    self.settings = dataclasses.replace(settings, timeout=0.5)
    try:
        await acquire(self, user)
    finally:
        self.settings = settings
relay.Relay.acquire_session = acquire_soon
"""

ONE_OF_USER = "from fastlisten.mail.relay import relay\nrelay.SESSIONS_OF_USER = 1\n"

ALICE, BOB = ("alice@example.org", "wonder"), ("bob@example.org", "builder")


@contextlib.contextmanager
def client_of(server: Workers, pid: int, user: tuple[str, str] = ALICE) -> Iterator[smtplib.SMTP]:
    """Log in at one of the workers, and begin a message."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with stopped(*(one for one in server.pids if one != pid)):
        port = server.program.port()
        client = smtplib.SMTP_SSL("127.0.0.1", port, timeout=PATIENCE, context=context)
    try:
        client.ehlo("client.example.com")
        client.login(*user)
        assert client.mail(user[0])[0] == 250
        yield client
    finally:
        client.close()


def test_workers_share_the_sessions_with_a_relay(tmp_path: Path) -> None:
    environ = patched(tmp_path, ONE)
    with (
        relaying() as relay,
        workers(tmp_path, 2, TEXT.format(port=relay.port), environ=environ, accounts=USERS) as two,
    ):
        first, second = two.pids
        with client_of(two, first) as one, client_of(two, second) as other:
            assert one.rcpt(FOREIGN)[0] == 250
            code, text = other.rcpt(FOREIGN)
            assert (code, text[:5]) == (451, b"4.3.2")
            assert relay.begun == 1
            os.kill(first, signal.SIGKILL)
            two.serve(3)
            # The dead worker's session counts no longer.
            assert other.rcpt(FOREIGN)[0] == 250
        until(lambda: relay.open == 0, "the end of the sessions")
        assert two.end() == 0


def test_workers_share_the_sessions_of_a_user(tmp_path: Path) -> None:
    environ = patched(tmp_path, ONE_OF_USER)
    with (
        relaying() as relay,
        workers(tmp_path, 2, TEXT.format(port=relay.port), environ=environ, accounts=USERS) as two,
    ):
        first, second = two.pids
        with (
            client_of(two, first) as one,
            client_of(two, second) as other,
            client_of(two, second, BOB) as bob,
        ):
            assert one.rcpt(FOREIGN)[0] == 250
            code, text = other.rcpt(FOREIGN)
            assert (code, text[:5]) == (451, b"4.3.2")
            assert bob.rcpt(FOREIGN)[0] == 250
            assert relay.begun == 2
            os.kill(first, signal.SIGKILL)
            two.serve(3)
            # The dead worker's session counts no longer.
            assert other.rcpt(FOREIGN)[0] == 250
        until(lambda: relay.open == 0, "the end of the sessions")
        assert two.end() == 0
