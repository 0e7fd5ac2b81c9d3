"""A server with several workers as the management shows it: sums in JSON, workers in metrics.

Rules of this file: the workers' reports are made up; no process is started.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from support.management import lifespan

from fastlisten.handlers.base import HandlerSettings
from fastlisten.mail.counts import Counts
from fastlisten.management.app import application
from fastlisten.management.token_file import FILE_NAME
from fastlisten.runtime.control import (
    Control,
    NoAnswerError,
    UnfinishedError,
    UnknownListenerError,
)
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
    "it", "smtp", State.LISTENING, True, ("127.0.0.1:25",), 5, 100, "refuse", WORKERS, (1,)
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
        raise UnfinishedError(id, "paused", (1,))

    async def resume(self, id: str, by: str) -> None:
        await asyncio.sleep(0)

    async def drain(self, id: str, by: str) -> None:
        raise NoAnswerError("no worker is running")

    async def set_limit(self, id: str, limit: int, by: str) -> None:
        raise NotImplementedError


class NoWorker(ThreeWorkers):
    """Has no worker that could answer."""

    async def readiness(self) -> Readiness:
        raise NoAnswerError("no worker is running")

    async def reports(self) -> list[ListenerReport]:
        raise NoAnswerError("no worker is running")


def ask(
    path: str, directory: Path, method: str = "GET", control: Control | None = None
) -> httpx.Response:
    """Send a request to the management of the three workers."""
    settings = HandlerSettings(
        "management",
        "http",
        "mx.example.org",
        data_directory=str(directory),
        extra={"control": control or ThreeWorkers()},
    )

    async def send() -> httpx.Response:
        app = application(settings)
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 40000))
        async with (
            lifespan(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            token = (directory / FILE_NAME).read_text().strip()
            return await client.request(method, path, headers={"authorization": f"Bearer {token}"})

    return asyncio.run(send())


def test_json_has_sums_over_workers(tmp_path: Path) -> None:
    value = ask("/api/listeners/it", tmp_path).json()
    assert value["connections"] == 5
    assert value["accepted"] == 30
    assert value["refused"] == {"limit": 6, "overload": 1}
    assert value["accept-errors"] == {"EMFILE": 3, "other": 7}
    assert value["tls-handshake-failures"] == 4
    assert value["timed-out"] == 3
    assert value["stale-workers"] == [1]
    assert value["mail"] == {
        "messages": {"accepted": 5},
        "bytes": 500,
        "rejections": {"unknown-recipient": 5},
        "deferrals": {},
        "logins": {"failed": 2},
        "sessions-ended": {"quit": 2},
    }


def test_metrics_have_a_label_per_worker(tmp_path: Path) -> None:
    families = text_string_to_metric_families(ask("/metrics", tmp_path).text)
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
        ("fastlisten_worker_responding", ""): (1, 0, 1),
        ("fastlisten_message_bytes_total", ""): (200, 300, None),
        ("fastlisten_delivery_duration_seconds_count", ""): (2, 3, None),
    }.items():
        assert tuple(found.get((name[0], worker, name[1])) for worker in "014") == expected, name


def test_limit_is_for_all_workers_together(tmp_path: Path) -> None:
    text = ask("/metrics", tmp_path).text
    limits = [line for line in text.splitlines() if line.startswith("fastlisten_connections_limit")]
    assert limits == ['fastlisten_connections_limit{listener="it"} 100.0']


def test_status_page_names_the_worker_that_does_not_answer(tmp_path: Path) -> None:
    assert "Worker 1 does not answer; its last known counters are shown." in ask("/", tmp_path).text


def test_change_that_a_worker_has_not_made_is_a_504(tmp_path: Path) -> None:
    answer = ask("/api/listeners/it/pause", tmp_path, "POST")
    assert answer.status_code == 504
    assert answer.json()["detail"] == (
        'listener "it" is not yet paused in worker 1, which does not answer; '
        "the other workers have done it"
    )
    assert ask("/api/listeners/it/resume", tmp_path, "POST").status_code == 200


def test_nobody_answers(tmp_path: Path) -> None:
    for path, method in (("/metrics", "GET"), ("/", "GET"), ("/api/listeners", "GET")):
        answer = ask(path, tmp_path, method, NoWorker())
        assert (answer.status_code, answer.json()["detail"]) == (503, "no worker is running")
    assert ask("/api/listeners/it/drain", tmp_path, "POST").status_code == 503
    assert ask("/healthz/live", tmp_path, control=NoWorker()).status_code == 200
    answer = ask("/healthz/ready", tmp_path, control=NoWorker())
    assert (answer.status_code, answer.json()) == (503, {"status": "unready", "not-accepting": []})


def test_sum_of_mail_adds_up_buckets_and_seconds() -> None:
    total = REPORT.total.mail
    assert total is not None
    assert (total.durations[0], total.durations[-1], sum(total.durations)) == (2, 3, 5)
    assert total.seconds == 2 * 0.001 + 3 * 1000.0
    # The workers' own counts have not changed.
    assert WORKERS[0].mail is not None
    assert WORKERS[0].mail.messages == {"accepted": 2}
