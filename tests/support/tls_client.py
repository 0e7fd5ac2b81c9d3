"""A TLS client step by step, and OpenSSL functions that Python does not offer.

Rules of this file: a client is not an asyncio transport but an `ssl.SSLObject` between two buffers,
so that a script decides which bytes go into the socket, when, and how the connection ends.
"""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import gc
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.raw_client import RawClient, describe
from support.tls_contexts import HOST, client_context


def spelled(exc: BaseException | None) -> str:
    """Return class and arguments of an exception, equal for equal errors."""
    if isinstance(exc, ssl.SSLError) and exc.reason:
        return f"{type(exc).__name__}({exc.reason})"
    return describe(exc)


async def handshake_by_hand(
    client: RawClient,
) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """Do the handshake and nothing else: nothing more is read, and nothing is answered.

    Returns:
        OpenSSL's state, what it will read, and what it wants to send.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname=HOST)
    while True:
        try:
            tls.do_handshake()
            return tls, incoming, outgoing
        except ssl.SSLWantReadError:
            if outgoing.pending:
                await client.send(outgoing.read())
            incoming.write(await client.read())


class TlsClient:
    """The client's side of TLS over a raw socket, step by step.

    Attributes:
        tls: OpenSSL's state.
        raw: the socket below.
    """

    def __init__(
        self,
        raw: RawClient,
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
        """Send OpenSSL's pending output."""
        if self.outgoing.pending:
            await self.raw.send(self.outgoing.read())

    def flight(self) -> bytes:
        """Take OpenSSL's pending output instead of sending it."""
        return self.outgoing.read()

    def sealed(self, data: bytes) -> bytes:
        """Return data as encrypted records."""
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
        data = await self.raw.read()
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return bool(data)

    async def step(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of OpenSSL, feeding it input until it succeeds."""
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
        """Perform the handshake."""
        try:
            await self.step(self.tls.do_handshake)
        finally:
            with contextlib.suppress(OSError):
                await self.flush()  # an alert
        return self

    async def last_flight(self) -> bytes:
        """Handshake up to the client's second flight, and return that instead of sending it."""
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
        """Read to the end; return the data, and how it ended.

        "close_notify", "truncated" (the end of TCP without it), or the error.
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
        """Send close_notify, without waiting for the server's."""
        await self.raw.send(self.notice())

    async def close(self) -> None:
        """Send close_notify and close the socket."""
        with contextlib.suppress(OSError):
            await self.notify()
        self.raw.close()

    def finish(self) -> None:
        """Shut down the sending side of TCP, without close_notify."""
        self.raw.finish()

    def reset(self) -> None:
        """Close with a reset."""
        self.raw.reset()


def openssl_state(tls: ssl.SSLObject) -> int:
    """Return the address of OpenSSL's SSL structure, for calls by ctypes."""
    # The object's head, its socket, then the pointer (CPython 3.7 to 3.15).
    inner: Any = tls._sslobj  # type: ignore[attr-defined]
    place = id(inner) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    address = ctypes.c_void_p.from_address(place).value
    assert address is not None
    return address


def openssl_function(name: str, *arguments: Any) -> Callable[..., int]:
    """Return a function of the OpenSSL that Python's ssl module uses; skip the test without it.

    Args:
        name: the name of a function whose first argument is an SSL structure.
        arguments: the types of the other arguments.
    """
    try:
        function: Any = getattr(ctypes.CDLL(_ssl.__file__), name)
    except (AttributeError, OSError):
        pytest.skip("the OpenSSL of this Python cannot be called by ctypes")
    function.argtypes = [ctypes.c_void_p, *arguments]
    function.restype = ctypes.c_int
    return lambda tls, *values: int(function(openssl_state(tls), *values))


def tls_sessions() -> int:
    """Return how many OpenSSL sessions exist, after a garbage collection.

    Each TLS transport holds one from its client's first byte on; the transports themselves are not
    tracked by the collector.
    """
    gc.collect()
    return sum(type(thing).__name__ == "_SSLSocket" for thing in gc.get_objects())


@contextlib.contextmanager
def no_session_left() -> Iterator[None]:
    """Assert that the block leaves no session behind that was not there before."""
    before = tls_sessions()
    yield
    assert tls_sessions() <= before
