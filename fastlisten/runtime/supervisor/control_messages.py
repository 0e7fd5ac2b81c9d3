"""Reports and errors in messages: encoded by one process, checked and decoded by another.

Rules of this file: no I/O. A worker may have been taken over, so whatever arrives is either as
described here or a `BadMessageError`. Counters that are zero are left out: with thousands of
listeners most are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from fastlisten.errors import FastlistenError
from fastlisten.mail.counts import DURATIONS, Counts
from fastlisten.runtime.control import (
    ImpossibleError,
    NoAnswerError,
    UnfinishedError,
    UnknownListenerError,
)
from fastlisten.runtime.listener import State
from fastlisten.runtime.reports import Counters, ListenerReport, Readiness, ServerReport
from fastlisten.runtime.supervisor.channel import BadMessageError

__all__ = [
    "Line",
    "count_in",
    "decode_ended",
    "decode_error",
    "decode_readiness",
    "decode_reports",
    "decode_server",
    "encode_counters",
    "encode_error",
    "encode_readiness",
    "encode_reports",
    "encode_server",
    "lines_in",
    "text_in",
]

T = TypeVar("T")

#: A line about what is served: text, event, fields.
Line = tuple[str, str, dict[str, object]]

#: Counters are 64 bits wide. A sum that is wider, because a worker has invented its counters, is
#: encoded as the largest one: nobody could read it otherwise, nor the program after an upgrade.
_MAX_COUNT = 2**64
_LARGEST = _MAX_COUNT - 1

#: What `log` and its like call their own arguments; fields become arguments beside them.
_NOT_FIELDS = frozenset(("self", "logger", "level", "event", "text"))

#: Separates the two parts of a key; no name of a counter has it.
_SEPARATOR = " "


# --- encoding -------------------------------------------------------------------------------------


def encode_reports(reports: Iterable[ListenerReport]) -> list[dict[str, Any]]:
    """Return reports on listeners as JSON values."""
    return [
        {
            "id": one.id,
            "protocol": one.protocol,
            "state": one.state.value,
            "accepting": one.accepting,
            "addresses": list(one.addresses),
            "held": one.held,
            "limit": one.limit,
            "limit-action": one.limit_action,
            "workers": {str(number): encode_counters(part) for number, part in one.workers.items()},
            "stale": list(one.stale),
        }
        for one in reports
    ]


def encode_server(report: ServerReport) -> dict[str, Any]:
    """Return the report on the server as a JSON value."""
    return {
        "restarts": {str(number): count for number, count in report.worker_restarts.items()},
        "reload-succeeded": report.reload_succeeded,
        "expiry": {
            id: {name: max(0.0, end) for name, end in ends.items()}
            for id, ends in report.certificate_expiry.items()
        },
        "stale": list(report.stale),
    }


def encode_readiness(readiness: Readiness) -> dict[str, Any]:
    """Return readiness as a JSON value."""
    missing = [[id, state.value] for id, state in readiness.not_accepting]
    return {"ready": readiness.ready, "not-accepting": missing}


def encode_error(error: Exception) -> dict[str, Any]:
    """Return an error of a `Control` as a JSON value."""
    match error:
        case UnknownListenerError():
            return {"kind": "unknown-listener", "id": error.id}
        case ImpossibleError():
            state = error.state.value
            return {"kind": "impossible", "id": error.id, "state": state, "wanted": error.wanted}
        case UnfinishedError():
            workers = list(error.workers)
            return {
                "kind": "unfinished",
                "id": error.id,
                "wanted": error.wanted,
                "workers": workers,
            }
        case NoAnswerError():
            return {"kind": "no-answer", "message": str(error)}
        case ValueError():
            return {"kind": "bad-value", "message": str(error)}
        case _:
            return {"kind": "failed", "message": str(error)}


def encode_counters(counters: Counters) -> dict[str, Any]:
    """Return counters as a JSON value, without those that are zero."""
    value = {
        "connections": min(counters.connections, _LARGEST),
        "accepted": min(counters.accepted, _LARGEST),
        "refused": _nonzero(counters.refused),
        "errors": _nonzero({str(errno): count for errno, count in counters.accept_errors.items()}),
        "handshakes": min(counters.handshake_failures, _LARGEST),
        "timed-out": min(counters.timed_out, _LARGEST),
    }
    value = {key: one for key, one in value.items() if one}
    if counters.mail is not None:
        value["mail"] = _mail(counters.mail)
    return value


def _mail(counts: Counts) -> dict[str, Any]:
    value = {
        "messages": _bounded(counts.messages),
        "octets": min(counts.octets, _LARGEST),
        "rejections": _joined(counts.rejections),
        "logins": _bounded(counts.logins),
        "relay": _joined(counts.relay),
        "ends": _bounded(counts.ends),
        "durations": [min(one, _LARGEST) for one in counts.durations]
        if any(counts.durations)
        else [],
        # The next float would be _MAX_COUNT.
        "seconds": min(counts.seconds, math.nextafter(_MAX_COUNT, 0)),
    }
    return {key: one for key, one in value.items() if one}


def _joined(counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return _bounded({_SEPARATOR.join(key): count for key, count in counts.items()})


def _bounded(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: min(count, _LARGEST) for key, count in counts.items()}


def _nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: count for key, count in _bounded(counts).items() if count}


# --- decoding -------------------------------------------------------------------------------------


def decode_reports(value: object) -> list[ListenerReport]:
    """Return the reports in a JSON value.

    Raises:
        BadMessageError: it has none.
    """
    return [_report(_table(one)) for one in _list(value)]


def decode_server(value: object) -> ServerReport:
    """Return the report on the server in a JSON value.

    Raises:
        BadMessageError: it has none.
    """
    table = _table(value)
    return ServerReport(
        worker_restarts=_by_number(table.get("restarts"), _count),
        reload_succeeded=_flag(table.get("reload-succeeded")),
        certificate_expiry={
            _text(id): {_text(name): _seconds(end) for name, end in _table(ends).items()}
            for id, ends in _table(table.get("expiry")).items()
        },
        stale=tuple(_count(one) for one in _list(table.get("stale"))),
    )


def decode_ended(value: object) -> dict[str, dict[int, Counters]]:
    """Return the counters in a JSON value, by listener and worker.

    Raises:
        BadMessageError: it has none.
    """
    return {
        _text(id): _by_number(of_listener, _decode_counters)
        for id, of_listener in _table(value).items()
    }


def decode_readiness(value: object) -> Readiness:
    """Return the readiness in a JSON value.

    Raises:
        BadMessageError: it has none.
    """
    table = _table(value)
    missing = []
    for one in _list(table.get("not-accepting")):
        pair = _list(one)
        if len(pair) != 2:
            raise BadMessageError("not an id and a state")
        missing.append((_text(pair[0]), _state(pair[1])))
    return Readiness(_flag(table.get("ready")), tuple(missing))


def decode_error(value: object) -> Exception:
    """Return the error in a JSON value, to be raised.

    Raises:
        BadMessageError: it has none.
    """
    table = _table(value)
    match table.get("kind"):
        case "unknown-listener":
            return UnknownListenerError(text_in(table, "id"))
        case "impossible":
            state = _state(table.get("state"))
            return ImpossibleError(text_in(table, "id"), state, text_in(table, "wanted"))
        case "unfinished":
            workers = [_count(one) for one in _list(table.get("workers"))]
            return UnfinishedError(text_in(table, "id"), text_in(table, "wanted"), workers)
        case "no-answer":
            return NoAnswerError(text_in(table, "message"))
        case "bad-value":
            return ValueError(text_in(table, "message"))
        case "failed":
            return FastlistenError(text_in(table, "message"))
    raise BadMessageError("not an error")


def lines_in(value: object) -> list[Line]:
    """Return lines about what a worker serves.

    Raises:
        BadMessageError: they are not lines.
    """
    if not isinstance(value, list):
        raise BadMessageError("lines that are no list")
    found: list[Line] = []
    for line in value:
        if not isinstance(line, list) or len(line) != 3:
            raise BadMessageError("a line that is not one")
        text, event, fields = line
        if not (isinstance(text, str) and isinstance(event, str) and isinstance(fields, dict)):
            raise BadMessageError("a line that is not one")
        if not _NOT_FIELDS.isdisjoint(fields):
            raise BadMessageError("a line with fields that no line has")
        found.append((text, event, fields))
    return found


def text_in(table: Mapping[str, Any], key: str) -> str:
    """Return the text under a key.

    Raises:
        BadMessageError: there is none.
    """
    return _text(table.get(key))


def count_in(table: Mapping[str, Any], key: str) -> int:
    """Return the number under a key, from 0 to 2^64 - 1.

    Raises:
        BadMessageError: there is none.
    """
    return _count(table.get(key))


def _report(table: dict[str, Any]) -> ListenerReport:
    action = table.get("limit-action")
    if action != "refuse" and action != "wait":
        raise BadMessageError("not a limit-action")
    return ListenerReport(
        id=_text(table.get("id")),
        protocol=_text(table.get("protocol")),
        state=_state(table.get("state")),
        accepting=_flag(table.get("accepting")),
        addresses=tuple(_text(one) for one in _list(table.get("addresses"))),
        held=_count(table.get("held")),
        limit=_count(table.get("limit")),
        limit_action=action,
        workers=_by_number(table.get("workers"), _decode_counters),
        stale=tuple(_count(one) for one in _list(table.get("stale"))),
    )


def _decode_counters(value: object) -> Counters:
    table = _table(value)
    mail = table.get("mail")
    return Counters(
        connections=_count(table.get("connections", 0)),
        accepted=_count(table.get("accepted", 0)),
        refused={"limit": 0, "total": 0, "overload": 0, **_counts(table.get("refused", {}))},
        accept_errors=_by_number(table.get("errors", {}), _count),
        handshake_failures=_count(table.get("handshakes", 0)),
        timed_out=_count(table.get("timed-out", 0)),
        mail=None if mail is None else _decode_mail(_table(mail)),
    )


def _decode_mail(table: dict[str, Any]) -> Counts:
    counts = Counts()
    counts.messages = _counts(table.get("messages", {}))
    counts.octets = _count(table.get("octets", 0))
    counts.rejections = _split(table.get("rejections", {}))
    counts.logins = _counts(table.get("logins", {}))
    counts.relay = _split(table.get("relay", {}))
    counts.ends = _counts(table.get("ends", {}))
    durations = table.get("durations")
    if durations is not None:
        counts.durations = [_count(one) for one in _list(durations)]
        if len(counts.durations) != len(DURATIONS) + 1:
            raise BadMessageError("not a histogram")
    counts.seconds = _seconds(table.get("seconds", 0.0))
    return counts


def _split(value: object) -> dict[tuple[str, str], int]:
    found = {}
    for key, count in _counts(value).items():
        first, separator, second = key.partition(_SEPARATOR)
        if not separator:
            raise BadMessageError("not a pair of names")
        found[first, second] = count
    return found


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadMessageError("not an object")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise BadMessageError("not an array")
    return value


def _text(value: object) -> str:
    # A lone surrogate is valid JSON, but cannot be written as UTF-8.
    if not isinstance(value, str) or (not value.isascii() and _has_surrogates(value)):
        raise BadMessageError("not a text")
    return value


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= one <= "\udfff" for one in text)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadMessageError("neither true nor false")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MAX_COUNT:
        raise BadMessageError("not a count")
    return value


def _seconds(value: object) -> float:
    # An integer of thousands of digits is valid JSON, too.
    if (type(value) is not float and type(value) is not int) or not 0 <= value < _MAX_COUNT:
        raise BadMessageError("not a number of seconds")
    return float(value)


def _state(value: object) -> State:
    try:
        return State(value)
    except ValueError:
        raise BadMessageError("not a state") from None


def _counts(value: object) -> dict[str, int]:
    return {_text(key): _count(count) for key, count in _table(value).items()}


def _by_number(value: object, decode: Callable[[object], T]) -> dict[int, T]:
    found = {}
    for key, one in _table(value).items():
        if not key.isascii() or not key.isdigit() or len(key) > 10:
            raise BadMessageError("not a number")
        found[int(key)] = decode(one)
    return found
