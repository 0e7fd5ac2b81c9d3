"""A server with several workers as the management shows it: sums in JSON, workers in metrics.

Rules of this file: the workers' reports are made up; no process is started.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from fastlisten.handlers.base import HandlerSettings
from fastlisten.mail.counts import Counts
from fastlisten.management.app import application
from fastlisten.runtime.control import Control, UnknownListenerError
from fastlisten.runtime.listener import State
from fastlisten.runtime.reports import Counters, ListenerReport, Readiness, ServerReport


def mail(messages: int, seconds: float) -> Counts:
    counts = Counts()
    for _ in range(messages):
        counts.message("accepted", 100)
        counts.delivery(seconds)
    counts.rejection(b"550 5.1.1 no\r\n", "unknown-recipient", messages)
    counts.login("failed")
    counts.ended("quit")
    return counts


#: Two workers with mail, and one that has just started.
WORKERS = {
    0: Counters(3, 10, {"limit": 1, "overload": 0}, {24: 2}, 4, 1, mail(2, 0.001)),
    1: Counters(2, 20, {"limit": 5, "overload": 1}, {24: 1, 0: 7}, 0, 2, mail(3, 1000.0)),
    4: Counters(0, 0, {"limit": 0, "overload": 0}, {}, 0, 0, None),
}

REPORT = ListenerReport(
    "it", "smtp", State.LISTENING, True, ("127.0.0.1:25",), 5, 100, "refuse", WORKERS
)


class ThreeWorkers(Control):
    """Answers for three workers after a turn of the loop, as another process would."""

    async def readiness(self) -> Readiness:
        await asyncio.sleep(0)
        return Readiness(True)

    async def server(self) -> ServerReport:
        await asyncio.sleep(0)
        return ServerReport({0: 0, 1: 3, 4: 1}, True, {})

    async def reports(self) -> list[ListenerReport]:
        return [await self.report("it")]

    async def report(self, id: str) -> ListenerReport:
        await asyncio.sleep(0)
        if id != "it":
            raise UnknownListenerError(id)
        return REPORT

    async def pause(self, id: str, by: str) -> None:
        raise NotImplementedError

    async def resume(self, id: str, by: str) -> None:
        raise NotImplementedError

    async def drain(self, id: str, by: str) -> None:
        raise NotImplementedError

    async def set_limit(self, id: str, limit: int, by: str) -> None:
        raise NotImplementedError


def get(path: str, directory: Path) -> httpx.Response:
    """Send a request to the management of the three workers."""
    settings = HandlerSettings(
        "management",
        "http",
        "mx.example.org",
        data_directory=str(directory),
        extra={"control": ThreeWorkers()},
    )

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application(settings), client=("127.0.0.1", 40000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_json_has_sums_over_workers(tmp_path: Path) -> None:
    value = get("/api/listeners/it", tmp_path).json()
    assert value["connections"] == 5
    assert value["accepted"] == 30
    assert value["refused"] == {"limit": 6, "overload": 1}
    assert value["accept-errors"] == {"EMFILE": 3, "other": 7}
    assert value["tls-handshake-failures"] == 4
    assert value["timed-out"] == 3
    assert value["mail"] == {
        "messages": {"accepted": 5},
        "bytes": 500,
        "rejections": {"unknown-recipient": 5},
        "deferrals": {},
        "logins": {"failed": 2},
        "sessions-ended": {"quit": 2},
    }


def test_metrics_have_a_label_per_worker(tmp_path: Path) -> None:
    families = text_string_to_metric_families(get("/metrics", tmp_path).text)
    found = {
        (one.name, one.labels["worker"], one.labels.get("reason", one.labels.get("errno", ""))): (
            one.value
        )
        for family in families
        for one in family.samples
        if "worker" in one.labels
    }
    for name, expected in {
        ("fastlisten_connections", ""): (3, 2, 0),
        ("fastlisten_accepted_total", ""): (10, 20, 0),
        ("fastlisten_refused_total", "limit"): (1, 5, 0),
        ("fastlisten_accept_errors_total", "EMFILE"): (2, 1, None),
        ("fastlisten_tls_handshake_failures_total", ""): (4, 0, 0),
        ("fastlisten_worker_restarts_total", ""): (0, 3, 1),
        ("fastlisten_message_bytes_total", ""): (200, 300, None),
        ("fastlisten_delivery_duration_seconds_count", ""): (2, 3, None),
    }.items():
        assert tuple(found.get((name[0], worker, name[1])) for worker in "014") == expected, name


def test_limit_is_for_all_workers_together(tmp_path: Path) -> None:
    text = get("/metrics", tmp_path).text
    limits = [line for line in text.splitlines() if line.startswith("fastlisten_connections_limit")]
    assert limits == ['fastlisten_connections_limit{listener="it"} 100.0']


def test_sum_of_mail_adds_up_buckets_and_seconds() -> None:
    total = REPORT.total.mail
    assert total is not None
    assert (total.durations[0], total.durations[-1], sum(total.durations)) == (2, 3, 5)
    assert total.seconds == 2 * 0.001 + 3 * 1000.0
    # The workers' own counts have not changed.
    assert WORKERS[0].mail is not None
    assert WORKERS[0].mail.messages == {"accepted": 2}
