"""Handlers and reloads: when one is made anew, who serves which connection, when one is stopped.

Rules of this file: handlers keep what happened to them in attributes; clients are real.
"""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.loops import on_loops
from support.reloading import Reloadable, echo, reloadable
from support.server import read_all, read_some
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")


def handler(it: Reloadable) -> Any:
    return it.listener().handler


@on_loops
async def test_open_connection_keeps_its_handler(tmp_path: Path) -> None:
    """It is stopped when the last of its connections has ended."""
    async with reloadable(tmp_path, echo("it")) as it:
        former = handler(it)
        with await it.connect() as client:
            client.send(b"one")
            assert await read_some(client, 3) == b"one"
            await it.reload(echo("it", 'hostname = "b.example"'))
            assert handler(it) is not former
            assert (former.events, handler(it).events) == (["start"], ["start"])
            client.send(b"two")
            assert await read_some(client, 3) == b"two"
            assert await it.answer() == b"hello"
            assert (len(former.open), former.made, handler(it).made) == (1, 1, 1)
        await eventually(lambda: former.events == ["start", "stop"], "the stop")
        assert it.listener().statistics()["accepted"] == 2
        assert it.listener().connections == 0
        assert handler(it).events == ["start"]


@on_loops
async def test_handler_stays_when_nothing_of_it_changes(tmp_path: Path) -> None:
    async with reloadable(tmp_path, echo("it")) as it:
        former = handler(it)
        for line in ('timeout.idle = "7s"', "max-connections = 7", "socket.ttl = 9"):
            assert (await it.reload(echo("it", line))).succeeded
            assert handler(it) is former
        assert former.events == ["start"]


@on_loops
async def test_unused_handler_is_stopped_at_once(tmp_path: Path) -> None:
    async with reloadable(tmp_path, echo("it")) as it:
        former = handler(it)
        await it.reload(echo("it", 'hostname = "b.example"'))
        await eventually(lambda: former.events == ["start", "stop"], "the stop")


@on_loops
async def test_end_of_the_server_ends_former_handlers_too(tmp_path: Path) -> None:
    """Their idle clients get the farewell, as all others."""
    async with reloadable(tmp_path, echo("it")) as it:
        first = handler(it)
        with await it.connect() as old, await it.connect() as older:
            for client in (old, older):
                client.send(b"hello")
                assert await read_some(client, 5) == b"hello"
            await it.reload(echo("it", 'hostname = "b.example"'))
            second = handler(it)
            it.server.stop()
            await it.server.shutdown()
            assert await read_all(old) == await read_all(older) == b"farewell: shutdown\n"
        assert first.events == second.events == ["start", "stop"]


@on_loops
async def test_counts_of_mail_go_on(tmp_path: Path) -> None:
    """In the metrics a counter must not become smaller."""
    text = (
        f'[server]\nhostname = "%s"\ndata-directory = "{tmp_path}"\n[server.listener.it]\n'
        'protocol = "smtp"\nbind = "127.0.0.1:0"\ntls.enable = false\n'
    )
    async with reloadable(tmp_path, text % "a.example") as it:
        former = handler(it)
        for name, count in (("a.example", 1), ("b.example", 2)):
            await it.reload(text % name)
            answer = await it.answer(said=b"NOOP\r\nQUIT\r\n")
            assert answer.startswith(f"220 {name} ".encode())
            await eventually(lambda: handler(it).counts.ends == {"quit": count}, "the count")  # noqa: B023
        assert handler(it) is not former
        report = await it.server.control.report("it")
        assert report.total.accepted == 2


APPLICATION = """
    events = []

    def make():
        events.append("made")

        async def application(scope, receive, send):
            if scope["type"] == "lifespan":
                for event in ("startup", "shutdown"):
                    await receive()
                    events.append(event)
                    await send({"type": f"lifespan.{event}.complete"})
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"here"})

        return application
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "reloaded_application.py"
    path.write_text(textwrap.dedent(APPLICATION))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "reloaded_application", raising=False)
    importlib.invalidate_caches()
    return path


WEB = (
    '[server.listener.it]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
    'app = "reloaded_application:make()"\nhttp.max-body-size = %d\n'
)


@on_loops
async def test_application_is_made_and_started_once(tmp_path: Path, module: Path) -> None:
    async with reloadable(tmp_path, WEB % 5000) as it:
        events = sys.modules["reloaded_application"].events
        former = handler(it)
        await it.reload(WEB % 6000)
        assert handler(it) is not former
        assert (await it.answer(said=b"GET / HTTP/1.0\r\n\r\n")).endswith(b"here")
        assert events == ["made", "startup"]
    assert events == ["made", "startup", "shutdown"]


@on_loops
async def test_new_code_needs_a_restart(
    tmp_path: Path, module: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with reloadable(tmp_path, WEB % 5000) as it:
        assert (await it.server.reload()).new_code == ()
        module.write_text(module.read_text().replace("here", "there"))
        os.utime(module, ns=(1, 1))
        report = await it.reload(WEB % 6000)
        line = "the file of reloaded_application has changed; a restart loads it"
        assert (report.succeeded, report.new_code) == (True, (line,))
        assert line in caplog.text
        assert "1 module waiting for a restart" in report.summary
        assert (await it.answer(said=b"GET / HTTP/1.0\r\n\r\n")).endswith(b"\nhere")
        assert (await it.server.reload()).new_code == (line,)
