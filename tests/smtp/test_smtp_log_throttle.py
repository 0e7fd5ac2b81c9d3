"""Throttling of the log of rejections: a bounded number of lines per reason, and bounded lines.

Rules of this file: as in test_smtp_reject_log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.logged import events
from support.smtp_harness import ENVELOPE, Served, serve

from fastlisten.log_throttle import MAX_RECORDS, Throttle


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastlisten")


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as served:
        yield served


def test_repeated_rejections_are_throttled(plain: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A hundred lines per reason; other reasons have their own hundred."""
    storm = b"RCPT TO:<nobody@example.org>\r\n" * 90
    for _ in range(20):
        plain.say(ENVELOPE + storm + b"RCPT TO:<x@y.example>\r\nQUIT\r\n")
    counts = plain.handler.counts.rejections
    assert counts == {("5xx", "unknown-recipient"): 1800, ("5xx", "relay-denied"): 20}
    by_reason = [one["reason"] for one in events(caplog, "rejected")]
    plain.call(plain.handler.session_log.close)
    omitted = events(caplog, "rejections-omitted")
    told = sum(one["count"] for one in omitted)
    assert by_reason.count("unknown-recipient") + told == 1800
    assert by_reason.count("relay-denied") == 20
    assert by_reason.count("unknown-recipient") <= MAX_RECORDS * (len(omitted))
    assert {(one["listener"], one["reason"]) for one in omitted} == {("smtp", "unknown-recipient")}


def test_throttle_period_starts_anew() -> None:
    told: list[tuple[str, int]] = []

    async def main() -> None:
        throttle = Throttle(lambda kind, count: told.append((kind, count)))
        allowed = [throttle.allows("a") for _ in range(MAX_RECORDS + 3)]
        assert allowed == [True] * MAX_RECORDS + [False] * 3
        assert throttle.allows("b")
        throttle.close()
        assert throttle.allows("a")
        throttle.close()

    asyncio.run(main())
    assert told == [("a", 3)]


def test_client_data_in_log_lines_is_bounded(
    plain: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Addresses are truncated; escaping is tested in test_log_lines.py."""
    long = b"a" * 60 + b"." + b"b." * 90 + b"example.net"
    many = b"".join(b"RCPT TO:<al@example.org>\r\n" for _ in range(20))
    plain.say(
        ENVELOPE
        + b"RCPT TO:<"
        + long
        + b"@"
        + long[-200:]
        + b">\r\n"
        + many
        + b"DATA\r\na\nb\r\n.\r\nQUIT\r\n"
    )
    for one in events(caplog, "rejected"):
        assert len(one["message"]) < 800
