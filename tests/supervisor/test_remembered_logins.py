"""Logins that workers have verified: the others are told, new ones get all, mischief does no harm.

Rules of this file: no processes; messages go through JSON, as in a channel. The workers' caches are
real.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from fastlisten.mail.logins.login_cache import LIFE, CacheResult
from fastlisten.runtime.supervisor import remembered_logins
from fastlisten.runtime.supervisor.channel import BadMessageError, ChannelFullError
from fastlisten.runtime.supervisor.remembered_logins import (
    LOGIN_VERIFIED,
    LOGINS_KNOWN,
    LOGINS_WANTED,
    RememberedLogins,
)
from fastlisten.runtime.supervisor.remote_logins import RemoteLogins

KEY = b"k" * 32
PHC = "$argon2id$..."


class World:
    """The supervisor and its workers.

    Attributes:
        now: the clock.
        logins: under test.
        workers: under test too.
        full: workers whose channel takes no messages.
        told: how many messages each worker has got.
    """

    def __init__(self, workers: int = 0) -> None:
        self.now = 1000.0
        self.logins = RememberedLogins(self._send, lambda: self.now)
        self.workers: list[RemoteLogins] = []
        self.told: list[int] = []
        self.full: set[int] = set()
        for _ in range(workers):
            self.start()

    def start(self) -> RemoteLogins:
        key = len(self.workers)

        def send(kind: str, body: Mapping[str, Any]) -> None:
            assert self.logins.receive(key, kind, json.loads(json.dumps(body)))

        worker = RemoteLogins(send, KEY)
        worker.cache._clock = lambda: self.now
        self.workers.append(worker)
        self.told.append(0)
        worker.begin()
        return worker

    def _send(self, key: int, kind: str, body: Any) -> None:
        if key in self.full:
            raise ChannelFullError("full")
        assert kind == LOGINS_KNOWN
        self.told[key] += 1
        self.workers[key].receive(json.loads(json.dumps(body)))

    def verify(self, key: int, password: bytes) -> None:
        """Let a worker verify a password."""
        cache = self.workers[key].cache
        cache.add(cache.key("alice", password, PHC))

    def known(self, password: bytes, phc: str = PHC) -> list[CacheResult]:
        """Return what each worker knows of a password."""
        return [one.cache.look_up(one.cache.key("alice", password, phc)) for one in self.workers]


def test_all_workers_remember_what_one_has_verified() -> None:
    world = World(3)
    world.verify(1, b"wonder")
    assert world.known(b"wonder") == [CacheResult.VALID] * 3
    assert world.known(b"wrong") == [CacheResult.UNKNOWN] * 3
    # Another hash in the accounts file: the password has changed.
    assert world.known(b"wonder", "$argon2id$,,,") == [CacheResult.UNKNOWN] * 3
    assert world.told == [1, 0, 1]
    world.now += LIFE
    assert world.known(b"wonder") == [CacheResult.EXPIRED] * 3


def test_new_worker_gets_all_with_their_times() -> None:
    world = World(1)
    for number in range(5):
        world.verify(0, b"%d" % number)
        world.now += 100
    world.start()
    assert world.told == [0, 1]
    world.now = 1000 + LIFE + 50
    expected = [CacheResult.EXPIRED] + [CacheResult.VALID] * 4
    assert [world.known(b"%d" % number)[1] for number in range(5)] == expected


def test_worker_that_does_not_read_misses_it() -> None:
    world = World(3)
    world.full.add(2)
    world.verify(0, b"wonder")
    assert world.known(b"wonder") == [CacheResult.VALID, CacheResult.VALID, CacheResult.UNKNOWN]


def test_worker_that_has_ended_is_told_no_more() -> None:
    world = World(2)
    world.verify(0, b"a")
    world.logins.remove(0)
    world.logins.remove(7)
    world.verify(1, b"b")
    assert world.told == [0, 1]
    world.start()
    assert world.known(b"a")[2] is CacheResult.VALID


def test_upgrade_keeps_all() -> None:
    world = World(2)
    world.verify(0, b"a")
    state = json.loads(json.dumps(world.logins.state()))
    former = world.logins
    world.logins = RememberedLogins(former._send, former._clock)
    world.logins.take_over(state)
    assert world.logins.state() == former.state()
    world.verify(1, b"b")
    assert world.known(b"b") == [CacheResult.VALID] * 2
    world.start()
    assert world.known(b"a") == [CacheResult.VALID] * 3


@pytest.mark.parametrize(
    "body",
    [{}, {"login": None}, {"login": ["0" * 64]}, {"login": "0" * 63}, {"login": "g" * 64}],
    ids=str,
)
def test_bad_messages(body: dict[str, Any]) -> None:
    world = World(2)
    with pytest.raises(BadMessageError):
        world.logins.receive(0, LOGIN_VERIFIED, body)
    assert len(world.logins) == 0
    assert world.told == [0, 0]


def test_other_messages_are_left_alone() -> None:
    assert not World().logins.receive(0, "serving", {})


def test_worker_gets_all_logins_once() -> None:
    world = World(1)
    world.verify(0, b"secret")
    with pytest.raises(BadMessageError):
        world.logins.receive(0, LOGINS_WANTED, {})
    # Its successor is another process.
    world.start()
    assert world.told == [0, 1]


def test_worker_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered_logins, "SIZE", 10)
    world = World(1)
    for number in range(100):
        world.verify(0, b"%d" % number)
    assert len(world.logins) == 10
    world.start()
    assert world.known(b"99")[1] is CacheResult.VALID
    assert world.known(b"89")[1] is CacheResult.UNKNOWN
