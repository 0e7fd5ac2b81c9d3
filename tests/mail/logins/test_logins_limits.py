"""Limits of logins: parallel and waiting verifications, attempts per address, log lines."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import HeldVerifications, write_accounts
from support.deliveries import running
from support.logins import TEXT, check, logins_of

from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.logins import logins as module
from fastlisten.mail.logins.logins import AT_ONCE, Logins, LoginsBusyError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.toml"
    write_accounts(path, TEXT)
    return path


@pytest.fixture
def logins(file: Path) -> Iterator[Logins]:
    logins = logins_of(file)
    yield logins
    logins.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("logins")]


def test_verification_and_queue_limits(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldVerifications(monkeypatch)

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
    # The last one was in the cache.
    assert held.all == AT_ONCE + module.WAITING


def test_one_address_cannot_fill_the_queue(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldVerifications(monkeypatch)

    async def main() -> None:
        attempts = [
            asyncio.create_task(logins.check("alice@example.org", str(number), "192.0.2.1"))
            for number in range(30)
        ]
        await asyncio.sleep(0)
        assert logins.penalties.table.records["192.0.2.1"].inside == 3
        for one in attempts[3:]:
            one.cancel()
        held.go.set()
        assert await asyncio.gather(*attempts[:3]) == [None] * 3

    asyncio.run(main())
    assert held.all == 3


def test_cancelled_attempt_counts_as_failure(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldVerifications(monkeypatch)

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
        record = logins.penalties.table.records["2001:db8::/64"]
        while record.inside:
            await asyncio.sleep(0.001)
        # Two had started; the third was cancelled while it waited for a thread.
        assert record.failures == 2
        assert logins.penalties.table.records["2001:db8::/64"].failures == 2

    asyncio.run(main())


def test_fourth_attempt_waits_a_second(logins: Logins) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(3):
            assert await logins.check("alice@example.org", str(number), "192.0.2.1") is None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await logins.check("alice@example.org", "sécret", "192.0.2.1")
        assert await logins.check("alice@example.org", "sécret", "192.0.2.2")
        last = logins.penalties.table.records["192.0.2.1"].last
        assert await logins.check("alice@example.org", "sécret", "192.0.2.1")
        assert loop.time() - last >= 1

    asyncio.run(main())


def test_verification_error_counts_as_no_failure(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(phc: str, secret: bytes) -> bool:
        raise passwords.CannotVerifyError("a password cannot be verified: Memory allocation error")

    monkeypatch.setattr(passwords, "verify", fail)
    for _ in range(5):
        with pytest.raises(LoginsBusyError):
            check(logins, "alice@example.org", "sécret", "192.0.2.1")
    assert len(logins.penalties) == 0


def test_busy_after_close(file: Path) -> None:
    logins = Logins(Accounts(file))
    logins.close()
    with pytest.raises(LoginsBusyError):
        check(logins, "alice@example.org", "sécret", "192.0.2.1")
    assert len(logins.penalties) == 0


def test_close_makes_waiting_attempts_busy(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldVerifications(monkeypatch)
    logins = logins_of(file)

    async def main() -> None:
        tasks = [
            asyncio.create_task(logins.check("alice@example.org", "right", "192.0.2.1"))
            for _ in range(AT_ONCE + 1)
        ]
        while held.now < AT_ONCE:
            await asyncio.sleep(0.001)
        end = asyncio.create_task(asyncio.to_thread(logins.close))
        with pytest.raises(LoginsBusyError):
            await tasks[-1]
        held.go.set()
        assert all(await asyncio.gather(*tasks[:-1]))
        await end

    asyncio.run(main())
    assert len(logins.penalties) == 0


def test_post_office_closes_its_logins(file: Path) -> None:
    before = running()
    office = PostOffice.enter(str(file.parent))
    assert office.logins.available
    assert check(office.logins, "alice@example.org", "sécret")
    assert running() > before
    office.leave()
    assert running() <= before


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


def test_log_of_failures_is_throttled(
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


def test_omitted_failures_are_logged_by_timer_and_at_close(
    logins: Logins, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those at the end of a flood, or before the server stops."""
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
