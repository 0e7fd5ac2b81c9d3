"""Sessions with relays are counted together with those of other workers.

Rules of this file: the other worker is another member of the arena.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.relay import FOREIGN, client_of, rcpt, relaying, session, set_relay_timeout
from support.waiting import until

from fastlisten._arena import Arena, Places
from fastlisten.mail.relay.relay import share_sessions

MAIL = b"MAIL FROM:<alice@example.org>"


@pytest.fixture
def other() -> Iterator[Places]:
    """Share two sessions with another worker; yield what it takes them with."""
    arena = Arena(1, 2)
    own, other = arena.places(0, arena.join()), arena.places(0, arena.join())
    own.limit = 2
    share_sessions(own)
    yield other
    share_sessions(None)
    assert own.held == 0


def test_session_waits_for_one_of_another_worker(tmp_path: Path, other: Places) -> None:
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        assert other.take()
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        assert other.count == 2
        with client_of(served) as second:
            second.say(MAIL)
            set_relay_timeout(served, 0.1)
            assert second.say(rcpt(FOREIGN)).startswith(b"451 4.3.2 ")
            set_relay_timeout(served, 20.0)
            other.give()
            assert second.say(rcpt(FOREIGN)).startswith(b"250 ")
            assert other.count == 2
            assert not other.take()
        until(lambda: other.count == 1, "the end of a session")
    assert relay.begun == 2
