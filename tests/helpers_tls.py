"""One script over TLS, played on asyncio's own server and on ours: asyncio is the oracle.

Rules of this file: as in helpers_connection, whose `World` this one extends. The client of a script
is no transport of asyncio but an `ssl.SSLObject` between two buffers, so that a script decides
which bytes go into the socket, when, and how the connection ends. Errors of OpenSSL are noted by
class and reason: their texts name lines of CPython's source.
"""

from __future__ import annotations

import _ssl
import asyncio
import contextlib
import ctypes
import difflib
import gc
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop
from helpers_connection import (
    Buffered,
    Client,
    LoopFactory,
    Note,
    Recorder,
    World,
    describe,
)
from helpers_tls_certificates import HOST, client_context, server_context

import fastlisten._tls as native_tls
from fastlisten.runtime.loop import engine_for

__all__ = [
    "KINDS",
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
    "openssl_function",
    "play_tls",
    "same_tls",
    "spelled",
    "tls_sessions",
]

TlsScript = Callable[["TlsWorld"], Awaitable[None]]

#: How our transports reach OpenSSL: CPython's private socket wrapper, or the public SSLSocket.
KINDS = ("private", "public")
#: What semantics are tested on: the loop, and how OpenSSL is reached. The second way to OpenSSL
#: knows no loop, so it is tried on one only.
WAYS: list[tuple[LoopFactory, str]] = [
    (asyncio.SelectorEventLoop, "private"),
    (uvloop.new_event_loop, "private"),
    (asyncio.SelectorEventLoop, "public"),
]
WAY_NAMES = ["asyncio", "uvloop", "asyncio-public"]


def spelled(exc: BaseException | None) -> str:
    """Return class and arguments of an exception, equal for equal errors."""
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return f"{type(exc).__name__}({exc.reason})"
    return describe(exc)


class TlsRecorder(Recorder):
    """A `Recorder` that spells errors of OpenSSL."""

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


class TlsClient:
    """The client's side of TLS over a raw socket, step by step.

    Attributes:
        tls: OpenSSL's state.
        raw: the socket below.
    """

    def __init__(
        self,
        raw: Client,
        context: ssl.SSLContext | None = None,
        *,
        name: str | None = HOST,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.raw = raw
        self.sock = raw.sock
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = (context or client_context()).wrap_bio(
            self.incoming, self.outgoing, server_hostname=name, session=session
        )

    # -- what goes into the socket

    async def flush(self) -> None:
        """Send what OpenSSL wants to be sent."""
        if self.outgoing.pending:
            await self.raw.send(self.outgoing.read())

    def flight(self) -> bytes:
        """Take what OpenSSL wants to be sent, to be sent otherwise or not at all."""
        return self.outgoing.read()

    def sealed(self, data: bytes) -> bytes:
        """Return the records of some data."""
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        return self.flight()

    async def send(self, data: bytes) -> None:
        """Send data encrypted."""
        await self.raw.send(self.sealed(data))

    # -- what comes out of it

    async def feed(self) -> bool:
        """Wait for input; False at its end."""
        data = await self.raw.world.patience(self.raw.world.loop.sock_recv(self.sock, 1 << 18))
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return bool(data)

    async def step(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what may want input, until it has what it wants."""
        while True:
            try:
                result = function(*arguments)
            except ssl.SSLWantReadError:
                await self.flush()
                await self.feed()
            else:
                await self.flush()
                return result

    async def handshake(self) -> TlsClient:
        """Shake hands."""
        try:
            await self.step(self.tls.do_handshake)
        finally:
            with contextlib.suppress(OSError):
                await self.flush()  # an alert
        return self

    async def last_flight(self) -> bytes:
        """Shake hands up to the client's second flight, and return that instead of sending it."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        await self.flush()
        while not self.outgoing.pending:
            await self.feed()
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
        return self.flight()

    async def receive(self, size: int) -> bytes:
        """Return exactly `size` decrypted bytes, fewer if the stream ends before."""
        parts = bytearray()
        while len(parts) < size:
            try:
                data = await self.step(self.tls.read, min(size - len(parts), 1 << 18))
            except ssl.SSLZeroReturnError:
                break
            if not data:
                break
            parts += data
        return bytes(parts)

    async def rest(self) -> tuple[bytes, str]:
        """Read to the end; return what came, and how it ended.

        "close_notify", "truncated" (TCP's end without it), or the error.
        """
        parts = bytearray()
        try:
            while data := await self.step(self.tls.read, 1 << 18):
                parts += data
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError) as exc:
            if isinstance(exc, ssl.SSLEOFError):
                return bytes(parts), "truncated"
        except OSError as exc:
            return bytes(parts), spelled(exc)
        return bytes(parts), "close_notify"

    # -- the end

    def notice(self) -> bytes:
        """Return the record of our close_notify."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.flight()

    async def notify(self) -> None:
        """Send close_notify, and do not wait for the other."""
        await self.raw.send(self.notice())

    async def close(self) -> None:
        """Send close_notify, then TCP's end."""
        with contextlib.suppress(OSError):
            await self.notify()
        self.raw.close()

    def finish(self) -> None:
        """Shut down the sending side of TCP, without close_notify."""
        self.raw.finish()

    def reset(self) -> None:
        """Close with a reset."""
        self.raw.reset()


class TlsWorld(World):
    """A `World` whose servers speak TLS.

    Attributes:
        server: the server made last.
        ours: what a script finds out of ours that asyncio does not have; not compared.
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

    async def connect(self, receive_buffer: int = 0, send_buffer: int = 0) -> Client:
        """Return a raw client connected to the server made last."""
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
        """Return a client that has shaken hands with the server made last."""
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
            # asyncio's, closed twice, has let go of its protocol and fails at most calls.
            with contextlib.suppress(AttributeError):
                if transport.get_protocol() is not None:
                    transport.abort()
        self.transports.clear()
        await super().close()

    async def nothing_left(self) -> None:
        """Wait until no slot and no endpoint of ours is in use, nor any transport object."""
        if not self.native:
            return
        engine = engine_for(self.loop)
        names = ("accepted", "lazy", "served", "lingering", "endpoints", "open")
        await self.until(lambda: not any(engine.census()[name] for name in names))


def openssl_state(tls: ssl.SSLObject) -> int:
    """Return the address of OpenSSL's SSL structure, for calls by ctypes."""
    # The object's head, its socket, then the pointer (CPython 3.7 to 3.14).
    inner: Any = tls._sslobj  # type: ignore[attr-defined]
    place = id(inner) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    address = ctypes.c_void_p.from_address(place).value
    assert address is not None
    return address


def openssl_function(name: str, *arguments: Any) -> Callable[..., int]:
    """Return a function of the OpenSSL that Python's ssl uses; skip the test where there is none.

    Args:
        name: of a function that takes an SSL structure.
        arguments: the types of the arguments behind it.
    """
    if sys.version_info >= (3, 15):
        pytest.skip("where this Python keeps OpenSSL's state is not known here")
    try:
        function: Any = getattr(ctypes.CDLL(_ssl.__file__), name)
    except (AttributeError, OSError):
        pytest.skip("the OpenSSL of this Python cannot be called by ctypes")
    function.argtypes = [ctypes.c_void_p, *arguments]
    function.restype = ctypes.c_int
    return lambda tls, *values: int(function(openssl_state(tls), *values))


def tls_sessions() -> int:
    """Return how many sessions of OpenSSL exist, after a collection of garbage.

    Each transport over TLS holds one from its client's first byte on; the transports themselves
    are not known to the collector.
    """
    gc.collect()
    return sum(type(thing).__name__ == "_SSLSocket" for thing in gc.get_objects())


@contextlib.contextmanager
def no_session_left() -> Iterator[None]:
    """Assert that the block leaves no session behind that was not there before."""
    before = tls_sessions()
    yield
    assert tls_sessions() <= before


@contextlib.contextmanager
def kind_of_api(kind: str) -> Iterator[None]:
    """Let new connections use one of `KINDS` for the time of the block."""
    before = native_tls.use_public_api(kind == "public")
    try:
        yield
    finally:
        native_tls.use_public_api(before)


def play_tls(
    script: TlsScript,
    loop_factory: LoopFactory,
    *,
    native: bool = True,
    kind: str = "private",
    debug: bool | None = None,
) -> list[Note]:
    """Run a script and return the log up to its end."""

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
    """Return the log with neighbouring data_received made one: TLS keeps no boundaries."""
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
    kind: str = "private",
    debug: bool | None = None,
) -> list[Note]:
    """Play a script on asyncio's server and on ours; the logs must agree. Return the log."""
    expected = joined(play_tls(script, asyncio.SelectorEventLoop, native=False, debug=debug))
    assert expected, "a script that notes nothing proves nothing"
    found = joined(play_tls(script, loop_factory, kind=kind, debug=debug))
    if found != expected:
        lines = difflib.ndiff([repr(n)[:300] for n in expected], [repr(n)[:300] for n in found])
        raise AssertionError("asyncio's log (-) and ours (+) differ:\n" + "\n".join(lines))
    return found
