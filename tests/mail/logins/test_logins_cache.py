"""Cached logins and the order of verifications: guessers wait, and nobody waits for them.

Rules of this file: verifications are counted and held, never timed. A hundred addresses guess, as
in a reported case in which 22 of 23 correct logins got 454.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import cheap_hash, write_accounts
from support.waiting import eventually

from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.logins import login_cache
from fastlisten.mail.logins import logins as module
from fastlisten.mail.logins.failed_names import FORGOTTEN
from fastlisten.mail.logins.login_cache import LIFE, CacheResult, LoginCache
from fastlisten.mail.logins.logins import AT_ONCE, Logins, LoginsBusyError
from fastlisten.mail.logins.penalties import FREE, Penalties

HASH = cheap_hash("right")
USERS = [f"user{number}@example.org" for number in range(30)]
TEXT = "".join(
    f'[account."{name}"]\npassword = "{HASH}"\naliases = ["a{name}"]\n' for name in USERS
)


class Verifier:
    """Replaces verification by a comparison; counts the calls and can hold them.

    Attributes:
        begun, done: the passwords, in the order in which threads began and finished with them.
        go: verifications go on.
        turns: if set, each verification acquires it before it goes on.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[bytes] = []
        self.done: list[bytes] = []
        self.turns: threading.Semaphore | None = None
        self.go = threading.Event()
        self.go.set()
        monkeypatch.setattr(passwords, "verify", self.verify)

    def verify(self, phc: str, secret: bytes) -> bool:
        self.begun.append(secret)
        assert self.go.wait(30)
        assert self.turns is None or self.turns.acquire(timeout=30)
        self.done.append(secret)
        return secret == b"right"


@pytest.fixture
def verifier(monkeypatch: pytest.MonkeyPatch) -> Verifier:
    return Verifier(monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.toml"
    write_accounts(path, TEXT)
    return path


@pytest.fixture
def logins(file: Path) -> Iterator[Logins]:
    accounts = Accounts(file)
    accounts.reload()
    logins = Logins(accounts)
    yield logins
    logins.close()


def check(logins: Logins, name: str, password: str = "right", address: str = "192.0.2.1") -> bool:
    return asyncio.run(logins.check(name, password, address)) is not None


# --- the cache ------------------------------------------------------------------------------------


def test_successful_login_is_cached(logins: Logins, verifier: Verifier) -> None:
    for name in (USERS[0], USERS[0].upper(), f"a{USERS[0]}"):
        for address in ("192.0.2.1", "192.0.2.2", ""):
            assert check(logins, name, address=address)
    assert len(verifier.done) == 1
    assert len(logins.penalties) == 0


def test_cache_hit_needs_same_account_and_password(logins: Logins, verifier: Verifier) -> None:
    assert check(logins, USERS[0])
    wrong = [
        (USERS[0], "Right"),
        (USERS[0], "right "),
        (USERS[0], ""),
        ("nobody@example.org", "right"),
    ]
    for number, (name, password) in enumerate(wrong):
        assert not check(logins, name, password, f"198.51.100.{number}")
    assert check(logins, USERS[1])  # another account with the same password and hash
    assert len(verifier.done) == 1 + len(wrong) + 1


@pytest.mark.parametrize(
    "text",
    [
        TEXT.partition('[account."user1@')[2].join(('[account."user1@', "")),
        TEXT.replace(HASH, cheap_hash("other"), 1),
        TEXT.replace(f'password = "{HASH}"\n', "", 1),
    ],
    ids=["removed", "another hash", "none"],
)
def test_account_change_invalidates_the_cache(
    logins: Logins, file: Path, verifier: Verifier, text: str
) -> None:
    assert check(logins, USERS[0])
    write_accounts(file, text)
    check(logins, USERS[0])
    assert len(verifier.done) == 2


def test_cache_entry_expires_after_an_hour(logins: Logins, verifier: Verifier) -> None:
    clock = [0.0]
    logins._cache = LoginCache(lambda: clock[0])
    for now, verified in ((0, 1), (LIFE - 1, 1), (LIFE, 2), (2 * LIFE - 1, 2), (9 * LIFE, 3)):
        clock[0] = now
        assert check(logins, USERS[0])
        assert len(verifier.done) == verified


def test_cache_is_bounded_and_holds_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_cache, "SIZE", 3)
    cache = LoginCache()
    keys = [cache.key(str(number), b"secret", HASH) for number in range(5)]
    for key in keys:
        cache.add(key)
    assert [cache.look_up(key) for key in keys] == [CacheResult.UNKNOWN] * 2 + [
        CacheResult.VALID
    ] * 3
    assert LoginCache().key("0", b"secret", HASH) != keys[0]
    assert b"secret" not in b"".join(cache._verified)
    # Parts are delimited: the same octets split elsewhere have another key.
    assert cache.key("a", b"bc", HASH) != cache.key("ab", b"c", HASH)


def test_caches_with_one_key_tell_each_other_what_they_know() -> None:
    clock, told = [100.0], list[bytes]()
    first = LoginCache(lambda: clock[0], b"k" * 32, told.append)
    second = LoginCache(lambda: clock[0], b"k" * 32, told.append)
    first.add(first.key("a", b"x", HASH))
    clock[0] = 200.0
    for login in told:
        second.restore(login, 100.0)
    assert len(told) == 1
    login = second.key("a", b"x", HASH)
    assert second.look_up(login) is CacheResult.VALID
    clock[0] = 100.0 + LIFE
    assert second.look_up(login) is CacheResult.EXPIRED


def test_cached_login_still_waits_for_the_penalty(logins: Logins, verifier: Verifier) -> None:
    """Otherwise a correct guess would be answered at once in spite of the penalty."""
    clock = [1000.0]
    logins.penalties = Penalties(lambda: clock[0])
    assert check(logins, USERS[0])
    for number in range(FREE):
        assert not check(logins, USERS[0], str(number))

    async def impatient() -> None:
        async with asyncio.timeout(0.05):
            await logins.check(USERS[0], "right", "192.0.2.1")

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    clock[0] += 1
    assert check(logins, USERS[0])
    assert len(verifier.done) == 1 + FREE


def test_cache_look_up_costs_the_same_for_every_name(
    logins: Logins, monkeypatch: pytest.MonkeyPatch, verifier: Verifier
) -> None:
    """One digest, whose input differs in length only by the name."""
    digested = []
    real = LoginCache.key

    def login(self: LoginCache, account: str, password: bytes, phc: str) -> bytes:
        digested.append(len(phc))
        return real(self, account, password, phc)

    monkeypatch.setattr(LoginCache, "key", login)
    for number, name in enumerate((USERS[0], "nobody@example.org", "x", "")):
        assert not check(logins, name, "wrong", f"192.0.2.{number}")
        assert len(digested) == 1
        digested.clear()
    assert len(module._NO_HASH) == len(passwords.hash_password("x"))


# --- the order of verifications -------------------------------------------------------------------


@pytest.mark.parametrize("names", ["one", "many", "unknown"])
def test_users_log_in_while_a_hundred_addresses_guess(
    logins: Logins, verifier: Verifier, names: str
) -> None:
    """They guess as fast as they can, each on several connections."""
    heard: dict[str, list[str]] = {"guess": [], "user": []}

    def target(number: int) -> str:
        return {"one": USERS[0], "many": USERS[number % 30], "unknown": f"x{number}@x.example"}[
            names
        ]

    async def attempt(kind: str, name: str, password: str, address: str) -> None:
        try:
            account = await logins.check(name, password, address)
        except LoginsBusyError:
            heard[kind].append("busy")
        else:
            heard[kind].append("in" if account else "wrong")

    async def main() -> None:
        verifier.go.clear()
        tasks = []
        for turn in range(FREE):  # connections of each
            for number in range(100):
                address = f"198.51.100.{number}"
                work = attempt("guess", target(number), f"{number} {turn}", address)
                tasks.append(asyncio.create_task(work))
        await asyncio.sleep(0)
        for number in range(23):
            address = f"203.0.113.{number}"
            tasks.append(asyncio.create_task(attempt("user", USERS[number + 1], "right", address)))
        await asyncio.sleep(0)
        assert len(logins._queue) >= module.WAITING - AT_ONCE
        verifier.go.set()
        await asyncio.wait(tasks)
        # Those whose guesses were verified wait now for their penalty, outside the queue.
        counted = [record.failures for record in logins.penalties.table.records.values()]
        assert sum(counted) == heard["guess"].count("wrong")
        late = [key for key, it in logins.penalties.table.records.items() if it.failures == FREE]
        assert len(late) > 20
        waiting = [
            asyncio.create_task(attempt("guess", USERS[0], "more", address)) for address in late
        ]
        await asyncio.sleep(0)
        assert not any(record.inside for record in logins.penalties.table.records.values())
        for number in range(23):  # cached logins, from other addresses
            await attempt("user", USERS[number + 1], "right", f"203.0.113.{100 + number}")
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    clock = [1000.0]  # does not move
    logins.penalties = Penalties(lambda: clock[0])
    asyncio.run(main())
    assert heard["user"] == ["in"] * 46
    assert "in" not in heard["guess"]
    # No guess that was answered with "busy" was verified.
    guesses = len(verifier.done) - 23
    assert guesses == heard["guess"].count("wrong")
    assert guesses + heard["guess"].count("busy") == FREE * 100
    assert guesses <= AT_ONCE + module.WAITING


def test_guessing_addresses_are_verified_last(logins: Logins, verifier: Verifier) -> None:
    """Even if the queue is not full."""

    async def main() -> None:
        for number in range(10):
            assert await logins.check(USERS[0], "wrong", f"198.51.100.{number}") is None
        verifier.go.clear()
        verifier.begun.clear()
        verifier.turns = threading.Semaphore(0)
        tasks = []
        for number in range(10):
            for name in ("nobody@example.org", USERS[5]):
                check = logins.check(name, "wrong", f"198.51.100.{number}")
                tasks.append(asyncio.create_task(check))
        await asyncio.sleep(0)
        for number in range(3):
            check = logins.check(USERS[number], "right", f"203.0.113.{number}")
            tasks.append(asyncio.create_task(check))
        await asyncio.sleep(0)
        verifier.go.set()
        # One at a time: two threads would begin in any order.
        verifier.turns.release()
        await eventually(lambda: len(verifier.begun) == AT_ONCE + 1)
        verifier.turns.release()
        await eventually(lambda: len(verifier.begun) == AT_ONCE + 2)
        verifier.turns.release(len(tasks))
        await asyncio.wait(tasks)

    clock = [1000.0]
    logins.penalties = Penalties(lambda: clock[0])
    asyncio.run(main())
    # Except for work that had started, and for the user whose name has failed ten times.
    assert verifier.begun[: AT_ONCE + 2].count(b"right") == 2
    assert verifier.begun.count(b"right") == 3


def test_expired_cache_entry_ranks_first(logins: Logins, verifier: Verifier) -> None:
    clock = [0.0]
    logins._cache = LoginCache(lambda: clock[0])
    logins.penalties = Penalties(lambda: clock[0])
    assert check(logins, USERS[0])
    clock[0] = LIFE
    for number in range(3):
        check(logins, USERS[0], "wrong", f"198.51.100.{number}")
    known, account = asyncio.run(logins._look_up(USERS[0], b"right"))
    assert known is CacheResult.EXPIRED
    assert account is not None
    name = module._name_digest(USERS[0].upper(), logins.penalties.key)
    entered = asyncio.run(logins.penalties.enter("", name))
    assert logins._rank(known, entered) == -1
    assert logins._rank(CacheResult.UNKNOWN, entered) == 3
    clock[0] += FORGOTTEN
    assert logins._rank(CacheResult.UNKNOWN, entered) == 0


def test_failures_count_alike_for_unknown_names(logins: Logins, verifier: Verifier) -> None:
    """A success does not reset the count: that would reveal that the name exists."""
    for number, name in enumerate((USERS[0], "nobody@example.org")):
        for attempt in range(4):
            check(logins, name, "wrong", f"198.51.100.{10 * number + attempt}")
    assert check(logins, USERS[0])
    assert [count for count, _ in logins.penalties.table.names.records.values()] == [4, 4]
