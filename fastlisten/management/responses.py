"""The responses of the management application, and the exception that refuses a request.

Rules of this file: every response is made here, so that none lacks the headers that keep other
sites' pages from using it. A refusal is an exception: raised where its reason is found, and turned
into a response (RFC 9457) in one place, in app.py.
"""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

__all__ = ["JSON", "PROBLEM", "RefusedError", "json_response", "make_response", "problem_response"]

JSON = "application/json"

#: RFC 9457 3: the media type of a refusal's body.
PROBLEM = "application/problem+json"

#: In every response. The state may change at any time, so nothing is cached; no browser guesses a
#: type, no other site embeds a response, and links to other sites do not tell where they were.
_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


class RefusedError(Exception):
    """A request that is refused, or cannot be carried out.

    Attributes:
        status: HTTP status, 4xx or 5xx.
        detail: why, for the person who sent the request.
        headers: that go with the status.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        super().__init__(f"{status}: {detail}")


def make_response(
    content: bytes | str,
    media_type: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a response; `media_type` becomes its content type unchanged."""
    made = Response(content, status, {**_HEADERS, **(headers or {})})
    made.headers["content-type"] = media_type
    return made


def json_response(value: Any, status: int = 200) -> Response:
    """Return a value as JSON, with a line feed for those who read it in a terminal."""
    return make_response(json.dumps(value) + "\n", JSON, status)


def problem_response(refusal: RefusedError) -> Response:
    """Return the response to a request that is refused."""
    body = {
        "title": http.HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
    }
    return make_response(json.dumps(body) + "\n", PROBLEM, refusal.status, refusal.headers)
