"""Certificates that expire soon: the warning at the start, at a reload and once a day.

Rules of this file: real certificates with other dates; only the interval is shortened.
"""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import pytest
from support.certificates import authority, table, write
from support.config import listener_table
from support.configured_certificates import config, made, renewed
from support.loops import on_loops
from support.management import listener
from support.waiting import eventually

from fastlisten.runtime.server import Server
from fastlisten.runtime.tls import expiry_check
from fastlisten.runtime.tls.pem import KeyPair


def expiring(**left: float) -> KeyPair:
    """Return a certificate that is valid for some time."""
    now = datetime.datetime.now(datetime.UTC)
    ends = now + datetime.timedelta(minutes=5, **left)
    return authority().sign("mx", first=now - datetime.timedelta(days=80), last=ends)


def day(pair: KeyPair) -> str:
    return f"{pair.valid()[1]:%Y-%m-%d}"


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ({"hours": 0}, "in less than a day"),
        ({"days": 1}, "in 1 day"),
        ({"days": 13, "hours": 23}, "in 13 days"),
    ],
)
def test_warning_at_the_start(tmp_path: Path, left: dict[str, float], says: str) -> None:
    pair = expiring(**left)
    write(tmp_path, pair)
    it = made(tmp_path, table(tmp_path) + listener_table("it", ""))
    (note,) = it.notes
    assert note.endswith(f'the certificate expires on {day(pair)}, {says} (listener "it")')


def test_no_warning_two_weeks_before(tmp_path: Path) -> None:
    write(tmp_path, expiring(days=14))
    it = made(tmp_path, table(tmp_path) + listener_table("it", ""))
    assert it.notes == it.date_warnings() == renewed(it)[1].warnings == []


def test_reload_warns_about_certificates_that_have_not_changed(tmp_path: Path) -> None:
    write(tmp_path, expiring(days=3))
    it = made(tmp_path, table(tmp_path) + listener_table("it", ""))
    successor, found = renewed(it)
    assert (found.changed, found.warnings) == ([], it.notes)
    write(tmp_path, expiring(days=60))
    assert renewed(successor)[1].warnings == []


@on_loops
async def test_running_server_warns_once_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expiry_check, "INTERVAL", 0.01)
    write(tmp_path, expiring(days=3))
    text = table(tmp_path) + listener("it", "tls.implicit = true")

    def warned() -> list[str]:
        return [
            one.getMessage()
            for one in caplog.records
            if getattr(one, "event", "") == "certificate-warning"
        ]

    with caplog.at_level(logging.WARNING, "fastlisten"):
        async with Server(config(tmp_path, text)):
            await eventually(lambda: len(warned()) >= 2, "two warnings")
        assert all("expires on" in line and "in 3 days" in line for line in warned())
        write(tmp_path, expiring(days=60))
        async with Server(config(tmp_path, text)) as server:
            caplog.clear()
            check = server._expiry_check
            assert check is not None
            timer = check._timer
            await eventually(lambda: check._timer is not timer, "a check")
        assert warned() == []
