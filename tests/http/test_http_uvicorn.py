"""What of uvicorn is no promised interface and is used: there in every version that is allowed."""

from __future__ import annotations

import asyncio
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import h11
import pytest
import uvicorn
from support.http import App, handler_of
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from fastlisten.handlers.base import SettingError
from fastlisten.handlers.http import handler as http

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Never called."""


def made(kind: type) -> Any:
    async def make() -> Any:
        config = Config(application, lifespan="off", log_config=None, loop="none")
        config.load()
        return kind(config=config, server_state=ServerState(), app_state={})

    return asyncio.run(make())


def test_the_protocol() -> None:
    protocol = made(H11Protocol)
    for name in ("conn", "app", "logger", "access_log", "loop", "connections", "tasks"):
        assert hasattr(protocol, name), name
    for name in ("transport", "flow", "client", "server", "scheme", "cycle", "server_state"):
        assert hasattr(protocol, name), name
    assert isinstance(protocol.conn, h11.Connection)
    for name in (
        "handle_events",
        "handle_websocket_upgrade",
        "on_response_complete",
        "send_400_response",
        "_should_upgrade",
        "_unsupported_upgrade_warning",
    ):
        assert callable(getattr(H11Protocol, name)), name
    # Called where h11 has raised, and what `refuse` does then is all that happens.
    assert "self.send_400_response" in inspect.getsource(H11Protocol.handle_events)


def test_the_cycle() -> None:
    source = inspect.getsource(RequestResponseCycle)
    for name in (
        "disconnected",
        "keep_alive",
        "waiting_for_100_continue",
        "more_body",
        "response_started",
        "response_complete",
        "default_headers",
        "message_event",
        "transport",
    ):
        assert f"self.{name} = " in source, name
    # What a client may be sending still is closed by this, and by nothing else.
    assert set(re.findall(r"self\.transport\.(\w+)", source)) == {"write", "close", "is_closing"}


def test_flow_control() -> None:
    for name in ("pause_reading", "resume_reading", "pause_writing", "resume_writing"):
        assert callable(getattr(FlowControl, name)), name


def test_the_websocket() -> None:
    protocol = made(WebSocketsSansIOProtocol)
    for name in (
        "app",
        "logger",
        "connections",
        "handshake_complete",
        "initial_response",
        "disconnected",
        "close_sent",
        "conn",
    ):
        assert hasattr(protocol, name), name
    for name in ("shutdown", "handle_parser_exception", "send_500_response", "pause_writing"):
        assert callable(getattr(WebSocketsSansIOProtocol, name)), name


@pytest.mark.skipif(not PROJECT.exists(), reason="pyproject.toml is not beside these tests")
def test_the_range_is_that_of_the_extra() -> None:
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    (range_,) = [needed for needed in extras["http"] if needed.startswith("uvicorn")]
    first, before = http._UVICORN_FROM, http._UVICORN_BEFORE
    assert range_ == f"uvicorn>={first[0]}.{first[1]},<{before[0]}.{before[1]}"
    assert first <= http._uvicorn_version() < before


def test_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn, "__version__", "0.52.4")
    with pytest.raises(SettingError, match=r"a newer uvicorn than 0\.52"):
        handler_of(App())
    monkeypatch.setattr(uvicorn, "__version__", "1.2.3rc4")
    (note,) = handler_of(App()).notes()
    assert note.startswith("uvicorn 1.2 is newer")
