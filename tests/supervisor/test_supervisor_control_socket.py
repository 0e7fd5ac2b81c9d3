"""The control socket's requests in the supervisor: answered without an event loop, for all workers.

Rules of this file: workers are scripted, time passes when the test says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from support.scripted_workers import Supervisor

from fastlisten.cli import status
from fastlisten.runtime.control_socket.protocol import ServedProcess, answer
from fastlisten.runtime.supervisor.supervisor_control import CHANGE_SECONDS, REPORT_SECONDS


async def reload(by: str) -> Mapping[str, object]:
    return {"succeeded": True}


def asked(supervisor: Supervisor, after: float = 0, **request: object) -> Any:
    """Send a request; return the answer, which comes at once or after some seconds."""
    server = ServedProcess(supervisor.control, reload, 4711)
    line = json.dumps(request).encode()
    return json.loads(b"".join(supervisor.result(lambda: answer(server, line, "a test"), after)))


def test_status_has_every_worker_and_names_the_hung_one() -> None:
    supervisor = Supervisor()
    found = asked(supervisor, command="status")
    assert found["server"]["workers"] == [
        {"number": 0, "restarts": 0, "responding": True},
        {"number": 1, "restarts": 3, "responding": True},
    ]
    assert [one["accepted"] for one in found["listeners"][0]["workers"]] == [1, 1]
    supervisor.worker(1).hung = True
    found = asked(supervisor, REPORT_SECONDS, command="status")
    assert [one["responding"] for one in found["server"]["workers"]] == [True, False]
    assert found["listeners"][0]["stale-workers"] == [1]
    lines = list(status._lines(found, now=0.0))
    assert lines[0].startswith("PID 4711, 2 workers, 3 replaced")
    assert "worker 1 does not answer; the last known values are shown" in lines


def test_changes_reach_every_worker() -> None:
    supervisor = Supervisor()
    assert asked(supervisor, command="limit", id="a", limit=9) == {"ok": True}
    assert asked(supervisor, command="pause", id="a") == {"ok": True}
    assert asked(supervisor, command="reload") == {"ok": True, "reload": {"succeeded": True}}
    assert supervisor.limit == 9
    for worker in supervisor.workers.values():
        assert [method for method, _ in worker.requests] == ["pause"]


def test_change_that_a_worker_has_not_made() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    found = asked(supervisor, CHANGE_SECONDS, command="pause", id="a")
    assert (found["ok"], found["error"]) == (False, "unfinished")
    assert found["message"].startswith('listener "a" is not yet paused in worker 1')


def test_unknown_listener_gets_the_likely_one() -> None:
    found = asked(Supervisor(), command="drain", id="aa")
    assert (found["error"], found["message"]) == (
        "unknown-listener",
        'there is no listener "aa"; did you mean "a"?',
    )


def test_no_worker_is_running() -> None:
    requests: tuple[dict[str, Any], ...] = ({"command": "status"}, {"command": "pause", "id": "a"})
    for request in requests:
        found = asked(Supervisor(workers=0), **request)
        assert (found["error"], found["message"]) == ("no-answer", "no worker is running")
