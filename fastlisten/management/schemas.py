"""The JSON Schemas of what the management API responds with.

Rules of this file: schemas only. The values of listeners are made in runtime/report_json.py; a test
compares the two.
"""

from __future__ import annotations

from typing import Any

from fastlisten.runtime.control import MAX_LIMIT
from fastlisten.runtime.listener import State

__all__ = ["SCHEMAS"]


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
    "Counters of a listener's mail since the server started. Those that are zero are left out.",
    {
        "messages": _counts("Messages by result: accepted, rejected, deferred."),
        "bytes": _count("Bytes of the accepted messages."),
        "rejections": _counts("5xx replies by reason."),
        "deferrals": _counts("4xx replies by reason."),
        "logins": _counts("Logins by result: succeeded, failed, deferred."),
        "sessions-ended": _counts("Ended sessions by reason."),
    },
)

_STATE = _string(
    "listening: accepts connections. full: the limit is reached, clients wait in the backlog. "
    "total-full: they wait because server.total-connections is reached. "
    "paused: accepts nothing until it is resumed. draining: accepts nothing more, busy connections "
    "may finish. closed: only a stop and a start of the server bring it back.",
    enum=[state.value for state in State],
)

_LISTENER = _object(
    "A listener as it is now. Counters start at zero with the server.",
    {
        "id": _string("The id in the configuration: [server.listener.<id>]."),
        "protocol": _string("In lower case."),
        "state": _STATE,
        "accepting": {
            "type": "boolean",
            "description": "Every address accepts connections, or would if the limit were not "
            "reached.",
        },
        "addresses": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The bound addresses, with the ports that the kernel chose: "
            "127.0.0.1:25, [::]:25, unix:/run/lmtp.",
        },
        "connections": _count("Open connections, from accept to close, over all workers."),
        "limit": _count(
            "The most connections that may be open: max-connections.", maximum=MAX_LIMIT
        ),
        "limit-action": _string(
            "What happens to clients above the limit.", enum=["refuse", "wait"]
        ),
        "accepted": _count("Accepted connections."),
        "refused": _object(
            "Refused connections by reason.",
            {
                "limit": _count("Because the limit was reached."),
                "total": _count("Because server.total-connections was reached."),
                "overload": _count("Because the process had no descriptors left."),
            },
        ),
        "accept-errors": {
            "type": "object",
            "description": "Failures of accept(2) by the name of the errno.",
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
        "tls-handshake-failures": _count("Failed TLS handshakes."),
        "timed-out": _count("Connections closed because a timeout expired."),
        "stale-workers": {
            "type": "array",
            "items": _count("The number of a worker."),
            "description": "Workers that did not report in time; what they had counted before is "
            "included.",
        },
        "mail": {"$ref": "#/components/schemas/Mail"},
    },
)

#: The schemas in the OpenAPI document, by name.
SCHEMAS: dict[str, dict[str, Any]] = {
    "Listener": _LISTENER,
    "Mail": _MAIL,
    "Listeners": _object(
        "All listeners, in order of id.",
        {"listeners": {"type": "array", "items": {"$ref": "#/components/schemas/Listener"}}},
    ),
    "Alive": _object("The server responds.", {"status": _string("", const="alive")}),
    "Readiness": _object(
        "Whether clients can be sent here.",
        {
            "status": _string("", enum=["ready", "unready"]),
            "not-accepting": {
                "type": "array",
                "description": "The listeners that do not accept connections.",
                "items": _object("", {"id": _string("The id of the listener."), "state": _STATE}),
            },
        },
    ),
    "Limit": _object(
        "A new limit; it holds until the server stops or a reload brings another.",
        {
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_LIMIT,
                "description": "The most connections that may be open.",
            }
        },
    ),
    "Problem": _object(
        "Why a request was refused, or could not be carried out (RFC 9457).",
        {
            "title": _string("The status in words."),
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": _string("What is wrong with this request, for people."),
        },
    ),
}
