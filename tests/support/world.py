"""A script, run on asyncio's own server and on ours: asyncio is the oracle.

Rules of this file: a script is an async function of a `World`; it serves, connects raw sockets, and
waits for events, never for a time. What happens is noted in `World.log`, in words that do not
depend on the implementation, so that the logs of two worlds can be compared with ``==``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import fastlisten
from support.loops import LoopFactory
from support.raw_client import RawClient, describe, patiently
from support.waiting import PATIENCE

#: Iterations of the loop after which everything has happened: loopback delivers at once, and
#: asyncio's longest chain (accept, task, connection_made, reader) has four links.
TURNS = 25

#: The callbacks of `asyncio.Protocol`.
CALLBACKS = (
    "connection_made",
    "data_received",
    "eof_received",
    "connection_lost",
    "pause_writing",
    "resume_writing",
)

Note = tuple[Any, ...]
Hook = Callable[..., Any]
Script = Callable[["World"], Awaitable[None]]


class Recorder(asyncio.Protocol):
    """Notes each callback, then runs the hook of that name and returns its result.

    Args:
        world: the world whose log is used.
        hooks: functions of (protocol, *arguments of the callback), by name of the callback.
        name: a prefix of each note, to tell several protocols apart.
    """

    transport: Any = None

    def __init__(self, world: World, hooks: dict[str, Hook] | None = None, name: str = "") -> None:
        self.world = world
        self.hooks = hooks or {}
        self.name = name

    def _happened(self, callback: str, *arguments: Any, noted: tuple[Any, ...] = ()) -> Any:
        self.world.note(self.name + callback, *noted)
        hook = self.hooks.get(callback)
        return None if hook is None else hook(self, *arguments)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.world.transports.append(transport)
        self._happened("connection_made", transport)

    def data_received(self, data: bytes) -> None:
        self._happened("data_received", data, noted=(type(data).__name__, bytes(data)))

    def eof_received(self) -> bool | None:
        result: bool | None = self._happened("eof_received")
        return result

    def connection_lost(self, exc: BaseException | None) -> None:
        self._happened("connection_lost", exc, noted=(describe(exc),))

    def pause_writing(self) -> None:
        self._happened("pause_writing")

    def resume_writing(self) -> None:
        self._happened("resume_writing")


class Buffered(Recorder, asyncio.BufferedProtocol):
    """The same with a buffer of its own, of `size` bytes."""

    def __init__(
        self, world: World, hooks: dict[str, Hook] | None = None, name: str = "", size: int = 4096
    ) -> None:
        super().__init__(world, hooks, name)
        self.buffer = bytearray(size)

    def get_buffer(self, sizehint: int) -> Any:
        hook = self.hooks.get("get_buffer")
        return self.buffer if hook is None else hook(self, sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._happened("buffer_updated", nbytes, noted=(nbytes, bytes(self.buffer[:nbytes])))


class World:
    """One running loop with one way of serving, and the log of what happened.

    Attributes:
        log: notes in order.
        native: whether our server is used, not asyncio's.
        transports: the transports of all `Recorder` objects, in order of connection_made.
        create: the `create_server` of this world.
    """

    def __init__(self, native: bool) -> None:
        self.native = native
        self.log: list[Note] = []
        self.transports: list[Any] = []
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._handle)
        self.create: Any = fastlisten.create_server if native else self.loop.create_server
        self._open = contextlib.AsyncExitStack()

    # -- the log

    def note(self, *what: Any) -> None:
        """Append to the log."""
        self.log.append(what)

    def count(self, what: str) -> int:
        """Return how many notes begin with `what`."""
        return sum(1 for note in self.log if note[0] == what)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message = context["message"]
        exception = describe(context.get("exception"))
        if message.startswith("Exception in callback "):
            # Names the callback object and has its handle: those are the implementation's.
            self.note("handler", "Exception in callback", exception)
        else:
            keys = sorted(context.keys() - {"source_traceback", "handle_traceback"})
            self.note("handler", message, exception, *keys)

    def attempt(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call and note what it returned or raised."""
        try:
            result = function(*arguments)
        except Exception as exc:
            self.note(what, describe(exc))
        else:
            self.note(what, result)
            return result

    # -- stepping

    async def patience(self, awaitable: Awaitable[Any]) -> Any:
        """Await something for at most `PATIENCE`."""
        return await patiently(awaitable)

    async def until(self, what: str | Callable[[], Any], count: int = 1) -> None:
        """Wait until `count` notes begin with `what`, or until the function returns true."""
        end = self.loop.time() + PATIENCE
        while not (what() if callable(what) else self.count(what) >= count):
            if self.loop.time() > end:
                raise AssertionError(f"waited in vain for {what!r}; log: {self.log}")
            await asyncio.sleep(0.0005)

    async def settle(self) -> None:
        """Run the loop until nothing more happens by itself."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    # -- serving and connecting

    async def serve(
        self,
        factory: Callable[[], Any],
        *,
        unix: bool = False,
        family: int = socket.AF_INET,
        send_buffer: int = 0,
        receive_buffer: int = 0,
        **options: Any,
    ) -> Any:
        """Serve on a fresh socket; buffer sizes are inherited by the connections."""
        if unix:
            folder = self._open.enter_context(tempfile.TemporaryDirectory())
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(os.path.join(folder, "s"))
        else:
            sock = socket.socket(family)
            sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        if send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.address = sock.getsockname()
        self.family = sock.family
        server = await self.create(factory, sock=sock, **options)
        self._open.callback(server.close)
        return server

    async def connect(self, receive_buffer: int = 0, send_buffer: int = 0) -> RawClient:
        """Return a client connected to the latest server."""
        sock = socket.socket(self.family)
        self._open.callback(sock.close)
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        await patiently(self.loop.sock_connect(sock, self.address))
        return RawClient(sock)

    async def reachable(self, address: Any, family: int = socket.AF_INET) -> str:
        """Connect and close, let the server notice both, and return the outcome."""
        with socket.socket(family) as sock:
            sock.setblocking(False)
            try:
                await patiently(self.loop.sock_connect(sock, address))
            except OSError as exc:
                return type(exc).__name__
            await self.settle()
        await self.settle()
        return "connected"

    async def close(self) -> None:
        """Close everything that the script opened."""
        for transport in self.transports:
            # asyncio's transports fail on abort() after close() has sent the last byte.
            if transport.get_protocol() is not None:
                transport.abort()
        await self._open.aclose()
        await self.settle()


def numbers(size: int, seed: int = 1) -> bytes:
    """Return bytes in which a missing or repeated part is noticed."""
    return random.Random(seed).randbytes(size)


#: More than the kernel takes from a server with `send_buffer=8192` for a client that does not
#: read and has a receive buffer of 4096, and more than the default high-water mark.
MUCH = 300_000


async def stuffed(world: World, hooks: dict[str, Hook] | None = None) -> tuple[RawClient, Any]:
    """Return a client and a transport that holds `MUCH` bytes, mostly unsent."""
    await world.serve(lambda: Recorder(world, hooks), send_buffer=8192)
    client = await world.connect(receive_buffer=4096)
    await world.until("connection_made")
    transport = world.transports[0]
    transport.write(numbers(MUCH))
    assert transport.get_write_buffer_size() > 65536
    return client, transport


def play(
    script: Script, loop_factory: LoopFactory, *, native: bool = True, debug: bool | None = None
) -> list[Note]:
    """Run a script and return the log up to its end."""

    async def main() -> list[Note]:
        world = World(native)
        try:
            await script(world)
            return list(world.log)
        finally:
            await world.close()

    with asyncio.Runner(loop_factory=loop_factory, debug=debug) as runner:
        return runner.run(main())


def same_as_asyncio(
    script: Script, loop_factory: LoopFactory, *, debug: bool | None = None
) -> list[Note]:
    """Run a script on asyncio's server and on ours; check that the logs agree; return it."""
    expected = play(script, asyncio.SelectorEventLoop, native=False, debug=debug)
    assert expected, "a script that notes nothing proves nothing"
    found = play(script, loop_factory, native=True, debug=debug)
    assert found == expected
    return found
