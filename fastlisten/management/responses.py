"""What every answer has in common, and how a request is refused.

Rules of this file: an answer is made here or not at all, so that none lacks the headers that keep
other sites' pages from using it. A refusal is an exception: whoever finds the reason raises it,
and app.py turns it into an answer (RFC 9457) in one place.
"""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

__all__ = ["JSON", "PROBLEM", "RefusedError", "answer", "json_answer", "problem_answer"]

JSON = "application/json"

#: RFC 9457 3: the media type of a refusal's body.
PROBLEM = "application/problem+json"

#: On every answer. State changes with every request: nothing is kept. Nothing is what it is not
#: declared to be, nothing can be embedded by another site, and links from it tell nobody.
_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


class RefusedError(Exception):
    """A request that is not carried out.

    Attributes:
        status: of HTTP, 4xx.
        detail: why, for the person who sent it.
        headers: which the status calls for.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        super().__init__(f"{status}: {detail}")


def answer(
    content: bytes | str,
    media_type: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an answer; `media_type` is written as it stands."""
    made = Response(content, status, {**_HEADERS, **(headers or {})})
    made.headers["content-type"] = media_type
    return made


def json_answer(value: Any, status: int = 200) -> Response:
    """Return a value as JSON, a line of its own for those who read it in a terminal."""
    return answer(json.dumps(value) + "\n", JSON, status)


def problem_answer(refusal: RefusedError) -> Response:
    """Return the answer to a request that is refused."""
    body = {
        "title": http.HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
    }
    return answer(json.dumps(body) + "\n", PROBLEM, refusal.status, refusal.headers)
