"""Reports over all workers: sums, workers that do not answer, workers that end or were taken over.

Rules of this file: workers are scripted, time passes when the test says so.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.scripted_workers import Supervisor

from fastlisten.runtime.control import NoAnswerError, UnknownListenerError
from fastlisten.runtime.listener import State
from fastlisten.runtime.reports import ListenerReport, Readiness
from fastlisten.runtime.supervisor.channel import BadMessageError
from fastlisten.runtime.supervisor.control_messages import decode_reports, encode_reports
from fastlisten.runtime.supervisor.supervisor_control import REPORT_SECONDS
from fastlisten.runtime.supervisor.worker_requests import ANSWER


def accepted(report: ListenerReport) -> dict[int, int]:
    return {number: counters.accepted for number, counters in report.workers.items()}


def test_reports_have_every_worker_and_their_sum() -> None:
    supervisor = Supervisor(workers=3)
    for number in range(3):
        supervisor.worker(number).accepted = 10**number
    first, second = supervisor.result(supervisor.control.reports)
    assert (first.id, second.id) == ("a", "b")
    assert accepted(first) == {0: 1, 1: 10, 2: 100}
    assert first.total.accepted == 111
    assert first.total.connections == 6
    assert first.total.refused == {"limit": 3, "total": 0, "overload": 0}
    assert first.total.accept_errors == {24: 3}
    assert first.total.mail is not None
    assert first.total.mail.messages == {"accepted": 3}
    # Places and limit are those of all workers together, in every worker's report.
    assert (first.held, first.limit, first.stale) == (5, 100, ())
    assert (first.state, first.accepting, first.addresses) == (State.LISTENING, True, ("a:25",))


def test_report_on_one_listener_asks_for_no_other() -> None:
    supervisor = Supervisor()
    supervisor.result(supervisor.control.reports)
    for worker in supervisor.workers.values():
        worker.accepted = 7
    report = supervisor.result(lambda: supervisor.control.report("b"))
    assert (report.id, accepted(report)) == ("b", {0: 7, 1: 7})
    supervisor.worker(0).hung = supervisor.worker(1).hung = True
    first, second = supervisor.result(supervisor.control.reports, after=REPORT_SECONDS)
    assert (accepted(first), accepted(second)) == ({0: 1, 1: 1}, {0: 7, 1: 7})


def test_listener_that_is_not_configured() -> None:
    supervisor = Supervisor()
    with pytest.raises(UnknownListenerError, match='"c"'):
        supervisor.result(lambda: supervisor.control.report("c"))
    # Nor does a worker add one.
    supervisor.worker(0).states["c"] = State.LISTENING
    assert [one.id for one in supervisor.result(supervisor.control.reports)] == ["a", "b"]


def test_hung_worker_delays_one_report_and_its_last_values_stand_in() -> None:
    supervisor = Supervisor()
    supervisor.result(supervisor.control.reports)
    for worker in supervisor.workers.values():
        worker.accepted = 50
    supervisor.worker(1).hung = True
    first, _ = supervisor.result(supervisor.control.reports, after=REPORT_SECONDS)
    assert (accepted(first), first.stale) == ({0: 50, 1: 1}, (1,))
    # From now on nobody waits for it, and its channel does not fill up.
    for _ in range(20):
        first, _ = supervisor.result(supervisor.control.reports)
    assert first.stale == (1,)
    assert supervisor.worker(1).asked == 2
    assert supervisor.result(supervisor.control.server).stale == (1,)
    # Its late answer counts, and it is asked again.
    supervisor.worker(1).wake()
    assert supervisor.result(supervisor.control.server).stale == ()
    supervisor.worker(1).accepted = 60
    first, _ = supervisor.result(supervisor.control.reports)
    assert (accepted(first), first.stale) == ({0: 50, 1: 60}, ())


def test_worker_that_lost_its_answer_is_asked_again() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    supervisor.result(supervisor.control.reports, after=REPORT_SECONDS)
    supervisor.worker(1).hung = False
    supervisor.worker(1).unread.clear()
    assert supervisor.result(supervisor.control.reports)[0].stale == (1,)
    supervisor.pass_time(10)
    assert supervisor.result(supervisor.control.reports)[0].stale == ()


def test_worker_that_hangs_from_the_start_has_no_values() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    first, _ = supervisor.result(supervisor.control.reports, after=REPORT_SECONDS)
    assert (accepted(first), first.stale) == ({0: 1}, (1,))


def test_worker_with_a_full_channel_delays_nothing() -> None:
    supervisor = Supervisor()
    supervisor.result(supervisor.control.reports)
    supervisor.worker(1).full = True
    first, _ = supervisor.result(supervisor.control.reports)
    assert (accepted(first), first.stale) == ({0: 1, 1: 1}, (1,))


def test_all_workers_hung() -> None:
    supervisor = Supervisor()
    supervisor.result(supervisor.control.reports)
    for worker in supervisor.workers.values():
        worker.hung = True
    first, _ = supervisor.result(supervisor.control.reports, after=REPORT_SECONDS)
    assert (accepted(first), first.stale) == ({0: 1, 1: 1}, (0, 1))


def test_reports_at_the_same_time_ask_each_worker_once() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    first, second = (supervisor.begin(supervisor.control.reports()) for _ in range(2))
    assert supervisor.worker(1).asked == 1
    supervisor.worker(1).wake()
    assert accepted(first.result()[0]) == accepted(second.result()[0]) == {0: 1, 1: 1}
    supervisor.result(supervisor.control.reports)
    assert supervisor.worker(1).asked == 2


def test_report_after_a_change_is_not_an_older_one() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    supervisor.begin(supervisor.control.reports())
    change = supervisor.begin(supervisor.control.pause("a", "me"))
    newer = supervisor.begin(supervisor.control.reports())
    supervisor.worker(1).wake()
    change.result()
    assert newer.result()[0].state is State.PAUSED


# --- states ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "state", "accepting"),
    [
        ((State.LISTENING, State.LISTENING), State.LISTENING, True),
        ((State.LISTENING, State.FULL), State.LISTENING, True),
        ((State.FULL, State.FULL), State.FULL, True),
        ((State.PAUSED, State.LISTENING), State.PAUSED, False),
        ((State.DRAINING, State.CLOSED), State.DRAINING, False),
        ((State.CLOSED, State.CLOSED), State.CLOSED, False),
    ],
)
def test_state_over_workers(states: tuple[State, State], state: State, accepting: bool) -> None:
    supervisor = Supervisor()
    for number, one in enumerate(states):
        supervisor.worker(number).states["a"] = one
    report = supervisor.result(supervisor.control.reports)[0]
    assert (report.state, report.accepting) == (state, accepting)
    readiness = supervisor.result(supervisor.control.readiness)
    assert readiness == Readiness(accepting, () if accepting else (("a", state),))


@pytest.mark.parametrize("state", State)
def test_state_that_all_workers_have(state: State) -> None:
    supervisor = Supervisor()
    for worker in supervisor.workers.values():
        worker.states["a"] = state
    assert supervisor.result(supervisor.control.reports)[0].state is state


def test_state_is_that_of_the_workers_that_answer_and_serve() -> None:
    supervisor = Supervisor(workers=3)
    supervisor.worker(1).states["a"] = State.PAUSED
    supervisor.result(supervisor.control.reports)
    supervisor.worker(1).hung = True
    supervisor.worker(2).states["a"] = State.DRAINING
    supervisor.control.retire(supervisor.worker(2).key)
    report = supervisor.result(supervisor.control.reports, after=REPORT_SECONDS)[0]
    assert report.state is State.LISTENING
    assert accepted(report) == {0: 1, 1: 1, 2: 1}
    assert supervisor.result(supervisor.control.readiness) == Readiness(True)


def test_no_worker_is_running() -> None:
    supervisor = Supervisor(workers=0)
    for call in (supervisor.control.reports, supervisor.control.readiness):
        with pytest.raises(NoAnswerError, match="no worker is running"):
            supervisor.result(call)
    assert supervisor.result(supervisor.control.server) == supervisor.server


# --- workers that end -----------------------------------------------------------------------------


def test_what_an_ended_worker_has_counted_still_counts() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).accepted = 30
    supervisor.result(supervisor.control.reports)
    supervisor.control.remove(supervisor.worker(1).key)
    first, _ = supervisor.result(supervisor.control.reports)
    assert accepted(first) == {0: 1, 1: 30}
    assert first.workers[1].connections == 0
    again = supervisor.start(1)
    again.accepted = 4
    first, _ = supervisor.result(supervisor.control.reports)
    assert accepted(first) == {0: 1, 1: 34}
    assert first.workers[1].connections == 2
    supervisor.control.remove(again.key)
    assert accepted(supervisor.result(supervisor.control.reports)[0]) == {0: 1, 1: 34}


def test_draining_worker_counts_beside_the_one_that_replaces_it() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).accepted = 30
    supervisor.control.retire(supervisor.worker(1).key)
    supervisor.start(1).accepted = 4
    assert accepted(supervisor.result(supervisor.control.reports)[0]) == {0: 1, 1: 34}


def test_worker_that_ends_while_it_is_waited_for() -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    outcome = supervisor.begin(supervisor.control.reports())
    supervisor.control.remove(supervisor.worker(1).key)
    assert accepted(outcome.result()[0]) == {0: 1}
    assert outcome.result()[0].stale == ()


# --- hostile workers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "result",
    [
        {"reports": 5, "all": True},
        {"reports": [{}], "all": True},
        {"reports": [None]},
        "of another worker",
    ],
    ids=str,
)
def test_bad_report_is_an_error_and_changes_nothing(result: Any) -> None:
    supervisor = Supervisor()
    supervisor.result(supervisor.control.reports)
    if result == "of another worker":
        result = {"reports": encode_reports([supervisor.worker(1).report("a")])}
    with pytest.raises(BadMessageError):
        supervisor.hear(supervisor.worker(0).key, ANSWER, {"id": 1, "result": result})
    assert accepted(supervisor.result(supervisor.control.reports)[0]) == {0: 1, 1: 1}


@pytest.mark.parametrize(
    "body", [{}, {"id": None}, {"id": []}, {"id": 10**30}, {"id": -1}], ids=str
)
def test_answer_that_nobody_waits_for_changes_nothing(body: Any) -> None:
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    outcome = supervisor.begin(supervisor.control.reports())
    assert supervisor.hear(supervisor.worker(1).key, ANSWER, body)
    assert supervisor.hear(supervisor.worker(0).key, ANSWER, {"id": 1, "result": {}})
    assert not outcome.done
    assert supervisor.hear(12345, ANSWER, {"id": 1})


def test_messages_of_other_kinds_are_left_alone() -> None:
    assert not Supervisor().hear(100, "ready", {})


def test_body_may_be_any_json() -> None:
    """An answer without a result counts as one without reports."""
    supervisor = Supervisor()
    supervisor.worker(1).hung = True
    outcome = supervisor.begin(supervisor.control.reports())
    id = supervisor.worker(1).unread[0]["id"]
    supervisor.hear(supervisor.worker(1).key, ANSWER, {"id": id, "result": [1]})
    assert accepted(outcome.result()[0]) == {0: 1}


def test_invented_counters_keep_nobody_from_reading_the_sums() -> None:
    supervisor = Supervisor()
    worker = supervisor.worker(1)
    for _ in range(2):
        worker.accepted = 2**64 - 1
        supervisor.result(supervisor.control.reports)
        supervisor.control.remove(worker.key)
        worker = supervisor.start(1)
    found = supervisor.result(supervisor.control.reports)
    assert accepted(found[0]) == {0: 1, 1: 2**65 - 1}
    assert accepted(decode_reports(encode_reports(found))[0]) == {0: 1, 1: 2**64 - 1}
    # Nor the program after an upgrade.
    after = Supervisor()
    after.control.take_over(json.loads(json.dumps(supervisor.control.state())))


def test_worker_cannot_fill_the_memory_with_listeners() -> None:
    supervisor = Supervisor()
    worker = supervisor.worker(1)
    worker.states["c"] = State.LISTENING
    supervisor.result(supervisor.control.reports)
    supervisor.control.remove(worker.key)
    assert supervisor.control.state()["ended"].keys() == {"a", "b"}
    # Those that a reload has removed are forgotten, too.
    supervisor.listeners.remove("b")
    supervisor.control.forget(["b"])
    assert supervisor.control.state()["ended"].keys() == {"a"}
