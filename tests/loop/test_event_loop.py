"""`fastlisten.new_event_loop` and `fastlisten.run`: which loop they use, how it starts and ends.

Rules of this file: no details of servers; the files beside this one compare those with asyncio's.
"""

from __future__ import annotations

import asyncio
import builtins
import gc
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
import uvloop
from support.loops import LoopFactory

import fastlisten
from fastlisten.loop.engines import engine_for, existing_engine

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Echo(asyncio.Protocol):
    """Sends back what it receives."""

    lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True


async def ask(address: Any, question: bytes = b"hello") -> bytes:
    """Return what a server answers to a question."""
    reader, writer = await asyncio.open_connection(*address[:2])
    writer.write(question)
    answer = await asyncio.wait_for(reader.readexactly(len(question)), 10)
    writer.close()
    await writer.wait_closed()
    return answer


# --- which loop -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "base"), [(None, uvloop.Loop), (True, uvloop.Loop), (False, asyncio.BaseEventLoop)]
)
def test_base_loop(wanted: bool | None, base: type) -> None:
    with asyncio.Runner(loop_factory=lambda: fastlisten.new_event_loop(wanted)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, base)
        assert isinstance(loop, asyncio.AbstractEventLoop)


def test_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's loop if uvloop cannot be imported; an error if it was asked for."""
    original = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "uvloop":
            raise ImportError("No module named 'uvloop'", name="uvloop")
        return original(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "fastlisten.loop.uvloop_loop", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    loop = fastlisten.new_event_loop()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    loop.close()
    with pytest.raises(ImportError, match="uvloop"):
        fastlisten.new_event_loop(True)


def test_uvloop_is_imported_only_when_used() -> None:
    code = "import sys, fastlisten; fastlisten.new_event_loop(False).close(); "
    code += "assert 'uvloop' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# --- run --------------------------------------------------------------------------------------


async def main_of_asyncio() -> bool:
    """Return whether asyncio finds debug mode on in the environment."""
    return asyncio.get_running_loop().get_debug()


def test_run() -> None:
    async def main() -> tuple[str, bool]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        async with server:
            assert await ask(server.sockets[0].getsockname()) == b"hello"
        return type(loop).__name__, loop.get_debug()

    assert fastlisten.run(main(), debug=False) == ("UvloopLoop", False)
    assert fastlisten.run(main())[1] == asyncio.run(main_of_asyncio())
    assert fastlisten.run(main(), debug=True) == ("UvloopLoop", True)


def test_run_raises_the_exception_of_main() -> None:
    async def main() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fastlisten.run(main())


def test_run_rejects_what_asyncio_rejects() -> None:
    """The errors are the same."""

    async def nested() -> None:
        coroutine = asyncio.sleep(0)
        try:
            with pytest.raises(RuntimeError, match=r"cannot be called from a running event loop"):
                fastlisten.run(coroutine)
        finally:
            coroutine.close()

    fastlisten.run(nested())
    with pytest.raises((ValueError, TypeError), match="coroutine"):
        fastlisten.run(5)  # type: ignore[arg-type]


# --- the end ----------------------------------------------------------------------------------


def serve_and_stop(loop: asyncio.AbstractEventLoop) -> tuple[Any, Echo, socket.socket]:
    """Serve a client and stop the loop; return server, protocol and client, all open."""
    made: list[Echo] = []

    def factory() -> Echo:
        made.append(Echo())
        return made[-1]

    async def main() -> tuple[Any, Echo, socket.socket]:
        server = await loop.create_server(factory, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        while not made:
            await asyncio.sleep(0)
        return server, made[0], client

    return loop.run_until_complete(main())


def test_close_drops_connections(our_loop_factory: LoopFactory) -> None:
    """There is no warning: the client sees the end and the protocol is not told, as in asyncio."""
    loop = our_loop_factory()
    server, protocol, client = serve_and_stop(loop)
    engine = engine_for(loop)
    loop.close()
    loop.close()
    assert loop.is_closed()
    assert engine.closed
    assert existing_engine(loop) is None
    with client:
        client.settimeout(10)
        assert client.recv(1) == b""
    assert not protocol.lost
    assert protocol.transport.is_closing()
    server.close()
    del server, protocol, loop, engine
    gc.collect()


def test_close_while_running_is_an_error(our_loop_factory: LoopFactory) -> None:
    """It raises, and closes nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
            with pytest.raises(RuntimeError, match=r"[Cc]annot close a running event loop"):
                loop.close()
            assert await ask(server.sockets[0].getsockname()) == b"hello"

    with asyncio.Runner(loop_factory=our_loop_factory) as runner:
        runner.run(main())


def test_loop_that_never_served(our_loop_factory: LoopFactory) -> None:
    loop = our_loop_factory()
    assert existing_engine(loop) is None
    loop.close()


def test_engine_ends_with_the_last_server(our_loop_factory: LoopFactory) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
                assert existing_engine(loop) is not None
                address = server.sockets[0].getsockname()
                assert await ask(address) == b"hello"
                while server.connections:  # type: ignore[attr-defined]
                    await asyncio.sleep(0)
            assert existing_engine(loop) is None

    with asyncio.Runner(loop_factory=our_loop_factory) as runner:
        runner.run(main())


# --- threads and several loops ----------------------------------------------------------------


def test_loops_in_threads(our_loop_factory: LoopFactory) -> None:
    """Two loops serve at the same time, each in its own thread and with its own engine."""
    addresses: dict[int, Any] = {}
    ready, over = threading.Barrier(3), threading.Event()
    failures: list[BaseException] = []

    def serve(number: int) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
                addresses[number] = server.sockets[0].getsockname()
                ready.wait(10)
                await loop.run_in_executor(None, over.wait, 10)
                assert engine_for(loop).loop is loop
                while server.connections:  # type: ignore[attr-defined]
                    await asyncio.sleep(0.001)

        try:
            with asyncio.Runner(loop_factory=our_loop_factory) as runner:
                runner.run(main())
        except BaseException as exc:
            failures.append(exc)
            ready.abort()

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        ready.wait(10)
        for question in (b"one", b"two"):
            for number in range(2):
                with socket.create_connection(addresses[number], timeout=10) as client:
                    client.sendall(question)
                    assert client.recv(3) == question
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert failures == []


def test_stop_from_another_thread(our_loop_factory: LoopFactory) -> None:
    """call_soon_threadsafe wakes a loop that does nothing but serve."""
    loop = our_loop_factory()
    server, _, client = serve_and_stop(loop)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with client:
        client.settimeout(10)
        client.sendall(b"still there?")
        assert client.recv(12) == b"still there?"
    loop.call_soon_threadsafe(server.close)
    done = asyncio.run_coroutine_threadsafe(server.wait_closed(), loop)
    done.result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    assert not thread.is_alive()
    loop.close()
