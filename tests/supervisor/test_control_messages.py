"""Reports and errors as messages: what is encoded is decoded unchanged, and nothing else is.

Rules of this file: every value goes through JSON, as in a channel.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlisten.errors import FastlistenError
from fastlisten.mail.counts import Counts
from fastlisten.runtime.control import (
    ImpossibleError,
    NoAnswerError,
    UnfinishedError,
    UnknownListenerError,
)
from fastlisten.runtime.listener import State
from fastlisten.runtime.reports import Counters, ListenerReport, Readiness, ServerReport
from fastlisten.runtime.supervisor.channel import BadMessageError
from fastlisten.runtime.supervisor.control_messages import (
    decode_error,
    decode_readiness,
    decode_reports,
    decode_server,
    encode_error,
    encode_readiness,
    encode_reports,
    encode_server,
    lines_in,
)


def passed(value: Any) -> Any:
    """Return a value as it arrives."""
    return json.loads(json.dumps(value, allow_nan=False))


def mail() -> Counts:
    counts = Counts()
    counts.message("accepted", 100)
    counts.message("deferred")
    counts.rejection(b"550 5.1.1 no\r\n", "unknown-recipient", 3)
    counts.login("failed")
    counts.relayed("recipient", b"450 later")
    counts.ended("quit")
    counts.delivery(0.3)
    return counts


FULL = ListenerReport(
    "smtp \u20ac",
    "smtp",
    State.PAUSED,
    False,
    ("127.0.0.1:25", "[::]:25"),
    7,
    100,
    "wait",
    {0: Counters(3, 10, {"limit": 1, "total": 0, "overload": 2}, {24: 2, 0: 1}, 4, 5, mail())},
    (1, 4),
)

EMPTY = ListenerReport(
    "http",
    "http",
    State.LISTENING,
    True,
    (),
    0,
    1,
    "refuse",
    {12: Counters(0, 0, {"limit": 0, "total": 0, "overload": 0}, {}, 0, 0, None)},
)


def comparable(report: ListenerReport) -> Any:
    """Return a report in a form that compares the counts of mail, too."""
    counts = [one.mail for one in report.workers.values()]
    names = Counts.__slots__
    return repr(report).partition("mail=")[0], [
        None if one is None else [getattr(one, name) for name in names] for one in counts
    ]


def test_reports_arrive_unchanged() -> None:
    found = decode_reports(passed(encode_reports([FULL, EMPTY])))
    assert [comparable(one) for one in found] == [comparable(FULL), comparable(EMPTY)]
    assert found[1] == EMPTY
    assert found[0].stale == (1, 4)


def test_counters_that_are_zero_take_no_space() -> None:
    assert encode_reports([EMPTY])[0]["workers"] == {"12": {}}


def test_report_on_the_server_arrives_unchanged() -> None:
    report = ServerReport({0: 0, 3: 2}, False, {"smtp": {"": 1e9, "other": 2.5}, "http": {}}, (3,))
    assert decode_server(passed(encode_server(report))) == report


@pytest.mark.parametrize(
    "readiness", [Readiness(True), Readiness(False, (("a", State.PAUSED), ("b", State.CLOSED)))]
)
def test_readiness_arrives_unchanged(readiness: Readiness) -> None:
    assert decode_readiness(passed(encode_readiness(readiness))) == readiness


@pytest.mark.parametrize(
    "error",
    [
        UnknownListenerError("it"),
        ImpossibleError("it", State.DRAINING, "paused"),
        UnfinishedError("it", "paused", (0, 3)),
        NoAnswerError("no worker is running"),
        ValueError("out of range"),
        FastlistenError("something else"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_arrives_unchanged(error: Exception) -> None:
    found = decode_error(passed(encode_error(error)))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


def test_unexpected_error_arrives_with_its_text() -> None:
    found = decode_error(passed(encode_error(KeyError("it"))))
    assert type(found) is FastlistenError
    assert str(found) == "'it'"


# --- what a worker that was taken over may send ---------------------------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to everything in a JSON value."""
    found = [path]
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            found += places(value[index], (*path, index))
    return found


def with_other(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """Return a JSON value in which one place holds something else."""
    if not path:
        return other
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other
    return changed


#: What may stand where everything may be left out.
ALLOWED: dict[object, tuple[Any, ...]] = {
    "mail": (None, {"a": []}),
    "durations": (None,),
    "0": ({"a": []},),
}

Decode = Callable[[object], object]
GOOD: list[tuple[Decode, Any]] = [
    (decode_reports, passed(encode_reports([FULL]))),
    (
        decode_server,
        passed(encode_server(ServerReport({0: 1}, True, {"smtp": {"": 1.5}}, (1,)))),
    ),
    (decode_readiness, passed(encode_readiness(Readiness(False, (("a", State.PAUSED),))))),
    (decode_error, passed(encode_error(UnfinishedError("it", "paused", (0, 3))))),
    (decode_error, passed(encode_error(ImpossibleError("it", State.CLOSED, "paused")))),
]


@pytest.mark.parametrize(("decode", "good"), GOOD)
@pytest.mark.parametrize("other", [None, -1, 2**64, [[]], {"a": []}, "\ud800"], ids=str)
def test_wrong_value_anywhere_is_refused(decode: Decode, good: Any, other: Any) -> None:
    """Of these values none is right in any place, with few exceptions."""
    for path in places(good):
        if path and other in ALLOWED.get(path[-1], ()):
            continue
        with pytest.raises(BadMessageError):
            decode(with_other(good, path, other))


@pytest.mark.parametrize("number", ["-1", "x", "", "1" * 11, "\u0663"])
def test_number_of_a_worker_that_is_none(number: str) -> None:
    report = encode_reports([EMPTY])
    report[0]["workers"] = {number: {}}
    with pytest.raises(BadMessageError):
        decode_reports(report)


@pytest.mark.parametrize("seconds", [10**5000, 1e308, float("nan"), True, "1"], ids=range(5))
def test_seconds_that_are_none(seconds: object) -> None:
    report = encode_reports([FULL])
    report[0]["workers"]["0"]["mail"]["seconds"] = seconds
    with pytest.raises(BadMessageError):
        decode_reports(report)


@pytest.mark.parametrize("name", ["self", "logger", "level", "event", "text"])
def test_fields_of_a_line_are_no_arguments_of_log(name: str) -> None:
    line = ["text", "listening", {"address": "192.0.2.1:25"}]
    assert lines_in([line]) == [tuple(line)]
    with pytest.raises(BadMessageError):
        lines_in([["text", "listening", {name: "192.0.2.1:25"}]])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON, st.data())
def test_anything_else_is_refused_or_decoded(value: Any, data: st.DataObject) -> None:
    decode, good = data.draw(st.sampled_from(GOOD))
    path = data.draw(st.sampled_from(places(good)))
    with contextlib.suppress(BadMessageError):
        decode(with_other(good, path, value))
