"""The control socket's lines: requests of any kind, and the answers to them.

Rules of this file: no socket; the server is a configuration served on the running loop.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loops import on_loops
from support.management import IDS, listener
from support.server import served

from fastlisten.runtime.control_socket.protocol import (
    COMMANDS,
    ERRORS,
    MAX_REQUEST,
    RequestError,
    RequestLines,
    ServedProcess,
    answer,
    read_request,
)
from fastlisten.runtime.listener import State
from fastlisten.runtime.server import Server


def text(directory: Path, *ids: str) -> str:
    head = f'[server]\ndata-directory = "{directory}"\ntls.enable = false\n'
    return head + "".join(map(listener, ids))


async def asked(server: Server, config: str = "", **request: object) -> dict[str, Any]:
    """Send a request; return the answer."""

    async def reload(by: str) -> dict[str, object]:
        return {"succeeded": True, "by": by}

    process = ServedProcess(server.control, reload, 4711, config)
    pieces = await answer(process, json.dumps(request).encode(), "a test")
    line = b"".join(pieces)
    assert line.index(b"\n") == len(line) - 1
    found: dict[str, Any] = json.loads(line)
    if not found["ok"]:
        assert found.keys() == {"ok", "error", "message"}
        assert found["error"] in ERRORS
    return found


@on_loops
async def test_listener_is_paused_resumed_limited_and_drained(tmp_path: Path) -> None:
    async with served(text(tmp_path, "it")) as server:
        control = server.control
        assert await asked(server, command="pause", id="it") == {"ok": True}
        assert (await control.report("it")).state is State.PAUSED
        assert await asked(server, command="resume", id="it") == {"ok": True}
        assert (await control.report("it")).state is State.LISTENING
        assert await asked(server, command="limit", id="it", limit=7) == {"ok": True}
        assert (await control.report("it")).limit == 7
        assert await asked(server, command="drain", id="it") == {"ok": True}
        refused = await asked(server, command="resume", id="it")
        assert refused["error"] == "impossible"
        assert refused["message"].endswith("only a stop and a start of the server bring it back")


@on_loops
async def test_reload_answers_with_the_report(tmp_path: Path) -> None:
    async with served(text(tmp_path, "it")) as server:
        found = await asked(server, command="reload")
    assert found == {"ok": True, "reload": {"succeeded": True, "by": "a test"}}


@on_loops
async def test_status_of_many_listeners_in_pieces(tmp_path: Path) -> None:
    ids = sorted({*IDS, *(f"l{number}" for number in range(210))})
    async with served(text(tmp_path, *ids)) as server:
        found = await asked(server, config="/etc/mail.toml", command="status")
    assert (found["format"], found["server"]["pid"]) == (1, 4711)
    assert found["server"]["config"] == "/etc/mail.toml"
    assert found["server"]["workers"] == [{"number": 0, "restarts": 0, "responding": True}]
    assert [one["id"] for one in found["listeners"]] == ids
    first = found["listeners"][0]
    assert first["state"] == "listening"
    (worker,) = first["workers"]
    assert (worker["number"], worker["connections"], worker["accepted"]) == (0, 0, 0)


@on_loops
async def test_unknown_listener_gets_the_likely_one(tmp_path: Path) -> None:
    async with served(text(tmp_path, "submission", "lmtp")) as server:
        for command in ("pause", "resume", "drain"):
            found = await asked(server, command=command, id="submision")
            assert found["error"] == "unknown-listener"
            assert found["message"].endswith('"submision"; did you mean "submission"?')
        found = await asked(server, command="limit", id="http", limit=3)
        assert found["message"].endswith('"http"; there are "lmtp", "submission"')


@on_loops
async def test_limit_out_of_range(tmp_path: Path) -> None:
    async with served(text(tmp_path, "it")) as server:
        for limit in (0, -1, 2**31, 10**30):
            found = await asked(server, command="limit", id="it", limit=limit)
            assert found["error"] == "bad-limit"
            assert "from 1 to 2147483647" in found["message"]


@on_loops
async def test_server_of_another_configuration_refuses(tmp_path: Path) -> None:
    async with served(text(tmp_path, "it")) as server:
        for config, said in (("/b", '"/b"'), ("", "the embedded default")):
            found = await asked(server, config=config, command="pause", id="it")
            assert found["ok"]
            await asked(server, command="resume", id="it")
            process = ServedProcess(server.control, _never, 1, config)
            line = json.dumps({"command": "drain", "id": "it", "config": "/a"}).encode()
            refused = json.loads(b"".join(await answer(process, line, "a test")))
            assert refused["error"] == "wrong-server"
            assert refused["message"] == f"this server was started with {said}"
        assert server.listeners[0].state is State.LISTENING


async def _never(by: str) -> dict[str, object]:
    raise AssertionError("not asked for")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "JSON object"),
        (b"status", "JSON object"),
        (b'["status"]', "JSON object"),
        (b'"status"', "JSON object"),
        (b"\xff", "JSON object"),
        (b"[" * MAX_REQUEST, "JSON object"),
        (b'{"command": "status"', "JSON object"),
        (b"9" * 5000, "JSON object"),
        (b"{}", "command must be one of status, reload"),
        (b'{"command": 1}', "command must be one of"),
        (b'{"command": ["status"]}', "command must be one of"),
        (b'{"command": "stop"}', "command must be one of"),
        (b'{"command": "status", "id": "it"}', 'status does not take "id"'),
        (b'{"command": "pause", "id": "it", "limit": 3}', 'pause does not take "limit"'),
        (b'{"command": "pause"}', "pause needs id"),
        (b'{"command": "limit", "id": "it"}', "limit needs limit"),
        (b'{"command": "pause", "id": 3}', "id must be a text"),
        (b'{"command": "pause", "id": null}', "id must be a text"),
        (b'{"command": "status", "config": []}', "config must be a text"),
        (b'{"command": "limit", "id": "it", "limit": true}', "limit must be an integer"),
        (b'{"command": "limit", "id": "it", "limit": 3.0}', "limit must be an integer"),
        (b'{"command": "limit", "id": "it", "limit": "3"}', "limit must be an integer"),
    ],
)
def test_malformed_request(line: bytes, why: str) -> None:
    with pytest.raises(RequestError, match=why.replace("[", r"\[")) as error:
        read_request(line)
    assert error.value.error == "bad-request"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_line_is_a_request_or_an_error(line: bytes) -> None:
    with contextlib.suppress(RequestError):
        assert read_request(line).command in COMMANDS


@given(st.lists(st.binary(max_size=50)), st.integers(1, 40))
def test_lines_are_split_as_they_come(lines: list[bytes], size: int) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    data = b"".join(line + b"\n" for line in lines)
    found = []
    splitter = RequestLines()
    for start in range(0, len(data), size):
        splitter.feed(data[start : start + size])
        while (line := splitter.next()) is not None:
            found.append(line)
    assert found == lines


def test_longest_request_and_a_longer_one() -> None:
    lines = RequestLines()
    lines.feed(b"x" * MAX_REQUEST + b"\n" + b"y" * MAX_REQUEST)
    assert lines.next() == b"x" * MAX_REQUEST
    assert lines.next() is None
    lines.feed(b"y")
    with pytest.raises(RequestError, match="at most 65536 bytes"):
        lines.next()
    complete = RequestLines()
    complete.feed(b"x" * (MAX_REQUEST + 1) + b"\n")
    with pytest.raises(RequestError, match="at most 65536 bytes"):
        complete.next()
