"""The end of a server: handlers stop in reverse order, whatever others do; counters stay."""

from __future__ import annotations

import pytest
from support.loops import on_loops
from support.server import connect, read_some
from support.serving_handlers import Echo

from fastlisten import Server
from fastlisten.config import loads

pytestmark = pytest.mark.usefixtures("descriptors_back")

TEXT = "".join(
    f"""
[server.listener.{name}]
protocol = "http"
bind = "127.0.0.1:0"
handler = "support.serving_handlers:Echo"
"""
    for name in ("a", "b", "c")
)


@on_loops
@pytest.mark.parametrize("failing", ["", "b", "c"])
async def test_the_last_handler_stops_first(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []

    async def stop(self: Echo) -> None:
        stopped.append(self.settings.listener)
        if self.settings.listener == failing:
            raise RuntimeError("cannot stop")

    monkeypatch.setattr(Echo, "stop", stop)
    server = Server(loads(TEXT))
    await server.startup()
    if failing:
        with pytest.raises(RuntimeError, match="cannot stop"):
            await server.shutdown()
    else:
        await server.shutdown()
    assert stopped == ["c", "b", "a"]


@on_loops
async def test_counters_outlive_the_sockets() -> None:
    server = Server(loads(TEXT))
    await server.startup()
    listener = server.listeners[0]
    with await connect("127.0.0.1", listener.sockets[0].port) as client:
        client.send(b"x")
        assert await read_some(client, 1) == b"x"
    await server.shutdown()
    assert listener.statistics()["accepted"] == 1
