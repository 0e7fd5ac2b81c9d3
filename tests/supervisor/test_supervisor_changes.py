"""Pause, resume, drain and limits over all workers: done by all, or it is said by which not.

Rules of this file: workers are scripted, time passes when the test says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from support.scripted_workers import Supervisor

from fastlisten.runtime.control import (
    ImpossibleError,
    NoAnswerError,
    UnfinishedError,
    UnknownListenerError,
)
from fastlisten.runtime.listener import State
from fastlisten.runtime.supervisor.channel import BadMessageError
from fastlisten.runtime.supervisor.supervisor_control import CHANGE_SECONDS, SupervisorControl
from fastlisten.runtime.supervisor.worker_requests import REQUEST

Call = Callable[[SupervisorControl], Coroutine[Any, Any, None]]

PAUSE: Call = lambda control: control.pause("a", "me")  # noqa: E731
RESUME: Call = lambda control: control.resume("a", "me")  # noqa: E731
DRAIN: Call = lambda control: control.drain("a", "me")  # noqa: E731
LIMIT: Call = lambda control: control.set_limit("a", 7, "me")  # noqa: E731

ALL = pytest.mark.parametrize(
    ("call", "method", "words"),
    [
        (PAUSE, "pause", "paused"),
        (RESUME, "resume", "resumed"),
        (DRAIN, "drain", "drained"),
    ],
)


@ALL
def test_change_is_done_when_every_worker_has_made_it(call: Call, method: str, words: str) -> None:
    supervisor = Supervisor(workers=3)
    supervisor.worker(2).hung = True
    outcome = supervisor.begin(call(supervisor.control))
    arguments = {"id": "a", "by": "me"}
    assert supervisor.worker(0).requests == [(method, arguments)]
    supervisor.worker(2).wake()
    outcome.result()
    assert supervisor.worker(2).requests == [(method, arguments)]


@ALL
def test_worker_that_has_not_made_it_is_named(call: Call, method: str, words: str) -> None:
    supervisor = Supervisor(workers=3)
    supervisor.worker(1).hung = True
    with pytest.raises(UnfinishedError) as caught:
        supervisor.result(lambda: call(supervisor.control), after=CHANGE_SECONDS)
    assert caught.value.workers == (1,)
    assert str(caught.value) == (
        f'listener "a" is not yet {words} in worker 1, which does not answer; '
        "the other workers have done it"
    )
    assert [method for method, _ in supervisor.worker(2).requests] == [method]
    # It does so as soon as it can.
    supervisor.worker(1).wake()
    assert [method for method, _ in supervisor.worker(1).requests] == [method]


def test_several_workers_are_named() -> None:
    supervisor = Supervisor(workers=3)
    supervisor.worker(1).hung = supervisor.worker(2).hung = True
    with pytest.raises(UnfinishedError, match="in workers 1, 2, which do not answer"):
        supervisor.result(lambda: PAUSE(supervisor.control), after=CHANGE_SECONDS)


def test_worker_with_a_full_channel_is_told_as_soon_as_it_reads() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).full = True
    with pytest.raises(UnfinishedError, match="in worker 1"):
        supervisor.result(lambda: PAUSE(supervisor.control))
    supervisor.pass_time(5)
    assert supervisor.worker(1).requests == []
    supervisor.worker(1).full = False
    supervisor.pass_time(1)
    assert supervisor.worker(1).requests == [("apply", {"paused": ["a"], "drained": []})]
    supervisor.pass_time(10)
    assert len(supervisor.worker(1).requests) == 1
    assert supervisor.control.deadline is None


def test_worker_that_ends_meanwhile_is_not_waited_for() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    outcome = supervisor.begin(PAUSE(supervisor.control))
    supervisor.control.remove(supervisor.worker(1).key)
    outcome.result()


def test_draining_worker_is_left_alone() -> None:
    supervisor = Supervisor()
    supervisor.control.retire(supervisor.worker(1).key)
    supervisor.result(lambda: PAUSE(supervisor.control))
    assert supervisor.worker(1).requests == []


@ALL
def test_listener_that_is_not_configured(call: Call, method: str, words: str) -> None:
    supervisor = Supervisor()
    supervisor.listeners = ["b"]
    with pytest.raises(UnknownListenerError, match='"a"'):
        supervisor.result(lambda: call(supervisor.control))
    assert supervisor.worker(0).requests == []


@ALL
def test_no_worker_that_serves(call: Call, method: str, words: str) -> None:
    supervisor = Supervisor(workers=1)
    supervisor.control.retire(100)
    with pytest.raises(NoAnswerError, match="no worker is running"):
        supervisor.result(lambda: call(supervisor.control))


@pytest.mark.parametrize("call", [PAUSE, RESUME])
def test_error_of_a_worker_is_the_answer(call: Call) -> None:
    supervisor = Supervisor()
    supervisor.worker(1).error = ImpossibleError("a", State.CLOSED, "paused")
    with pytest.raises(ImpossibleError, match='"a" is closed and cannot be paused'):
        supervisor.result(lambda: call(supervisor.control))


def test_limit_needs_no_worker() -> None:
    supervisor = Supervisor()
    supervisor.worker(0).full = supervisor.worker(1).hung = True
    supervisor.result(lambda: LIMIT(supervisor.control))
    assert supervisor.limit == 7
    # A late request would bring an old limit back.
    assert supervisor.worker(1).unread == []


@pytest.mark.parametrize("limit", [0, -1, 2**31])
def test_limit_out_of_range_changes_nothing(limit: int) -> None:
    supervisor = Supervisor()
    with pytest.raises(ValueError, match=f"from 1 to 2147483647, not {limit}"):
        supervisor.result(lambda: supervisor.control.set_limit("a", limit, "me"))
    assert supervisor.limit == 100


def test_drained_listener_gets_no_limit() -> None:
    supervisor = Supervisor()
    supervisor.result(lambda: DRAIN(supervisor.control))
    with pytest.raises(ImpossibleError, match='"a" is draining and cannot be given another limit'):
        supervisor.result(lambda: LIMIT(supervisor.control))
    assert supervisor.limit == 100


# --- what new workers get -------------------------------------------------------------------------


def test_new_worker_gets_what_was_changed() -> None:
    supervisor = Supervisor()
    control = supervisor.control
    assert control.changes() == {"paused": [], "drained": []}
    supervisor.result(lambda: control.pause("a", "me"))
    supervisor.result(lambda: control.pause("b", "me"))
    assert control.changes() == {"paused": ["a", "b"], "drained": []}
    supervisor.result(lambda: control.resume("a", "me"))
    supervisor.result(lambda: control.drain("b", "me"))
    assert control.changes() == {"paused": [], "drained": ["b"]}
    # A drained listener is not paused any more.
    for worker in supervisor.workers.values():
        worker.error = ImpossibleError("b", State.CLOSED, "paused")
    with pytest.raises(ImpossibleError):
        supervisor.result(lambda: control.pause("b", "me"))
    assert control.changes() == {"paused": [], "drained": ["b"]}


def test_new_worker_gets_what_a_hung_one_has_not_done() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    outcome = supervisor.begin(PAUSE(supervisor.control))
    assert supervisor.control.changes()["paused"] == ["a"]
    supervisor.pass_time(CHANGE_SECONDS)
    assert outcome.done
    assert supervisor.control.changes()["paused"] == ["a"]


def test_sockets_of_a_drained_listener_are_closed_once() -> None:
    supervisor = Supervisor()
    for _ in range(2):
        supervisor.result(lambda: DRAIN(supervisor.control))
    assert supervisor.drained == ["a"]


# --- the log --------------------------------------------------------------------------------------


def test_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten")
    supervisor = Supervisor(workers=3)
    for call in (PAUSE, RESUME, LIMIT, DRAIN):
        for _ in range(2):  # the second time nothing changes
            supervisor.result(partial(call, supervisor.control))
    assert caplog.messages == [
        'listener "a": paused by me',
        'listener "a": resumed by me',
        'listener "a": max-connections set to 7 by me, was 100',
        'listener "a": draining, requested by me',
    ]


# --- requests of workers --------------------------------------------------------------------------


def test_worker_gets_the_reports_of_all() -> None:
    supervisor = Supervisor()
    body = {"id": 5, "method": "reports", "arguments": {}}
    assert supervisor.hear(100, REQUEST, body)
    supervisor.deliver()
    ((key, answer),) = supervisor.answers
    assert (key, answer["id"]) == (100, 5)
    assert [one["workers"].keys() for one in answer["result"]["reports"]] == [{"0", "1"}] * 2


def test_worker_changes_all() -> None:
    supervisor = Supervisor()
    arguments: Any = {"id": "a", "by": "127.0.0.1"}
    supervisor.hear(100, REQUEST, {"id": 4, "method": "pause", "arguments": arguments})
    supervisor.deliver()
    assert supervisor.worker(1).requests == [("pause", arguments)]
    assert supervisor.answers.pop() == (100, {"id": 4, "result": {}})
    arguments["limit"] = 9
    supervisor.hear(100, REQUEST, {"id": 5, "method": "set_limit", "arguments": arguments})
    assert supervisor.limit == 9
    assert supervisor.answers == [(100, {"id": 5, "result": {}})]


def test_worker_gets_an_error_with_what_it_needs() -> None:
    supervisor = Supervisor()
    arguments = {"id": "x", "by": "127.0.0.1"}
    supervisor.hear(100, REQUEST, {"id": 5, "method": "drain", "arguments": arguments})
    assert supervisor.answers == [
        (100, {"id": 5, "error": {"kind": "unknown-listener", "id": "x"}})
    ]


def test_worker_has_a_bound_on_its_requests() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    for id in range(100):
        supervisor.hear(100, REQUEST, {"id": id, "method": "reports", "arguments": {}})
    supervisor.deliver()
    refused = [answer for _, answer in supervisor.answers]
    assert [one["id"] for one in refused] == list(range(64, 100))
    assert {one["error"]["message"] for one in refused} == {"too many requests at a time"}
    supervisor.worker(1).wake()
    assert len(supervisor.answers) == 100
    supervisor.hear(100, REQUEST, {"id": 100, "method": "server", "arguments": {}})
    assert supervisor.answers[-1][1]["result"]["reload-succeeded"] is True


def test_worker_that_has_ended_gets_no_answer() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    supervisor.hear(100, REQUEST, {"id": 5, "method": "reports", "arguments": {}})
    supervisor.worker(0).full = True  # as its channel looks when it is closed
    supervisor.control.remove(100)
    supervisor.worker(1).wake()
    assert supervisor.answers == []


def test_process_that_does_not_serve_yet_is_told_so() -> None:
    supervisor = Supervisor()
    supervisor.control.remove(100)
    supervisor.hear(100, REQUEST, {"id": 5, "method": "reports", "arguments": {}})
    assert supervisor.answers[0][1]["error"]["message"] == "the worker does not serve yet"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": 1},
        {"id": -1, "method": "reports", "arguments": {}},
        {"id": 1, "method": [], "arguments": {}},
        {"id": 1, "method": "reports"},
        {"id": 1, "method": "_change", "arguments": {"id": "a", "by": "x"}},
        {"id": 1, "method": "report", "arguments": {}},
        {"id": 1, "method": "pause", "arguments": {"id": "a"}},
        {"id": 1, "method": "pause", "arguments": {"id": "a", "by": "\ud800"}},
        {"id": 1, "method": "set_limit", "arguments": {"id": "a", "by": "x", "limit": "9"}},
        {"id": 1, "method": "set_limit", "arguments": {"id": "a", "by": "x", "limit": True}},
    ],
    ids=str,
)
def test_bad_request_of_a_worker_is_an_error(body: Any) -> None:
    supervisor = Supervisor()
    with pytest.raises(BadMessageError):
        supervisor.hear(100, REQUEST, body)
    assert supervisor.answers == []
    assert supervisor.worker(1).requests == []
