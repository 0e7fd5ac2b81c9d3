"""Logins: right and wrong ones, equal work for all of them, and what bounds it."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import Held, cheap_hash, write_accounts

from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.logins import logins as module
from fastlisten.mail.logins.logins import AT_ONCE, Logins, LoginsBusyError

HASH = cheap_hash("sécret")

TEXT = f"""
[account."alice@example.org"]
password = "{HASH}"
aliases = ["Al@example.org", "@example.com"]

[account."nobody@example.org"]
[account."Bob@example.org"]
password = "{cheap_hash("bob")}"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.toml"
    write_accounts(path, TEXT)
    return path


def logins_of(file: Path) -> Logins:
    """Return logins that need not read the file first."""
    accounts = Accounts(file)
    accounts.reload()
    return Logins(accounts)


@pytest.fixture
def logins(file: Path) -> Iterator[Logins]:
    those = logins_of(file)
    yield those
    those.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("logins")]


def check(logins: Logins, name: str, password: str, address: str = "") -> str | None:
    account = asyncio.run(logins.check(name, password, address))
    return account.name if account else None


@pytest.mark.parametrize(
    ("name", "password", "account"),
    [
        ("alice@example.org", "sécret", "alice@example.org"),
        ("alice@example.org", "se\u0301cret", "alice@example.org"),  # decomposed
        ("ALICE@Example.ORG", "sécret", "alice@example.org"),
        ("al@example.org", "sécret", "alice@example.org"),
        ("bob@example.org", "bob", "Bob@example.org"),
        ("alice@example.org", "secret", None),
        ("alice@example.org", "Sécret", None),
        ("alice@example.org", "", None),
        ("alice@example.org", "sécret\0", None),
        ("alice@example.org", HASH, None),
        ("alice@example.org", "bob", None),
        ("nobody@example.org", "", None),
        ("nobody@example.org", "sécret", None),
        ("other@example.com", "sécret", None),  # a catch-all is no name
        ("@example.com", "sécret", None),
        ("postmaster@example.org", "sécret", None),
        ("postmaster", "sécret", None),
        ("alice", "sécret", None),
        ("", "", None),
    ],
)
def test_who_may_log_in(logins: Logins, name: str, password: str, account: str | None) -> None:
    assert check(logins, name, password) == account


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice@example.org", "sécret"),
        ("alice@example.org", "wrong"),
        ("alice@example.org", ""),
        ("alice@example.org", "x" * 1025),
        ("alice@example.org", "x" * 100_000),
        ("alice@example.org", "\ud800"),
        ("unknown@example.org", "sécret"),
        ("unknown@example.org", "x" * 1025),
        ("unknown@unknown.example", "x"),
        ("nobody@example.org", "x"),
        ("other@example.com", "x"),
        ("no address", "x"),
        ("", ""),
        ("\ud800@example.org", "x"),
        ("al\u0000ice@example.org", "x"),
        ("alice\u202e@example.org", "x"),
        ("x" * 100_000 + "@example.org", "x"),
        ("a@xn--" + "x" * 60, "x"),
    ],
)
def test_every_attempt_costs_one_verification_of_the_same_parameters(
    logins: Logins, monkeypatch: pytest.MonkeyPatch, name: str, password: str
) -> None:
    done: list[passwords.Argon2Parameters] = []
    real = passwords.verify

    def verify(phc: str, secret: bytes) -> bool:
        done.append(passwords.read_parameters(phc))
        assert len(secret) <= passwords.MAX_PASSWORD
        return real(phc, secret)

    monkeypatch.setattr(passwords, "verify", verify)
    check(logins, name, password)
    assert done == [passwords.read_parameters(HASH)]


def test_a_name_costs_the_same_however_it_is_spelled(
    file: Path, logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of hashes of two kinds, so that names without an account have either."""
    hashes = (cheap_hash("a", memory=8), cheap_hash("b", memory=16))
    write_accounts(
        file,
        "".join(
            f'[account."{name}@bücher.example"]\npassword = "{phc}"\n'
            for name, phc in zip(("alice", "bob"), hashes, strict=True)
        ),
    )
    costs: list[int] = []

    def verify(phc: str, secret: bytes) -> bool:
        costs.append(passwords.read_parameters(phc).memory)
        return False

    monkeypatch.setattr(passwords, "verify", verify)
    of_all = set()
    for name in ("alice", "bob", *(f"nobody{number}" for number in range(24))):
        costs.clear()
        for local in (name, name.upper(), f'"{name}"', f'"\\{name}"', f'"{name[0]}\\{name[1:]}"'):
            for domain in ("bücher.example", "xn--bcher-kva.example", "BÜCHER.example"):
                assert check(logins, f"{local}@{domain}", "wrong") is None
        assert len(costs) == 15
        assert len(set(costs)) == 1
        of_all.add(costs[0])
    assert of_all == {8, 16}


def test_a_decoy_that_matches_lets_nobody_in(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "verify", lambda phc, secret: True)
    for name in ("unknown@example.org", "nobody@example.org", "other@example.com", ""):
        assert check(logins, name, "x") is None
    assert check(logins, "alice@example.org", "x" * 2000) is None
    assert check(logins, "alice@example.org", "") is None
    assert check(logins, "alice@example.org", "x") == "alice@example.org"


def test_changes_of_the_file_hold_at_once(logins: Logins, file: Path) -> None:
    assert check(logins, "alice@example.org", "sécret")
    write_accounts(file, TEXT.replace(HASH, cheap_hash("another", 16)))
    assert check(logins, "alice@example.org", "sécret") is None
    assert check(logins, "alice@example.org", "another")
    write_accounts(file, "# nobody\n")
    assert check(logins, "alice@example.org", "another") is None


def test_without_accounts_nobody_is_wrong(tmp_path: Path) -> None:
    those = Logins(Accounts(tmp_path / "none.toml"))
    with pytest.raises(LoginsBusyError):
        check(those, "alice@example.org", "sécret")
    those.close()


def test_without_argon2_nobody_is_wrong(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    those = Logins(Accounts(file))
    assert not those.available
    with pytest.raises(LoginsBusyError, match="argon2-cffi"):
        check(those, "alice@example.org", "sécret")
    those.close()


def test_available(logins: Logins) -> None:
    assert logins.available


# --- bounds ---------------------------------------------------------------------------------------


def test_two_at_a_time_and_a_queue_that_ends(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)

    async def main() -> None:
        attempts = [
            asyncio.create_task(logins.check("alice@example.org", "right", ""))
            for _ in range(AT_ONCE + module.WAITING)
        ]
        await asyncio.sleep(0)
        for _ in range(3):
            with pytest.raises(LoginsBusyError):
                await logins.check("alice@example.org", "right", "")
        while held.now < AT_ONCE:
            await asyncio.sleep(0.001)
        held.go.set()
        assert all(await asyncio.gather(*attempts))
        assert await logins.check("alice@example.org", "right", "")

    asyncio.run(main())
    assert held.most == AT_ONCE
    # The last one was known.
    assert held.all == AT_ONCE + module.WAITING


def test_one_address_cannot_fill_the_queue(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)

    async def main() -> None:
        those = [
            asyncio.create_task(logins.check("alice@example.org", str(number), "192.0.2.1"))
            for number in range(30)
        ]
        await asyncio.sleep(0)
        assert logins.penalties._records["192.0.2.1"].inside == 3
        for one in those[3:]:
            one.cancel()
        held.go.set()
        assert await asyncio.gather(*those[:3]) == [None] * 3

    asyncio.run(main())
    assert held.all == 3


def test_an_attempt_counts_also_when_its_end_is_not_waited_for(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)

    async def main() -> None:
        for number in range(3):
            task = asyncio.create_task(
                logins.check("alice@example.org", str(number), "2001:db8::1")
            )
            while held.all < min(number + 1, AT_ONCE):
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        held.go.set()
        record = logins.penalties._records["2001:db8::/64"]
        while record.inside:
            await asyncio.sleep(0.001)
        # Two had begun, the third waited for a thread and never came to be.
        assert record.failures == 2
        assert logins.penalties._records["2001:db8::/64"].failures == 2

    asyncio.run(main())


def test_the_fourth_attempt_waits_a_second(logins: Logins) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(3):
            assert await logins.check("alice@example.org", str(number), "192.0.2.1") is None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await logins.check("alice@example.org", "sécret", "192.0.2.1")
        assert await logins.check("alice@example.org", "sécret", "192.0.2.2")
        last = logins.penalties._records["192.0.2.1"].last
        assert await logins.check("alice@example.org", "sécret", "192.0.2.1")
        assert loop.time() - last >= 1

    asyncio.run(main())


def test_cache_that_is_missing_is_nobody_s_fault(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(phc: str, secret: bytes) -> bool:
        raise passwords.CannotVerifyError("a password cannot be verified: Memory allocation error")

    monkeypatch.setattr(passwords, "verify", fail)
    for _ in range(5):
        with pytest.raises(LoginsBusyError):
            check(logins, "alice@example.org", "sécret", "192.0.2.1")
    assert len(logins.penalties) == 0


def test_after_the_end_it_is_busy(file: Path) -> None:
    those = Logins(Accounts(file))
    those.close()
    with pytest.raises(LoginsBusyError):
        check(those, "alice@example.org", "sécret", "192.0.2.1")
    assert len(those.penalties) == 0


def test_the_end_is_busy_for_those_who_wait(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    those = logins_of(file)

    async def main() -> None:
        tasks = [
            asyncio.create_task(those.check("alice@example.org", "right", "192.0.2.1"))
            for _ in range(AT_ONCE + 1)
        ]
        while held.now < AT_ONCE:
            await asyncio.sleep(0.001)
        end = asyncio.create_task(asyncio.to_thread(those.close))
        with pytest.raises(LoginsBusyError):
            await tasks[-1]
        held.go.set()
        assert all(await asyncio.gather(*tasks[:-1]))
        await end

    asyncio.run(main())
    assert len(those.penalties) == 0


def test_a_post_office_has_one_and_ends_it(file: Path) -> None:
    before = threading.active_count()
    descriptors = len(os.listdir("/proc/self/fd"))
    office = PostOffice.enter(str(file.parent))
    assert office.logins.available
    assert check(office.logins, "alice@example.org", "sécret")
    office.leave()
    assert threading.active_count() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


# --- the log --------------------------------------------------------------------------------------


def test_failures_are_logged_without_passwords(
    logins: Logins, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    check(logins, "alice@example.org", "sécret", "192.0.2.1")
    check(logins, "al\r\nice", "my password", "192.0.2.1")
    check(logins, "ä" * 500, "my password", "")
    lines = [record.getMessage() for record in caplog.records if record.name == "fastlisten.mail"]
    assert lines == [
        "[192.0.2.1]:0: authentication failed, user='al\\r\\nice'",
        "[unix]: authentication failed, user='" + "\\xe4" * 80 + "...'",
    ]
    assert "password" not in caplog.text
    assert "cret" not in caplog.text


def test_a_flood_of_failures_is_counted_in_the_log(
    logins: Logins, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    minutes = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: minutes[0] * 60)
    for _ in range(module.LOGGED + 40):
        logins._log("x", "192.0.2.1")
    assert len(caplog.records) == module.LOGGED
    minutes[0] += 1
    caplog.clear()
    logins._log("x", "192.0.2.1")
    assert [record.getMessage() for record in caplog.records] == [
        "40 more failed logins are not shown",
        "[192.0.2.1]:0: authentication failed, user='x'",
    ]


def test_failures_that_are_not_shown_are_told_of_without_another(
    logins: Logins, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The last ones of a flood, or of a server's life."""
    monkeypatch.setattr(module, "_MINUTE", 3600.0)

    async def flood(monkeypatch: pytest.MonkeyPatch) -> None:
        logins._loop = loop = asyncio.get_running_loop()
        later = loop.create_future()
        monkeypatch.setattr(loop, "call_later", lambda after, call: later.set_result((after, call)))
        for _ in range(module.LOGGED + 3):
            logins._log("x", "192.0.2.1")
        after, call = await later
        assert after == 3600.0
        assert "not shown" not in caplog.text
        call()

    asyncio.run(flood(monkeypatch))
    assert [one for one in caplog.messages if "shown" in one] == [
        "3 more failed logins are not shown"
    ]
    logins._log("x", "192.0.2.1")
    logins._log("x", "192.0.2.1")
    logins.close()
    assert caplog.messages[-1] == "2 more failed logins are not shown"


def test_a_file_of_this_moment_makes_no_login_wrong_for_good(logins: Logins, file: Path) -> None:
    assert check(logins, "alice@example.org", "sécret", "192.0.2.1")
    file.write_text(TEXT.partition('[account."nobody')[0].replace(HASH, cheap_hash("another", 16)))
    for name, password in (("alice@example.org", "another"), ("bob@example.org", "bob")):
        assert check(logins, name, password, "192.0.2.1")
    for name in ("alice@example.org", "bob@example.org", "unknown@example.org"):
        with pytest.raises(LoginsBusyError):
            check(logins, name, "sécret", "192.0.2.2")
    # Guesses they are all the same.
    assert logins.penalties._records["192.0.2.2"].failures == 3
