"""What happens while handlers of a reload start: it is cancelled, or a listener is drained.

Rules of this file: the start of a handler waits until the test goes on, so that nothing depends on
time.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.loops import on_loops
from support.reloading import Reloadable, echo, reloadable
from support.serving_handlers import Echo
from support.waiting import eventually

from fastlisten.config import Config
from fastlisten.runtime.reload.report import ReloadReport

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Gate:
    """Replaces `Echo.start` for listeners named ``new``.

    Attributes:
        waiting: the handlers that wait.
        opened: lets them go on.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[Echo] = []
        self.opened = asyncio.Event()
        gate = self

        async def start(handler: Echo) -> None:
            if handler.settings.listener == "new":
                gate.waiting.append(handler)
                try:
                    await gate.opened.wait()
                except asyncio.CancelledError:
                    handler.events.append("cancelled")  # and starts all the same
            handler.events.append("start")

        monkeypatch.setattr(Echo, "start", start)

    async def reach(self, it: Reloadable, text: str) -> asyncio.Task[ReloadReport]:
        """Begin a reload; return it when a handler waits."""
        it.path.write_text(text)
        task = it.server.reload()
        await eventually(lambda: self.waiting, "the start of the handler")
        return task


@on_loops
async def test_handler_that_starts_although_the_reload_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with reloadable(tmp_path, echo("a")) as it:
        task = await gate.reach(it, echo("a") + echo("new"))
        task.cancel()
        await asyncio.wait((task,))
        (handler,) = gate.waiting
        assert handler.events == ["cancelled", "start", "stop"]
        assert [one.name for one in it.server.listeners] == ["a"]
        assert await it.answer("a") == b"hello"


@on_loops
async def test_drain_of_a_listener_whose_socket_another_one_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with reloadable(tmp_path, echo("a") + echo("b")) as it:
        host, port = it.address("b")
        there = f"{host}:{port}"
        assert (await it.reload(echo("a") + echo("b", bind=there))).succeeded
        renamed = echo("a") + echo("new", bind=there)
        task = await gate.reach(it, renamed)
        await it.server.control.drain("b", "a test")
        gate.opened.set()
        report = await task
        assert not report.applied
        assert "was drained during the reload" in report.problems[0]
        assert gate.waiting[0].events == ["start", "stop"]
        assert await it.answer("a") == b"hello"
        report = await it.reload(renamed)
        assert (report.added, report.removed) == (("new",), ("b",))
        assert await it.answer("new") == b"hello"


@on_loops
async def test_callback_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def reloaded(config: Config) -> None:
        raise ValueError(f"{len(config.listeners)} listeners")

    async with reloadable(tmp_path, echo("a")) as it:
        it.server.reloaded = reloaded
        report = await it.reload(echo("a") + echo("new"))
        assert report.succeeded
        assert report.added == ("new",)
        assert "after a reload: ValueError('2 listeners')" in caplog.text
        caplog.clear()  # the traceback holds the server
        assert await it.answer("new") == b"hello"
