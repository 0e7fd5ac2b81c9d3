"""The OpenAPI document is correct: every response matches it, and there are no others."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.loops import on_loops
from support.management import IDS, Managed, lifespan, listener, managed
from support.management import settings as settings_of

import fastlisten
from fastlisten.management.app import application
from fastlisten.management.operations import OPERATIONS, openapi
from fastlisten.runtime.control import Control, NoAnswerError, UnfinishedError

DOCUMENT = openapi(fastlisten.__version__)

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
}

#: Every JSON Schema keyword in the document; `check_schema` must know a new one first.
_KNOWN = frozenset(
    [
        "type",
        "description",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "const",
        "minimum",
        "maximum",
        "$ref",
    ]
)


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference refers to, and anything else unchanged."""
    found: Any = node
    if "$ref" in node:
        found = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
    assert isinstance(found, dict)
    return found


def check_schema(value: Any, schema: dict[str, Any]) -> None:
    """Fail if a value does not match a schema."""
    schema = resolved(schema)
    assert set(schema) <= _KNOWN
    if "type" in schema:
        assert isinstance(value, _TYPES[schema["type"]]), (value, schema)
        assert isinstance(value, bool) <= (schema["type"] == "boolean")
    assert value in schema.get("enum", [value])
    assert value == schema.get("const", value)
    if isinstance(value, int):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if isinstance(value, list):
        for one in value:
            check_schema(one, schema.get("items", {}))
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema.get("required", ())) <= set(value)
    if isinstance(value, dict):
        for key, one in value.items():
            rest = schema.get("additionalProperties", {})
            inner = schema.get("properties", {}).get(key, rest)
            assert inner is not False, f"{key} is not in {schema}"
            check_schema(one, inner)


def check_response(answer: httpx.Response, path: str, method: str) -> None:
    """Fail if the document does not have this response for an operation."""
    operation = DOCUMENT["paths"][path][method.lower()]
    described = resolved(operation["responses"][str(answer.status_code)])
    kind = answer.headers["content-type"].partition(";")[0]
    schema = described["content"][kind]["schema"]
    check_schema(answer.json() if kind.endswith("json") else answer.text, schema)
    for name in described.get("headers", {}):
        assert name in answer.headers


def test_document_is_complete() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == fastlisten.__version__
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)

    def look(node: Any) -> None:
        if isinstance(node, dict):
            resolved(node)
            assert node.get("description") != "" or "type" in node
            for one in node.values():
                look(one)
        if isinstance(node, list):
            for one in node:
                look(one)

    look(DOCUMENT)
    json.dumps(DOCUMENT, allow_nan=False)


def test_security_of_operations() -> None:
    for operation in OPERATIONS:
        security = DOCUMENT["paths"][operation.path][operation.method.lower()]["security"]
        assert security == ([{"token": []}] if operation.method == "POST" else [{}, {"token": []}])


PAGE = Path(__file__).parents[2] / "docs" / "management.md"


@pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside these tests")
def test_manual_has_every_operation_and_key() -> None:
    text = PAGE.read_text()
    listed = re.findall(r"^\| `(GET|POST)` \| `(.*?)` \|", text, re.MULTILINE)
    assert listed == [(one.method, one.path) for one in OPERATIONS]
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    check_schema(json.loads(example), DOCUMENT["components"]["schemas"]["Listener"])


@on_loops
async def test_document_is_served(tmp_path: Path) -> None:
    async with managed(tmp_path) as it, it.client() as client:
        assert (await client.get("/openapi.json")).json() == DOCUMENT


#: A request for each status in the document: method, path, id, token, headers, body.
_JSON = {"content-type": "application/json"}

REQUESTS: list[tuple[int, str, str, str, bool, dict[str, str], bytes]] = [
    *((200, "GET", one.path, "it", False, {}, b"") for one in OPERATIONS if not one.changes),
    (200, "POST", "/api/listeners/{id}/pause", "it", True, {}, b""),
    (503, "GET", "/healthz/ready", "", False, {}, b""),
    (200, "POST", "/api/listeners/{id}/resume", "it", True, {}, b""),
    (200, "POST", "/api/listeners/{id}/limit", "it", True, _JSON, b'{"limit": 5}'),
    (200, "POST", "/api/listeners/{id}/drain", "it", True, {}, b""),
    *((404, one.method, one.path, "x", True, _JSON, b"") for one in OPERATIONS if "id" in one.path),
    *((400, one.method, one.path, "it", True, {"host": "a b"}, b"") for one in OPERATIONS),
    *((403, one.method, one.path, "it", True, {"host": "a.example"}, b"") for one in OPERATIONS),
    *((401, one.method, one.path, "it", False, {"via": "1.1 x"}, b"") for one in OPERATIONS),
    *((405, "PATCH", one.path, "it", True, {}, b"") for one in OPERATIONS),
    (409, "POST", "/api/listeners/{id}/pause", "it", True, {}, b""),
    (409, "POST", "/api/listeners/{id}/resume", "it", True, {}, b""),
    (409, "POST", "/api/listeners/{id}/limit", "it", True, _JSON, b'{"limit": 5}'),
    (409, "POST", "/api/listeners/{id}/drain", "management", True, {}, b""),
    (400, "POST", "/api/listeners/{id}/drain", "it", True, {}, b"x"),
    (413, "POST", "/api/listeners/{id}/limit", "it", True, _JSON, b"x" * 5000),
    (415, "POST", "/api/listeners/{id}/limit", "it", True, {}, b'{"limit": 5}'),
    (422, "POST", "/api/listeners/{id}/limit", "it", True, _JSON, b"{}"),
]


def failing(error: Exception) -> Any:
    """Return a control of several workers that answers every request with an error."""

    async def fail(*_: object) -> None:
        raise error

    methods = dict.fromkeys(Control.__abstractmethods__, fail)
    return type("Failing", (Control,), methods)()


@on_loops
async def test_responses_match_the_document(tmp_path: Path) -> None:
    seen: set[tuple[str, str, str]] = set()
    async with managed(tmp_path, listener("it"), listener("management")) as it:
        for status, method, path, id, authorized, headers, body in REQUESTS:
            if (status, path) == (404, "/api/listeners/{id}/limit"):
                body = b'{"limit": 5}'
            async with it.client(it.token if authorized else None) as client:
                address = path.replace("{id}", id)
                answer = await client.request(method, address, headers=headers, content=body)
            assert answer.status_code == status, (method, path)
            known = next(one.method for one in OPERATIONS if one.path == path)
            check_response(answer, path, known)
            seen.add((path, known, str(status)))
        for status, error in (
            (503, NoAnswerError("no worker is running")),
            (504, UnfinishedError("it", "paused", (1,))),
        ):
            app = application(settings_of(it.server, tmp_path, control=failing(error)))
            async with lifespan(app):
                failed = Managed(it.server, app, it.token)
                for one in OPERATIONS:
                    if one.needs_workers and (one.changes or status == 503):
                        async with failed.manager() as client:
                            answer = await client.request(
                                one.method,
                                one.path.replace("{id}", "it"),
                                headers=_JSON if one.body else {},
                                content=b'{"limit": 5}' if one.body else b"",
                            )
                        assert answer.status_code == status, one.path
                        check_response(answer, one.path, one.method)
                        seen.add((one.path, one.method, str(status)))
    described = {
        (path, method.upper(), status)
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
    }
    assert described == seen


# --- any request --------------------------------------------------------------------------------

_PATHS = st.one_of(
    st.builds(
        lambda path, id: path.replace("{id}", quote(id, safe="")),
        st.sampled_from([one.path for one in OPERATIONS]),
        st.sampled_from(IDS) | st.text(max_size=5),
    ),
    st.text("/%.aF\\ ?", max_size=12).map(lambda text: "/" + text),
)

_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "host",
                "origin",
                "authorization",
                "content-type",
                "content-length",
                "accept",
                "sec-fetch-site",
                "sec-fetch-mode",
                "sec-fetch-dest",
                "x-forwarded-for",
            ]
        ),
        st.sampled_from(
            [
                "localhost",
                "evil.example",
                "http://localhost",
                "null",
                "Bearer",
                "application/json",
                "text/plain",
                "5",
                "-1",
                "x",
                "application/openmetrics-text;q=1",
                "same-origin",
                "cross-site",
                "navigate",
                "document",
            ]
        )
        | st.text(st.characters(max_codepoint=255), max_size=20),
    ),
    max_size=4,
)

_BODIES = st.lists(
    st.binary(max_size=20) | st.sampled_from([b'{"limit":', b"7}", b"[" * 3000, b"1" * 3000]),
    max_size=3,
)


async def _ask(
    it: Managed, method: str, path: str, headers: list[tuple[bytes, bytes]], body: list[bytes]
) -> tuple[int, list[Any]]:
    parts = [{"type": "http.request", "body": one, "more_body": True} for one in body]
    parts.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await it.app(scope, receive, send)
    return sent[0]["status"], sent


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS"]),
            _PATHS,
            st.booleans(),
            _HEADERS,
            _BODIES,
        ),
        max_size=20,
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_causes_an_error(tmp_path: Path, requests: list[Any]) -> None:
    """No exception, and no status from 500 on except that of an unready server."""

    async def run() -> None:
        async with managed(tmp_path, *(listener(id) for id in IDS[:6])) as it:
            for method, path, good, headers, body in requests:
                given = [(name.encode(), value.encode("latin-1")) for name, value in headers]
                if good:
                    own = {
                        b"host": b"localhost",
                        b"authorization": f"Bearer {it.token}".encode(),
                    }
                    given = [pair for pair in given if pair[0] not in own] + list(own.items())
                status, sent = await _ask(it, method, path, given, body)
                unready = status == 503 and path == "/healthz/ready"
                assert status == 200 or 400 <= status < 500 or unready
                assert [one["type"] for one in sent] == [
                    "http.response.start",
                    "http.response.body",
                ]

    with asyncio.Runner() as runner:
        runner.run(run())


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if not one.changes])
def test_get_responses_have_their_documented_media_type(operation: Any) -> None:
    content = DOCUMENT["paths"][operation.path]["get"]["responses"]["200"]["content"]
    assert tuple(content) == operation.media_types
