"""Many clients and an unreliable relay: messages that got a 250 are stored and relayed once.

At the end no session, connection or file is left.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from pathlib import Path

import pytest
from support.relay import FOREIGN, client_of, rcpt, relaying, serving
from support.smtp_harness import MAIL
from support.waiting import until

LOCAL = "alice@example.org"

#: The percentage of failures at each command of the relay.
FAILURES = {"RCPT": 8, "DATA": 6, ".": 10, "MAIL": 4, "EHLO": 3, "220": 3}


class RandomFailures(dict[str, "str | None"]):
    """Replies of the relay: refusals, closed connections, or (mostly) the usual ones."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.lock = threading.Lock()

    def draw(self, command: str) -> None:
        with self.lock:
            self.clear()
            for key, share in FAILURES.items():
                if command.upper().startswith(key) and self.random.randrange(100) < share:
                    self[key] = self.random.choice((None, "450 4.2.0 later", "550 5.1.1 never"))


def crowd(tmp_path: Path, seed: int, clients: int, messages: int) -> None:
    failing = RandomFailures(seed)
    confirmed: list[tuple[int, bool]] = []
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            source = random.Random(seed * 1000 + number)
            for index in range(messages):
                with contextlib.suppress(ConnectionError, AssertionError), client_of(served) as at:
                    mark = number * 1000 + index
                    both = source.random() < 0.5
                    if source.random() < 0.2:
                        at.sock.sendall(MAIL + rcpt(FOREIGN))
                        continue  # and disconnect
                    at.say(MAIL)
                    if both:
                        at.say(rcpt(LOCAL))
                    if not at.say(rcpt(FOREIGN)).startswith(b"250"):
                        continue
                    if source.random() < 0.1:
                        at.say(b"RSET")
                        continue
                    at.say(b"DATA")
                    lines = source.randrange(20_000) if source.random() < 0.2 else 1
                    text = b"Mark: %d.\r\n\r\n" % mark + b"0123456789abcdef\r\n" * lines + b".\r\n"
                    if source.random() < 0.1:
                        at.sock.sendall(text)
                        continue  # and disconnect
                    if at.say(text).startswith(b"250"):
                        confirmed.append((mark, both))
        except BaseException as error:
            failures.append(error)

    with relaying() as relay, serving(tmp_path, relay) as served:
        relay.answers = failing
        relay.pause = failing.draw
        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        until(lambda: served.protocols == [])
        of = served.handler.relay
        assert of is not None
        until(lambda: of.sessions == 0)
        until(relay.at_rest)
        until(lambda: served.left_over() == [])
        until(lambda: not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()])
        there = Counter(content.partition(b"Mark: ")[2][:6] for _, _, content in relay.messages)
        here = Counter(stored.partition(b"Mark: ")[2][:6] for stored in served.delivered())
        for mark, both in confirmed:
            key = (b"%d.\r\n\r\n" % mark)[:6]
            assert there[key] == 1
            assert here[key] == both
        # No message is only here: the relay comes first.
        assert all(there[key] for key in here)
        assert len(confirmed) > clients * messages / 4


@pytest.mark.parametrize("seed", [1, 2])
def test_many_clients_with_unreliable_relay(tmp_path: Path, seed: int) -> None:
    crowd(tmp_path, seed, clients=8, messages=12)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(10, 16))
def test_many_clients_with_unreliable_relay_soak(tmp_path: Path, seed: int) -> None:
    crowd(tmp_path, seed, clients=20, messages=100)
