"""ASGI lifespan: startup and shutdown happen once, in order, and failures are reported."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from support.environment import clean_environment
from support.http import GET, App, client_of, handler_of, serving_app
from support.loops import on_loops
from support.program import program
from support.scripted_lifespan import STARTED, ScriptedLifespan, message
from support.waiting import eventually, until

from fastlisten.handlers.http.lifespan import Lifespan, LifespanError


@on_loops
async def test_startup_and_shutdown_are_sent_once() -> None:
    app = App()
    async with serving_app(app) as served, client_of(served) as client:
        assert app.events == ["startup"]
        _, body = await client.ask(GET)
        assert b'"state": {"key": "value"}' in body
    assert app.events == ["startup", "shutdown"]


@on_loops
async def test_each_request_gets_its_own_copy_of_the_state() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["shared"] = []
            await App().lifespan(scope, receive, send)
            return
        scope["state"]["shared"].append("x")
        scope["state"]["own"] = scope["state"].get("own", "") + "x"
        state = scope["state"]
        await App().answer(send, f"{len(state['shared'])} {state['own']}".encode())

    async with serving_app(app) as served, client_of(served) as client:
        assert [(await client.ask(GET))[1] for _ in range(3)] == [b"1 x", b"2 x", b"3 x"]


@on_loops
async def test_application_of_two_listeners_starts_once() -> None:
    app = App()
    async with serving_app(app), serving_app(app) as served:
        assert app.events == ["startup"]
        async with client_of(served) as client:
            assert (await client.ask(GET))[0] == 200
    assert app.events == ["startup", "shutdown"]
    async with serving_app(app):
        assert app.events == ["startup", "shutdown", "startup"]
    assert not Lifespan._all


@on_loops
async def test_lifespan_off_sends_no_events() -> None:
    app = App()
    options = {"lifespan": "off"}
    async with serving_app(app, options=options) as served, client_of(served) as client:
        assert b'"state": {}' in (await client.ask(GET))[1]
    assert app.events == []


@on_loops
@pytest.mark.parametrize(
    "app",
    [
        ScriptedLifespan(),
        ScriptedLifespan(ValueError("http only")),
        ScriptedLifespan("receive"),
        ScriptedLifespan("receive", KeyError("x")),
    ],
)
async def test_application_without_lifespan_is_an_error_only_when_on(app: Any) -> None:
    lifespan = await Lifespan.enter(app, "auto")
    await lifespan.leave()
    with pytest.raises(LifespanError, match=r"does not support lifespan|failed to start"):
        await Lifespan.enter(app, "on")
    assert not Lifespan._all


@on_loops
@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["receive", message("startup.failed", "no database")], "failed to start: no database"),
        (["receive", message("startup.failed")], "failed to start: it does not say why"),
        (
            ["receive", message("startup.failed", "no database"), ValueError("x")],
            "failed to start: no database",
        ),
        (["receive", SystemExit(5)], "failed to start: SystemExit: 5"),
        ([KeyboardInterrupt()], "failed to start: KeyboardInterrupt"),
        (["receive", asyncio.CancelledError()], "failed to start: CancelledError"),
    ],
)
async def test_failed_startup_is_reported(mode: Any, steps: list[Any], words: str) -> None:
    handler = handler_of(ScriptedLifespan(*steps), lifespan=mode)
    with pytest.raises(LifespanError, match=words):
        await handler.start()
    assert not Lifespan._all
    # Nothing was started, so that there is nothing to stop.
    await handler.stop()


@on_loops
@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([message("shutdown.failed", "disk full")], "failed to end: disk full"),
        ([ValueError("broken")], "failed to end: ValueError: broken"),
        ([SystemExit(5)], "failed to end: SystemExit: 5"),
        ([asyncio.CancelledError()], "failed to end: CancelledError"),
        ([3600], "has not finished its shutdown within 0.05 s"),
    ],
)
async def test_failed_shutdown_is_reported(monkeypatch: Any, steps: list[Any], words: str) -> None:
    monkeypatch.setattr("fastlisten.handlers.http.lifespan.SHUTDOWN_PATIENCE", 0.05)
    handler = handler_of(ScriptedLifespan(*STARTED, *steps))
    await handler.start()
    with pytest.raises(LifespanError, match=words):
        await handler.stop()
    assert not Lifespan._all


@on_loops
@pytest.mark.parametrize("error", [SystemExit(5), ValueError("x"), asyncio.CancelledError()])
async def test_lifespan_that_fails_while_serving_is_logged(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    handler = handler_of(ScriptedLifespan("receive", message("startup.complete"), 0.01, error))
    await handler.start()
    await eventually(lambda: caplog.records, "the report")
    assert caplog.records[0].message == "the application failed in its lifespan"
    with pytest.raises(LifespanError, match="failed to end"):
        await handler.stop()


@on_loops
async def test_lifespan_that_returns_after_startup_is_accepted() -> None:
    app = ScriptedLifespan("receive", message("startup.complete"))
    async with serving_app(app):
        pass
    assert app.told == ["lifespan.startup"]


@on_loops
@pytest.mark.parametrize(
    "wrong",
    [message("startup.complete"), message("shutdown.maybe"), {"type": "http.response.start"}],
)
async def test_unexpected_lifespan_message_is_an_error(wrong: dict[str, str]) -> None:
    steps = ["receive", message("startup.complete"), wrong]
    lifespan = await Lifespan.enter(ScriptedLifespan(*steps), "auto")
    await asyncio.sleep(0.01)
    with pytest.raises(LifespanError, match="failed to end: RuntimeError"):
        await lifespan.leave()


@on_loops
async def test_cancelled_startup_leaves_no_task() -> None:
    app = ScriptedLifespan("receive", 3600)
    task = asyncio.create_task(Lifespan.enter(app, "auto"))
    while not app.told:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not Lifespan._all
    assert asyncio.all_tasks() == {asyncio.current_task()}


CONFIG = """\
[server.listener.it]
protocol = "http"
bind = "127.0.0.1:0"
app = "lifespan_applications:{name}"
"""


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("no_start", 3, "cannot start: the application failed to start: no database"),
        ("no_end", 1, "failed: the application failed to end: disk full"),
    ],
)
def test_exit_codes_of_the_program(tmp_path: Path, name: str, code: int, words: str) -> None:
    (tmp_path / "lifespan_applications.py").write_text(
        "from support.scripted_lifespan import STARTED, ScriptedLifespan, message\n"
        "no_start = ScriptedLifespan('receive', message('startup.failed', 'no database'))\n"
        "no_end = ScriptedLifespan(*STARTED, message('shutdown.failed', 'disk full'))\n"
    )
    path = f"{tmp_path}:{clean_environment()['PYTHONPATH']}"
    listeners = 0 if code == 3 else 1
    environ = {"PYTHONPATH": path}
    with program(tmp_path, CONFIG.format(name=name), listeners=listeners, environ=environ) as it:
        assert (it.stop() if listeners else it.ended()) == code
        assert words in it.err
        assert "Traceback" not in it.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_during_a_long_startup_exits_with_0(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "lifespan_applications.py").write_text(
        "import asyncio\n"
        "async def slow(scope, receive, send):\n"
        "    await receive()\n"
        "    print('it has begun', flush=True)\n"
        "    await asyncio.sleep(3600)\n"
    )
    environ = {"PYTHONPATH": f"{tmp_path}:{clean_environment()['PYTHONPATH']}"}
    with program(tmp_path, CONFIG.format(name="slow"), listeners=-1, environ=environ) as it:
        until(lambda: "it has begun" in it.out, "the start")
        it.signal(number)
        assert it.ended() == 0
        assert f"{number.name}: stopping" in it.err
        assert "Traceback" not in it.err
