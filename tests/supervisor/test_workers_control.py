"""The management of a server with two workers: whichever one answers, it is about the whole server.

Rules of this file: the program is real. Which worker answers, or serves a client, is decided by
stopping the other one. What is counted is waited for, because a client may know it before the
worker does. The program waits for its processes as long as the test does; where one of them is
stopped it waits for a moment only, and may then be too impatient with the others as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.waiting import PATIENCE, until
from support.workers import PATIENT, WHO, Workers, line, patched, stopped, workers

from fastlisten.management.token_file import FILE_NAME

TEXT = f"""{WHO}
max-connections = 4

[server.listener.management]
protocol = "http"
bind = "127.0.0.1:0"
tls.enable = false
"""


class Managed:
    """A server with two workers and its management.

    Attributes:
        server: the supervisor and its workers.
    """

    def __init__(self, server: Workers) -> None:
        self.server = server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.program.port('management')}"

    def request(self, path: str, method: str = "GET", **more: Any) -> httpx.Response:
        """Send a request over a new connection; any worker may answer."""
        token = (self.server.directory / "data" / FILE_NAME).read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=PATIENCE, **more)

    def answer_of(self, pid: int, path: str) -> httpx.Response:
        """Return a worker's answer, which the other one helps to make."""
        with httpx.Client(base_url=self.url, timeout=PATIENCE) as client:
            with stopped(*(one for one in self.server.pids if one != pid)):
                # From now on the client has a connection to this worker.
                assert client.get("/healthz/live").status_code == 200
            return client.get(path)

    def listener(self, id: str = "it") -> Any:
        return self.request(f"/api/listeners/{id}").json()

    def change(self, path: str, **more: Any) -> httpx.Response:
        return self.request(f"/api/listeners/it/{path}", "POST", **more)

    def metrics(self) -> dict[tuple[str, str, str], float]:
        """Return the metrics by name, listener and worker."""
        return metrics(self.request("/metrics"))

    def held(self) -> dict[str, float]:
        """Return how many connections of the listener `it` each worker has, as far as is known."""
        found = self.metrics()
        return {
            worker: found[key] for worker in "01" if (key := (CONNECTIONS, "it", worker)) in found
        }


def metrics(answer: httpx.Response) -> dict[tuple[str, str, str], float]:
    return {
        (one.name, one.labels.get("listener", ""), one.labels.get("worker", "")): one.value
        for family in text_string_to_metric_families(answer.text)
        for one in family.samples
    }


#: Each makes the program wait less long for processes that are stopped.
HEARTBEATS = """
from fastlisten.runtime.supervisor import heartbeat
heartbeat.INTERVAL, heartbeat.HUNG_AFTER = 0.05, 0.5
"""
REPORTS = "supervisor_control.REPORT_SECONDS = 0.2\n"
CHANGES = "supervisor_control.CHANGE_SECONDS = 0.2\n"
SUPERVISOR = "remote_control.REPORT_SECONDS = remote_control._MARGIN = 0.1\n"


@contextlib.contextmanager
def managed(directory: Path, text: str = TEXT, *, impatient: str = "") -> Iterator[Managed]:
    with workers(directory, 2, text, environ=patched(directory, PATIENT + impatient)) as two:
        yield Managed(two)


CONNECTIONS, ACCEPTED = "fastlisten_connections", "fastlisten_accepted_total"


def test_metrics_of_either_worker_have_both(tmp_path: Path) -> None:
    with managed(tmp_path) as two, contextlib.ExitStack() as stack:
        first, second = two.server.pids
        for pid in (first, second, second):
            stack.enter_context(two.server.served_by(pid))
        for pid in (first, second):
            found = metrics(two.answer_of(pid, "/metrics"))
            counts = [found[CONNECTIONS, "it", worker] for worker in "01"]
            assert sorted(counts) == [1, 2]
            assert found["fastlisten_connections_limit", "it", ""] == 4
            assert [found["fastlisten_worker_responding", "", worker] for worker in "01"] == [1, 1]
            assert [found["fastlisten_worker_restarts_total", "", one] for one in "01"] == [0, 0]
        report = two.listener()
        assert (report["connections"], report["accepted"], report["stale-workers"]) == (3, 3, [])
        assert [one["id"] for one in two.request("/api/listeners").json()["listeners"]] == [
            "it",
            "management",
        ]


def test_limit_is_shared_and_changed_for_both(tmp_path: Path) -> None:
    with managed(tmp_path) as two, contextlib.ExitStack() as stack:
        first, second = two.server.pids
        for pid in (first, first, second, second):
            stack.enter_context(two.server.served_by(pid))
        refused = b"refused: limit\n"
        with two.server.connect() as client:
            assert line(client) == refused
        answer = two.change("limit", json={"limit": 5})
        assert (answer.status_code, answer.json()["limit"]) == (200, 5)
        stack.enter_context(two.server.served_by(first))
        for pid in (first, second):
            others = (one for one in two.server.pids if one != pid)
            with stopped(*others), two.server.connect() as client:
                assert line(client) == refused
        two.server.end()
    assert two.server.err.count("max-connections set to 5 by 127.0.0.1, was 4") == 1


def test_stopped_worker_is_marked_and_its_last_values_stand_in(tmp_path: Path) -> None:
    with managed(tmp_path, impatient=REPORTS) as two, contextlib.ExitStack() as stack:
        first, second = two.server.pids
        for pid in (first, second, second):
            stack.enter_context(two.server.served_by(pid))
        until(lambda: sorted(two.held().values()) == [1, 2], "reports of both")
        (mine,) = [worker for worker, held in two.held().items() if held == 2]
        other = "10"[int(mine)]

        def responding() -> list[float]:
            found = two.metrics()
            return [found["fastlisten_worker_responding", "", one] for one in (mine, other)]

        with stopped(second):
            until(lambda: responding() == [0, 1], "the mark")
            assert two.held()[mine] == 2
            until(lambda: two.listener()["stale-workers"] == [int(mine)], "the mark")
            assert two.listener()["accepted"] == 3
            text = f"Worker {mine} does not answer"
            until(lambda: text in two.request("/").text, "the mark")
            assert two.request("/healthz/ready").status_code == 200
        until(lambda: two.listener()["stale-workers"] == [], "an answer")
        until(lambda: responding() == [1, 1], "an answer")


def test_worker_that_stands_still_is_logged(tmp_path: Path) -> None:
    with managed(tmp_path, impatient=HEARTBEATS) as two:
        pid = two.server.pids[1]

        def said() -> list[str]:
            return re.findall(rf"\(pid {pid}\) (does not react|reacts again)", two.server.err)

        with stopped(pid):
            until(lambda: said()[-1:] == ["does not react"], "the log")
        until(lambda: said()[-1:] == ["reacts again"], "the log")
        # Once each time: there is one more if the machine is too busy for half a second.
        found = said()
        assert found == (["does not react", "reacts again"] * len(found))[: len(found)]


def test_pause_is_done_by_both_and_by_new_workers(tmp_path: Path) -> None:
    with managed(tmp_path) as two:
        assert two.change("pause").json()["state"] == "paused"
        answer = two.request("/healthz/ready")
        assert answer.json() == {
            "status": "unready",
            "not-accepting": [{"id": "it", "state": "paused"}],
        }
        with two.server.connect() as client:
            # Workers that are replaced do not accept it either.
            for pid in two.server.pids:
                os.kill(pid, signal.SIGKILL)
            two.server.serve(4)
            until(lambda: two.held() == {"0": 0, "1": 0}, "reports of both")
            assert two.listener()["state"] == "paused"
            assert two.listener()["connections"] == 0
            assert two.change("resume").json()["state"] == "listening"
            assert int(line(client)) in two.server.pids
        restarts = [two.metrics()["fastlisten_worker_restarts_total", "", one] for one in "01"]
        assert restarts == [1, 1]
        two.server.end()
    for said in ("paused by 127.0.0.1", "resumed by 127.0.0.1"):
        assert two.server.err.count(said) == 1


def test_change_that_a_stopped_worker_has_not_made_is_a_504(tmp_path: Path) -> None:
    with managed(tmp_path, impatient=CHANGES) as two:
        with stopped(two.server.pids[1]):
            answer = two.change("pause")
            assert answer.status_code == 504
            assert 'listener "it" is not yet paused in worker' in answer.json()["detail"]
        # It makes the change when it goes on.
        report = two.listener()
        assert (report["state"], report["stale-workers"]) == ("paused", [])
        with two.server.connect() as client:
            until(lambda: two.change("resume").status_code == 200, "both to resume")
            assert int(line(client)) in two.server.pids


def test_drained_listener_is_closed_everywhere_and_stays_so(tmp_path: Path) -> None:
    with managed(tmp_path) as two, contextlib.ExitStack() as stack:
        port = two.server.program.port()
        busy = stack.enter_context(two.server.served_by(two.server.pids[0]))
        busy.sendall(b"begin")
        assert busy.recv(5) == b"begin"
        assert two.change("drain").json()["state"] == "draining"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), PATIENCE)
        assert two.change("pause").status_code == 409
        busy.sendall(b"end")
        assert busy.recv(3) == b"end"
        until(lambda: two.listener()["state"] == "closed", "the drain")
        os.kill(two.server.pids[0], signal.SIGKILL)
        two.server.serve(3)
        until(lambda: len(two.metrics()) and two.listener()["state"] == "closed", "both")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), PATIENCE)
        assert two.request("/healthz/live").status_code == 200
        two.server.end()
    assert two.server.err.count("draining, requested by") == 1


def test_counters_survive_workers_that_drain(tmp_path: Path) -> None:
    with managed(tmp_path) as two:
        for pid in two.server.pids:
            two.server.served_by(pid).close()
        for served, pid in enumerate(two.server.pids, 3):
            os.kill(pid, signal.SIGTERM)
            two.server.serve(served)
        until(lambda: two.server.err.count("has ended: exit code 0") == 2, "the old workers' end")
        # Nobody has asked for a report in the meantime: they sent it when they ended.
        assert two.listener()["accepted"] == 2
        assert [two.metrics()[ACCEPTED, "it", worker] for worker in "01"] == [1, 1]


def test_worker_answers_for_itself_if_the_supervisor_is_stopped(tmp_path: Path) -> None:
    with managed(tmp_path, impatient=SUPERVISOR) as two, stopped(two.server.pid):
        assert two.request("/healthz/live").status_code == 200
        assert two.request("/healthz/ready").json()["status"] == "ready"
        answer = two.request("/metrics")
        assert (answer.status_code, answer.json()["detail"]) == (
            503,
            "the supervisor does not answer",
        )


def test_many_listeners_are_reported_in_one_answer(tmp_path: Path) -> None:
    more = "".join(WHO.replace(".it]", f".l{number}]") for number in range(300))
    with managed(tmp_path, more + TEXT) as two:
        found = two.request("/api/listeners").json()["listeners"]
        assert len(json.dumps(found)) > 65536
        assert len(found) == 302
        assert {one["state"] for one in found} == {"listening"}
