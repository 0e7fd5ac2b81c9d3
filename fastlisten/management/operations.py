"""What can be asked over HTTP: one table that both the router and the OpenAPI document read.

Rules of this file: data, and the document made from it. What an operation does is in app.py,
under the same name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fastlisten.management.responses import JSON, PROBLEM
from fastlisten.management.schemas import SCHEMAS

__all__ = ["OPERATIONS", "Operation", "openapi"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked for.

    Attributes:
        name: of the method that does it, and its operationId.
        method: of HTTP; what answers GET answers HEAD.
        path: segments in braces stand for any segment, percent-encoded.
        text: a sentence on what it does.
        gives: a sentence on the answer 200.
        schema: of the answer's JSON, empty for other media types.
        media: media types of the answer 200.
        unready: it may answer 503, in the form of 200.
        takes: the schema of the body that it needs, empty if it takes none.
        ends_access: it may leave the listener that answers without new connections, so that it
            must be asked for twice there.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    text: str
    gives: str
    schema: str = ""
    media: tuple[str, ...] = (JSON,)
    unready: bool = False
    takes: str = ""
    ends_access: bool = False

    @property
    def changes(self) -> bool:
        """It changes something, and needs the token."""
        return self.method == "POST"

    @property
    def of_listener(self) -> bool:
        """It is about one listener, whose id is in the path."""
        return "{id}" in self.path


#: In words and not as a parameter, so that no program which tries out all parameters locks itself
#: out.
_MYSELF = "The listener that answers is left alone (409) unless the query is self=yes."

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "page", "GET", "/", "A page that shows all listeners.", "The page.", media=("text/html",)
    ),
    Operation(
        "live",
        "GET",
        "/healthz/live",
        "Does the server answer? What does not should be restarted.",
        "It does.",
        "Alive",
    ),
    Operation(
        "readiness",
        "GET",
        "/healthz/ready",
        "Does every listener accept? A listener that is full and lets clients wait counts as "
        "accepting; one that is paused or drained does not, although somebody wanted it so.",
        "Every listener accepts.",
        "Readiness",
        unready=True,
    ),
    Operation(
        "metrics",
        "GET",
        "/metrics",
        "Counters for Prometheus: its text format, or OpenMetrics if the header Accept prefers it.",
        "The metrics.",
        media=("text/plain", "application/openmetrics-text"),
    ),
    Operation("openapi", "GET", "/openapi.json", "This document.", "The document.", "Document"),
    Operation(
        "listeners", "GET", "/api/listeners", "All listeners.", "The listeners.", "Listeners"
    ),
    Operation(
        "listener", "GET", "/api/listeners/{id}", "One listener.", "The listener.", "Listener"
    ),
    Operation(
        "pause",
        "POST",
        "/api/listeners/{id}/pause",
        "Accept no more until resumed: clients wait in the backlog, connections go on. A listener "
        f"that is paused already stays so. {_MYSELF}",
        "The listener, paused.",
        "Listener",
        ends_access=True,
    ),
    Operation(
        "resume",
        "POST",
        "/api/listeners/{id}/resume",
        "Accept again. A listener that was not paused goes on as it was.",
        "The listener, accepting.",
        "Listener",
    ),
    Operation(
        "drain",
        "POST",
        "/api/listeners/{id}/drain",
        "Close for good: idle clients hear a farewell, busy ones may finish within "
        f"server.shutdown-timeout. Only a restart brings the listener back. {_MYSELF}",
        "The listener, draining or closed.",
        "Listener",
        ends_access=True,
    ),
    Operation(
        "limit",
        "POST",
        "/api/listeners/{id}/limit",
        "Change max-connections until the next start. Connections beyond a smaller limit go on.",
        "The listener with its new limit.",
        "Listener",
        takes="Limit",
    ),
)

_PROBLEMS = {
    400: "The request is malformed: no or several Host, a body where none is taken, a body that "
    "is no JSON.",
    401: "The token is missing or wrong.",
    403: "The header Host names another server, or another site's page asks.",
    404: "There is no listener of this id, or nothing at this path.",
    405: "Another method was used than the header Allow names.",
    409: "The listener is draining or closed, and only a restart brings it back; or it is the one "
    "that answers, and nobody could ask for it any more.",
    413: "The body is too large.",
    415: "The body is not declared as application/json.",
    422: "The body is JSON, but not of the form that is needed.",
}

_HEADERS = {
    401: ("WWW-Authenticate", "What is needed: Bearer (RFC 6750)."),
    405: ("Allow", "The methods that are known here."),
}


def _problem(status: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "description": _PROBLEMS[status],
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in _HEADERS:
        name, text = _HEADERS[status]
        made["headers"] = {
            name: {"description": text, "required": True, "schema": {"type": "string"}}
        }
    return made


def _responses(operation: Operation) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if operation.schema:
        schema = {"$ref": f"#/components/schemas/{operation.schema}"}
    content = {kind: {"schema": schema} for kind in operation.media}
    responses: dict[str, Any] = {"200": {"description": operation.gives, "content": content}}
    if operation.unready:
        responses["503"] = {"description": "Some listener does not accept.", "content": content}
    problems = [400, 401, 403, 405]
    if operation.of_listener:
        problems.append(404)
    if operation.changes:
        problems.append(409)
    if operation.takes:
        problems += (413, 415, 422)
    for status in sorted(problems):
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return responses


def _operation(operation: Operation) -> dict[str, Any]:
    token: list[dict[str, list[str]]] = [{"token": []}]
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.text,
        # The empty requirement: without the token too, from loopback.
        "security": token if operation.changes else [{}, *token],
        "responses": _responses(operation),
    }
    if operation.of_listener:
        made["parameters"] = [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": "Of the listener. Any character may be in it, percent-encoded: "
                "a slash is %2F.",
                "schema": {"type": "string"},
            }
        ]
    if operation.takes:
        schema = {"$ref": f"#/components/schemas/{operation.takes}"}
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return made


def openapi(version: str) -> dict[str, Any]:
    """Return the OpenAPI document of a version of the package."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fastlisten management",
            "version": version,
            "description": "Health, metrics and control of a running server. Reading is free on "
            "loopback and on Unix sockets and needs the token from elsewhere; a change always "
            "needs it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, "Document": {"type": "object", "description": "OpenAPI 3.1."}},
            "responses": {str(status): _problem(status) for status in _PROBLEMS},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The content of management.token in the data directory.",
                }
            },
        },
    }
