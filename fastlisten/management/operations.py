"""The operations of the management API: a table for the router and for the OpenAPI document.

Rules of this file: the table, and the document made from it. The code of an operation is in app.py,
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
    """One operation of the API.

    Attributes:
        name: its operationId, and the method of `Application` that carries it out.
        method: HTTP method; an operation with GET has HEAD too.
        path: a segment in braces stands for any one segment, percent-encoded.
        summary: a sentence on what it does.
        response: a sentence on the response with status 200.
        schema: name of the schema of that response, empty if it is not JSON.
        media_types: of that response.
        unready: it may respond with 503 and the same schema.
        body: name of the schema of the body that it needs, empty if it takes none.
        closes_listener: it stops a listener from accepting; for the listener that the request
            came in at it needs a confirmation.
        needs_workers: it asks all workers, which may not be possible.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    summary: str
    response: str
    schema: str = ""
    media_types: tuple[str, ...] = (JSON,)
    unready: bool = False
    body: str = ""
    closes_listener: bool = False
    needs_workers: bool = True

    @property
    def changes(self) -> bool:
        """True if it changes something, which needs the token."""
        return self.method == "POST"

    @property
    def of_listener(self) -> bool:
        """True if it is about one listener, whose id is in the path."""
        return "{id}" in self.path


#: In words, not as a parameter: a program that tries all parameters must not lock itself out.
_OWN_LISTENER = "For the listener that answers the request: 409, unless the query is self=yes."

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "page",
        "GET",
        "/",
        "A page that shows all listeners.",
        "The page.",
        media_types=("text/html",),
    ),
    Operation(
        "live",
        "GET",
        "/healthz/live",
        "Is the server alive? If it does not respond, it should be restarted.",
        "It is alive.",
        "Alive",
        needs_workers=False,
    ),
    Operation(
        "readiness",
        "GET",
        "/healthz/ready",
        "Does every listener accept connections? One that is full and lets clients wait counts as "
        "accepting; one that is paused or drained does not, even if that was requested.",
        "Every listener accepts connections.",
        "Readiness",
        unready=True,
        needs_workers=False,
    ),
    Operation(
        "metrics",
        "GET",
        "/metrics",
        "Counters in Prometheus's text format, or in OpenMetrics if the Accept header prefers it.",
        "The metrics.",
        media_types=("text/plain", "application/openmetrics-text"),
    ),
    Operation(
        "openapi",
        "GET",
        "/openapi.json",
        "This document.",
        "The document.",
        "Document",
        needs_workers=False,
    ),
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
        "Stop accepting until resumed: new clients wait in the backlog, connections continue. "
        f"Has no effect on a paused listener. {_OWN_LISTENER}",
        "The paused listener.",
        "Listener",
        closes_listener=True,
    ),
    Operation(
        "resume",
        "POST",
        "/api/listeners/{id}/resume",
        "Accept connections again. Has no effect on a listener that is not paused.",
        "The resumed listener.",
        "Listener",
    ),
    Operation(
        "drain",
        "POST",
        "/api/listeners/{id}/drain",
        "Close for good: idle sessions get a farewell, busy ones may finish within "
        "server.shutdown-timeout. Only a stop and a start of the server bring it back. "
        f"{_OWN_LISTENER}",
        "The listener, draining or closed.",
        "Listener",
        closes_listener=True,
    ),
    Operation(
        "limit",
        "POST",
        "/api/listeners/{id}/limit",
        "Change max-connections until the server stops or a reload brings another value. "
        "Connections above a smaller limit continue.",
        "The listener with its new limit.",
        "Listener",
        body="Limit",
    ),
)

_PROBLEMS = {
    400: "The request is malformed: no Host header or several, a body where none is expected, a "
    "body that is not JSON.",
    401: "The token is missing or wrong.",
    403: "The Host header names another server, or another site's page sent the request.",
    404: "No listener has this id, or no such path.",
    405: "The method is not one of those in the Allow header.",
    409: "The listener is draining or closed, and only a stop and a start of the server bring it "
    "back; or it is the one that answers the request and would accept no others.",
    413: "The body is too large.",
    415: "The body is not declared as application/json.",
    422: "The body is JSON, but not what the operation needs.",
    503: "The process that manages the workers does not answer.",
    504: "Not every worker has made the change in time. The others have made it; the detail names "
    "those that have not, which make it as soon as they can.",
}

_HEADERS = {
    401: ("WWW-Authenticate", "The scheme: Bearer (RFC 6750)."),
    405: ("Allow", "The methods of this path."),
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
    content = {kind: {"schema": schema} for kind in operation.media_types}
    responses: dict[str, Any] = {"200": {"description": operation.response, "content": content}}
    if operation.unready:
        responses["503"] = {
            "description": "Some listener does not accept connections.",
            "content": content,
        }
    problems = [400, 401, 403, 405]
    if operation.of_listener:
        problems.append(404)
    if operation.changes:
        problems += (409, 504)
    if operation.needs_workers:
        problems.append(503)
    if operation.body:
        problems += (413, 415, 422)
    for status in sorted(problems):
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return responses


def _operation(operation: Operation) -> dict[str, Any]:
    token: list[dict[str, list[str]]] = [{"token": []}]
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        # The empty requirement: reading from loopback works without the token.
        "security": token if operation.changes else [{}, *token],
        "responses": _responses(operation),
    }
    if operation.of_listener:
        made["parameters"] = [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": "The id of the listener, percent-encoded: a slash is %2F.",
                "schema": {"type": "string"},
            }
        ]
    if operation.body:
        schema = {"$ref": f"#/components/schemas/{operation.body}"}
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return made


def openapi(version: str) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        version: of the package.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fastlisten management",
            "version": version,
            "description": "Health, metrics and control of a running server. Reading is free from "
            "loopback and on Unix sockets and needs the token from elsewhere; changes always need "
            "it.",
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
