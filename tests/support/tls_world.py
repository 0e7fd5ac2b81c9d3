"""A script over TLS, run on asyncio's own server and on ours: asyncio is the oracle.

Rules of this file: as in support.world, whose `World` this one extends. OpenSSL's errors are noted
by class and reason, because their texts contain line numbers of CPython's source.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

import fastlisten._tls as native_tls
from fastlisten.loop.engines import engine_for
from support.loops import LoopFactory
from support.raw_client import RawClient
from support.tls_client import TlsClient, no_session_left, openssl_function, spelled, tls_sessions
from support.tls_contexts import server_context
from support.world import Buffered, Note, Recorder, World

__all__ = [
    "KINDS",
    "MUCH",
    "SMALL",
    "WAYS",
    "WAY_NAMES",
    "TlsBuffered",
    "TlsClient",
    "TlsRecorder",
    "TlsScript",
    "TlsWorld",
    "joined",
    "kind_of_api",
    "no_session_left",
    "on_all_ways",
    "openssl_function",
    "play_tls",
    "same_tls",
    "spelled",
    "tls_sessions",
]

TlsScript = Callable[["TlsWorld"], Awaitable[None]]

#: What OpenSSL reads and writes in our transports: the socket itself, or memory.
KINDS = ("socket", "memory")
#: Loops and kinds for tests of semantics. The second kind does not depend on the loop, so it is
#: tested on one only.
WAYS: list[tuple[LoopFactory, str]] = [
    (asyncio.SelectorEventLoop, "socket"),
    (uvloop.new_event_loop, "socket"),
    (asyncio.SelectorEventLoop, "memory"),
]
WAY_NAMES = ["asyncio", "uvloop", "asyncio-memory"]
on_all_ways = pytest.mark.parametrize(("loop_factory", "kind"), WAYS, ids=WAY_NAMES)

#: The kernel's minimum; it doubles what is asked for.
SMALL: dict[str, Any] = {"send_buffer": 4096, "receive_buffer": 4096}
#: More than all buffers between the two sides hold, and than the high-water mark of 512 KiB.
MUCH = 1_500_000


class TlsRecorder(Recorder):
    """A `Recorder` that notes OpenSSL's errors by class and reason."""

    def connection_lost(self, exc: BaseException | None) -> None:
        self._happened("connection_lost", exc, noted=(spelled(exc),))


class TlsBuffered(Buffered):
    """The same with a buffer of its own."""

    def get_buffer(self, sizehint: int) -> Any:
        answer = super().get_buffer(sizehint)
        # asyncio's SSLProtocol loses what does not come with the first record into a bytearray.
        return memoryview(answer) if answer is self.buffer else answer

    def connection_lost(self, exc: BaseException | None) -> None:
        self._happened("connection_lost", exc, noted=(spelled(exc),))


class TlsWorld(World):
    """A `World` whose servers speak TLS.

    Attributes:
        server: the latest server.
        ours: what a script finds out about our server alone; not compared.
    """

    server: Any = None
    ours: Any = None

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exception = spelled(context.get("exception"))
        if context["message"].startswith("Exception in callback "):
            self.note("handler", "Exception in callback", exception)
        else:
            keys = sorted(context.keys() - {"source_traceback", "handle_traceback"})
            self.note("handler", context["message"], exception, *keys)

    def attempt(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call and note what it returned or raised."""
        try:
            result = function(*arguments)
        except Exception as exc:
            self.note(what, spelled(exc))
        else:
            self.note(what, result)
            return result

    async def serve(
        self,
        factory: Callable[[], Any],
        *,
        context: ssl.SSLContext | None = None,
        plain: bool = False,
        **options: Any,
    ) -> Any:
        """Serve TLS (or `plain`) on a fresh socket; the rest as `World.serve`."""
        if not plain:
            options["ssl"] = context or server_context()
        self.server = await super().serve(factory, **options)
        return self.server

    async def connect(self, receive_buffer: int = 0, send_buffer: int = 0) -> RawClient:
        """Return a raw client connected to the latest server."""
        client = await super().connect(receive_buffer, send_buffer)
        if client.sock.family != socket.AF_UNIX:
            # Two small segments in a row must not wait for each other's acknowledgement.
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    async def join(
        self,
        context: ssl.SSLContext | None = None,
        *,
        session: ssl.SSLSession | None = None,
        **options: Any,
    ) -> TlsClient:
        """Return a client after its handshake with the latest server."""
        client = await self.connect(**options)
        return await TlsClient(client, context, session=session).handshake()

    async def made(self, **options: Any) -> tuple[TlsClient, Any]:
        """Return such a client and the transport that serves it."""
        count = self.count("connection_made")
        client = await self.join(**options)
        await self.until("connection_made", count + 1)
        return client, self.transports[-1]

    async def close(self) -> None:
        """Close everything that the script opened."""
        for transport in self.transports:
            # asyncio's transport, closed twice, has no protocol and fails at most calls.
            with contextlib.suppress(AttributeError):
                if transport.get_protocol() is not None:
                    transport.abort()
        self.transports.clear()
        await super().close()

    async def nothing_left(self) -> None:
        """Wait until none of our slots, endpoints and transports is in use."""
        if not self.native:
            return
        engine = engine_for(self.loop)
        names = ("accepted", "lazy", "served", "lingering", "endpoints", "open")
        await self.until(lambda: not any(engine.census()[name] for name in names))


@contextlib.contextmanager
def kind_of_api(kind: str) -> Iterator[None]:
    """Let new connections use one of `KINDS` for the length of a block."""
    before = native_tls.use_memory(kind == "memory")
    try:
        yield
    finally:
        native_tls.use_memory(before)


def play_tls(
    script: TlsScript,
    loop_factory: LoopFactory,
    *,
    native: bool = True,
    kind: str = "socket",
    debug: bool = False,
) -> list[Note]:
    """Run a script and return the log up to its end.

    Not in debug mode unless asked for, whatever mode Python is in: asyncio says more there.
    """

    async def main() -> list[Note]:
        world = TlsWorld(native)
        try:
            await script(world)
            return list(world.log)
        finally:
            await world.close()

    with kind_of_api(kind), asyncio.Runner(loop_factory=loop_factory, debug=debug) as runner:
        return runner.run(main())


def joined(log: list[Note]) -> list[Note]:
    """Return the log with adjacent data_received joined, because TLS keeps no boundaries."""
    result: list[Note] = []
    for note in log:
        if result and note[0] == result[-1][0] and note[0].endswith("data_received"):
            result[-1] = (note[0], note[1], result[-1][2] + note[2])
        else:
            result.append(note)
    return result


def same_tls(
    script: TlsScript,
    loop_factory: LoopFactory,
    *,
    kind: str = "socket",
    debug: bool = False,
) -> list[Note]:
    """Run a script on asyncio's server and on ours; check that the logs agree; return it."""
    expected = joined(play_tls(script, asyncio.SelectorEventLoop, native=False, debug=debug))
    assert expected, "a script that notes nothing proves nothing"
    found = joined(play_tls(script, loop_factory, kind=kind, debug=debug))
    if found != expected:
        lines = difflib.ndiff([repr(n)[:300] for n in expected], [repr(n)[:300] for n in found])
        raise AssertionError("asyncio's log (-) and ours (+) differ:\n" + "\n".join(lines))
    return found
