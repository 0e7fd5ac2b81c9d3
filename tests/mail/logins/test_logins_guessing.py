"""Guessing passwords over SMTP: parallel connections wait for each other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.relay import client_of, plain, serving
from support.smtp_harness import Served
from support.waiting import until

from fastlisten.mail.accounts import passwords
from fastlisten.mail.logins.penalties import FREE, Penalties

GUESSERS = 12


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, None) as server:
        yield server


def test_parallel_guesses_are_verified_one_by_one(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified, real = [], passwords.verify

    def verify(phc: str, secret: bytes) -> bool:
        verified.append(secret)
        return real(phc, secret)

    monkeypatch.setattr(passwords, "verify", verify)
    logins = served.handler.office.logins
    clock = [1000.0]  # moved by the test
    logins.penalties = Penalties(lambda: clock[0])
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_of(served, auth=b"")) for _ in range(GUESSERS)]
        answers: list[bytes] = []

        def guess(number: int) -> None:
            # Clients whose connection is aborted while they wait get no reply.
            with contextlib.suppress(OSError, AssertionError):
                answers.append(clients[number].say(plain("alice@example.org", f"guess {number}")))

        threads = [threading.Thread(target=guess, args=(number,)) for number in range(GUESSERS)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) == FREE)
        record = logins.penalties.table.records["127.0.0.1"]
        until(lambda: len(record.queue) == GUESSERS - FREE)
        assert len(verified) == FREE
        clock[0] += 1
        until(lambda: len(answers) > FREE)
        assert record.failures == FREE + 1
        assert len(record.queue) == GUESSERS - FREE - 1
        assert len(verified) == FREE + 1
        assert all(answer.startswith(b"535 5.7.8 ") for answer in answers)
        served.call(lambda: [protocol._transport.abort() for protocol in served.protocols])
        for thread in threads:
            thread.join()
    until(lambda: not served.protocols)
    until(lambda: not record.queue)
    assert record.inside == 0
    assert len(verified) == FREE + 1
