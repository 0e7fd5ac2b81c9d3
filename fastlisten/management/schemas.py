"""What a listener is in JSON: the value, and the JSON Schema that says what each key means.

Rules of this file: both stand side by side, and a test holds one against the other. Keys are
written as in the configuration, with hyphens.
"""

from __future__ import annotations

import errno
from typing import Any

from fastlisten.handlers.smtp.engine.counts import Counts
from fastlisten.runtime.control import MAX_LIMIT, ListenerReport
from fastlisten.runtime.listener import State

__all__ = ["SCHEMAS", "errno_name", "listener_json"]


def errno_name(number: int) -> str:
    """Return the name of an errno: ``EMFILE``; ``other`` for 0, the rest that is not told apart."""
    return errno.errorcode.get(number, str(number)) if number else "other"


def listener_json(report: ListenerReport) -> dict[str, Any]:
    """Return the JSON value of a report, as the schema ``Listener`` says."""
    return {
        "id": report.id,
        "protocol": report.protocol,
        "state": report.state.value,
        "accepting": report.accepting,
        "addresses": list(report.addresses),
        "connections": report.held,
        "limit": report.limit,
        "limit-action": report.limit_action,
        "accepted": report.accepted,
        "refused": dict(report.refused),
        "accept-errors": {
            errno_name(number): count for number, count in report.accept_errors.items()
        },
        "tls-handshake-failures": report.handshake_failures,
        "timed-out": report.timed_out,
        "mail": _mail_json(report.mail or Counts()),
    }


def _mail_json(counts: Counts) -> dict[str, Any]:
    return {
        "messages": dict(counts.messages),
        "bytes": counts.octets,
        "rejections": _by_reason(counts, "5xx"),
        "deferrals": _by_reason(counts, "4xx"),
        "logins": dict(counts.logins),
        "sessions-ended": dict(counts.ends),
    }


def _by_reason(counts: Counts, of: str) -> dict[str, int]:
    return {reason: count for (kind, reason), count in counts.rejections.items() if kind == of}


def _object(text: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": text,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _string(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": text, **more}


def _count(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, "description": text, **more}


def _counts(text: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": text,
        "additionalProperties": {"type": "integer", "minimum": 1},
    }


_MAIL = _object(
    "What was counted of a listener's mail since the start. What has not occurred is left out.",
    {
        "messages": _counts("By result: accepted, rejected, deferred."),
        "bytes": _count("Of the accepted ones."),
        "rejections": _counts("Replies 5xx, by reason."),
        "deferrals": _counts("Replies 4xx, by reason."),
        "logins": _counts("By result: succeeded, failed, deferred."),
        "sessions-ended": _counts("By reason."),
    },
)

_STATE = _string(
    "listening: accepts. full: no place is left, clients wait in the backlog. paused: accepts "
    "nothing until resumed. draining: accepts nothing any more, busy connections may finish. "
    "closed: nothing is left; only a restart brings it back.",
    enum=[state.value for state in State],
)

_LISTENER = _object(
    "A listener as it is now. Counters begin at the start of the server.",
    {
        "id": _string("As the configuration names it: [server.listener.<id>]."),
        "protocol": _string("In lower case."),
        "state": _STATE,
        "accepting": {
            "type": "boolean",
            "description": "Every address accepts, or would if a place were free.",
        },
        "addresses": {
            "type": "array",
            "items": {"type": "string"},
            "description": "What it is bound to, with the ports that the kernel chose: "
            "127.0.0.1:25, [::]:25, unix:/run/lmtp.",
        },
        "connections": _count("In flight, from accept to close, over all workers."),
        "limit": _count("The most that may be in flight: max-connections.", maximum=MAX_LIMIT),
        "limit-action": _string(
            "What happens to clients beyond the limit.", enum=["refuse", "wait"]
        ),
        "accepted": _count("Connections accepted."),
        "refused": _object(
            "Connections refused, by reason.",
            {
                "limit": _count("Because the limit was reached."),
                "overload": _count("Because the process had no descriptor left."),
            },
        ),
        "accept-errors": {
            "type": "object",
            "description": "Failures of accept(2), by the name of the errno.",
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
        "tls-handshake-failures": _count("TLS handshakes that failed."),
        "timed-out": _count("Connections closed for silence."),
        "mail": {"$ref": "#/components/schemas/Mail"},
    },
)

#: The schemas of the document's components, by name.
SCHEMAS: dict[str, dict[str, Any]] = {
    "Listener": _LISTENER,
    "Mail": _MAIL,
    "Listeners": _object(
        "All listeners, in order of id.",
        {"listeners": {"type": "array", "items": {"$ref": "#/components/schemas/Listener"}}},
    ),
    "Alive": _object("The server answers.", {"status": _string("", const="alive")}),
    "Readiness": _object(
        "Whether clients can be sent here.",
        {
            "status": _string("", enum=["ready", "unready"]),
            "not-accepting": {
                "type": "array",
                "description": "The listeners because of which it is unready.",
                "items": _object("", {"id": _string("Of the listener."), "state": _STATE}),
            },
        },
    ),
    "Limit": _object(
        "A new limit; it holds until the next start.",
        {
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_LIMIT,
                "description": "The most connections that may be in flight.",
            }
        },
    ),
    "Problem": _object(
        "Why a request was refused (RFC 9457).",
        {
            "title": _string("The status in words."),
            "status": {"type": "integer", "minimum": 400, "maximum": 499},
            "detail": _string("What is wrong with this request, for a person."),
        },
    ),
}
