"""The management application: an ASGI app over the control of a running server.

    request -> Access (who) -> operation (what) -> body (with what) -> Control -> response

Rules of this file: the order above. A client that may not read learns nothing, not even whether a
path exists, and no body is read from a client that may not make changes. Every refusal is an
exception, raised where its reason is found.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import fastlisten
from fastlisten.errors import FastlistenError
from fastlisten.handlers.base import HandlerSettings
from fastlisten.management.access import Access
from fastlisten.management.metrics import OPENMETRICS, TEXT, Metrics, wants_openmetrics
from fastlisten.management.operations import OPERATIONS, Operation, openapi
from fastlisten.management.responses import (
    JSON,
    RefusedError,
    json_response,
    make_response,
    problem_response,
)
from fastlisten.management.status_page import CSP, status_page
from fastlisten.management.token_file import FILE_NAME, keep_token
from fastlisten.runtime.control import (
    MAX_LIMIT,
    Control,
    ImpossibleError,
    NoAnswerError,
    UnfinishedError,
    UnknownListenerError,
)
from fastlisten.runtime.report_json import listener_json
from fastlisten.runtime.reports import Readiness

__all__ = ["application"]

logger = logging.getLogger("fastlisten.http")

#: The longest body that is read, in octets; `{"limit": 8192}` is the only kind there is.
_MAX_BODY = 4096


def application(settings: HandlerSettings) -> ASGIApp:
    """Return the management application of the server that a listener belongs to.

    Its lifespan creates or reads the token; until then nothing can be changed.

    Args:
        settings: of the listener. `extra["control"]` is the server's `Control`; the option
            ``allowed-hosts``, if there is one, lists host names in addition to `hostname`.

    Raises:
        ValueError: there is no server to manage.
    """
    control = settings.extra.get("control")
    if not isinstance(control, Control):
        raise ValueError('there is no server to manage: settings.extra["control"] is missing')
    return Application(control, settings)


class Application:
    """The ASGI app; see `application`."""

    def __init__(self, control: Control, settings: HandlerSettings) -> None:
        self._control = control
        self._settings = settings
        names = settings.options.get("allowed-hosts") or ()
        self._access = Access((settings.hostname, *names))
        self._document = openapi(fastlisten.__version__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            # A WebSocket, closed before it was accepted: the client gets 403.
            await send({"type": "websocket.close", "code": 1000, "reason": ""})

    # -- lifespan

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except (FastlistenError, OSError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._access.token = ""
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        directory = self._settings.data_directory
        if not directory:
            raise FastlistenError(
                "the management token needs a data directory; set server.data-directory"
            )
        token, created = await asyncio.to_thread(keep_token, directory)
        self._access.token = token
        if created:
            logger.info("created the management token: %s/%s", directory, FILE_NAME)

    # -- requests

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(scope, receive)
        except RefusedError as refusal:
            response = problem_response(refusal)
        except _GoneError:
            return
        if scope["method"] == "HEAD":
            send = _without_body(send)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        headers = Headers(scope=scope)
        authorized = self._access.check(scope, headers)
        operation, id = _find(scope)
        if operation.changes:
            self._access.check_change(authorized)
        try:
            if operation.body:
                await self._set_limit(id, await _json_body(receive, headers), _client(scope))
                return await self._listener(headers, id)
            if operation.changes:
                if await _body(receive, headers):
                    raise RefusedError(400, "this operation takes no body")
                if operation.closes_listener and scope.get("query_string") != b"self=yes":
                    self._spare_own_listener(id)
                await self._change(operation, id, _client(scope))
                return await self._listener(headers, id)
            reading: Callable[[Headers, str], Awaitable[Response]]
            reading = getattr(self, f"_{operation.name}")
            return await reading(headers, id)
        except UnknownListenerError as error:
            raise RefusedError(404, str(error)) from None
        except ImpossibleError as error:
            raise RefusedError(409, str(error)) from None
        except NoAnswerError as error:
            raise RefusedError(503, str(error)) from None
        except UnfinishedError as error:
            raise RefusedError(504, str(error)) from None

    # -- operations that read; each takes the headers and the id in the path

    async def _page(self, headers: Headers, id: str) -> Response:
        # At the same time, so that a worker that does not answer delays both together.
        readiness, reports = await asyncio.gather(
            self._control.readiness(), self._control.reports()
        )
        hostname = self._settings.hostname
        page = await asyncio.to_thread(status_page, hostname, readiness.ready, reports)
        return make_response(
            page,
            "text/html; charset=utf-8",
            headers={"content-security-policy": CSP, "x-frame-options": "DENY"},
        )

    async def _live(self, headers: Headers, id: str) -> Response:
        return json_response({"status": "alive"})

    async def _readiness(self, headers: Headers, id: str) -> Response:
        try:
            found = await self._control.readiness()
        except NoAnswerError:  # no worker is running
            found = Readiness(False)
        missing = [{"id": id, "state": state.value} for id, state in found.not_accepting]
        status, code = ("ready", 200) if found.ready else ("unready", 503)
        return json_response({"status": status, "not-accepting": missing}, code)

    async def _metrics(self, headers: Headers, id: str) -> Response:
        openmetrics = wants_openmetrics(",".join(headers.getlist("accept")))
        reports = await self._control.reports()
        # Afterwards it is known which workers do not answer.
        metrics = Metrics(await self._control.server(), reports)
        text = await asyncio.to_thread(metrics.write, openmetrics)
        return make_response(text, OPENMETRICS if openmetrics else TEXT, headers={"vary": "accept"})

    async def _openapi(self, headers: Headers, id: str) -> Response:
        return json_response(self._document)

    async def _listeners(self, headers: Headers, id: str) -> Response:
        reports = await self._control.reports()
        return await asyncio.to_thread(
            lambda: json_response({"listeners": [listener_json(report) for report in reports]})
        )

    async def _listener(self, headers: Headers, id: str) -> Response:
        return json_response(listener_json(await self._control.report(id)))

    # -- operations that change something

    def _spare_own_listener(self, id: str) -> None:
        """Refuse to close the listener that received the request: nobody could undo it.

        Raises:
            RefusedError: 409.
        """
        if id == self._settings.listener:
            raise RefusedError(
                409,
                f'listener "{id}" is the one that answers and would take no more requests; '
                "ask with ?self=yes if that is meant",
            )

    async def _change(self, operation: Operation, id: str, by: str) -> None:
        change = {
            "pause": self._control.pause,
            "resume": self._control.resume,
            "drain": self._control.drain,
        }[operation.name]
        await change(id, by)

    async def _set_limit(self, id: str, value: Any, by: str) -> None:
        limit = value.get("limit") if isinstance(value, dict) and len(value) == 1 else None
        # In JSON Schema 5.0 is an integer, and true is not.
        if isinstance(limit, float) and limit.is_integer():
            limit = int(limit)
        if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
            raise RefusedError(
                422, f'the body must be {{"limit": n}} with n an integer from 1 to {MAX_LIMIT}'
            )
        await self._control.set_limit(id, limit, by)


class _GoneError(Exception):
    """The client disconnected before it had sent the whole request."""


def _find(scope: Scope) -> tuple[Operation, str]:
    """Return the operation of a request and the id in its path, empty if it has none.

    Raises:
        RefusedError: 404, 405.
    """
    # The path as sent, in which a slash within an id is encoded and one between segments is not.
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    try:
        segments = [unquote_to_bytes(one).decode("utf-8") for one in path.split(b"/")]
    except UnicodeDecodeError:
        raise RefusedError(404, "a path must be UTF-8") from None
    methods: list[str] = []
    for operation, template in _TEMPLATES:
        if len(template) != len(segments):
            continue
        id = ""
        for wanted, given in zip(template, segments, strict=True):
            if wanted == "{id}":
                id = given
            elif wanted != given:
                break
        else:
            known = (operation.method, "HEAD") if operation.method == "GET" else ("POST",)
            if scope["method"] in known:
                return operation, id
            methods += known
    if methods:
        raise RefusedError(405, f"only {', '.join(methods)} here", {"allow": ", ".join(methods)})
    raise RefusedError(404, "no such path; see /openapi.json")


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "a client without an address"


_TEMPLATES = [(operation, operation.path.split("/")) for operation in OPERATIONS]


async def _json_body(receive: Receive, headers: Headers) -> Any:
    """Return the JSON value in a request's body.

    Raises:
        RefusedError: 400, 413, 415.
    """
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != JSON or charset not in ("", "charset=utf-8"):
        raise RefusedError(415, f"the body must be declared as {JSON}")
    try:
        return json.loads((await _body(receive, headers)).decode("utf-8"))
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is not valid JSON in UTF-8") from None


async def _body(receive: Receive, headers: Headers) -> bytes:
    """Return the body of a request.

    Raises:
        RefusedError: 413; no more than the limit has been read.
    """
    body = b""
    declared = headers.get("content-length", "")
    too_long = declared.isdecimal() and int(declared[:20]) > _MAX_BODY
    more = True
    while more and not too_long:
        message = await receive()
        if message["type"] != "http.request":
            raise _GoneError
        body += message.get("body", b"")
        too_long = len(body) > _MAX_BODY
        more = message.get("more_body", False)
    if too_long:
        raise RefusedError(413, f"a body may have at most {_MAX_BODY} octets")
    return body


def _without_body(send: Send) -> Send:
    """Return a `send` that leaves out the body of the response (RFC 9110 9.3.2)."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head
