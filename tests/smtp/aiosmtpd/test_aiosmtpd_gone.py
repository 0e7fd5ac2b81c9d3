"""A client disconnects while a hook runs: the hook is cancelled, the place becomes free.

Rules of this file: the controller has one place and the hook never returns, so that a second client
is served only if the first one's end was noticed. Order comes from events, never from time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.aiosmtpd import PLAIN, server_context, serving
from support.certificates import authority
from support.smtp_client import MESSAGE, SmtpClient, connected
from support.waiting import until

HELLO, MAIL, RCPT = (
    "EHLO client.example.com",
    "MAIL FROM:<a@example.com>",
    "RCPT TO:<b@example.com>",
)


class Waits:
    """A handler with one hook that never returns."""

    def __init__(self, hook: str) -> None:
        self.began, self.cancelled = threading.Event(), threading.Event()

        async def wait(*arguments: Any) -> Any:
            self.began.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

        setattr(self, hook, wait)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        return "250 OK"


#: The dialogue that leads to each hook.
STEPS: dict[str, list[str | bytes]] = {
    "handle_NOOP": ["NOOP"],
    "handle_MAIL": [HELLO, MAIL],
    "handle_RCPT": [HELLO, MAIL, RCPT],
    "handle_DATA": [HELLO, MAIL, RCPT, "DATA", MESSAGE + b"."],
    "handle_VRFY": [HELLO, "VRFY a"],
    "auth_PLAIN": [HELLO, PLAIN],
}


def disconnect(client: SmtpClient) -> None:
    """Disconnect at once."""


def half_close(client: SmtpClient) -> None:
    """Shut down the sending half first."""
    client.sock.shutdown(socket.SHUT_WR)


def flood(client: SmtpClient) -> None:
    """First send more than is read ahead, so that reading is paused."""
    client.sock.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while True:
            client.sock.sendall(b"NOOP\r\n" * 10_000)


#: How the connection is encrypted, and what the client does before it disconnects. There is no
#: half-closed TLS: the end of its input ends the connection.
WAYS = [
    ("plain", disconnect),
    ("plain", half_close),
    ("plain", flood),
    ("starttls", disconnect),
    ("starttls", flood),
    ("implicit", disconnect),
    ("implicit", flood),
]


@pytest.mark.parametrize(("tls", "before"), WAYS, ids=[f"{a}-{b.__name__}" for a, b in WAYS])
@pytest.mark.parametrize("hook", STEPS)
def test_hook_is_cancelled_and_place_freed(
    hook: str, tls: str, before: Callable[[SmtpClient], None]
) -> None:
    handler = Waits(hook)
    parameters: dict[str, Any] = {"max_connections": 1, "auth_require_tls": False}
    if tls == "starttls":
        parameters["tls_context"] = server_context()
    elif tls == "implicit":
        parameters["ssl_context"] = server_context()
    context = authority().client_context() if tls == "implicit" else None
    with serving(handler, **parameters) as controller:
        with connected(controller.port, tls=context) as client:
            if tls == "starttls":
                assert client.codes(HELLO, "STARTTLS") == [250, 220]
                client.starttls()
            *steps, last = STEPS[hook]
            client.codes(*steps)
            client.send(last)
            assert handler.began.wait(20)
            before(client)
            client.reset()
        assert handler.cancelled.wait(20)
        server = controller.server
        assert server is not None
        until(lambda: server.connections == 0, "the end of the connection")
        with connected(controller.port, tls=context) as client:
            assert client.codes("RSET") == [250]


def test_push_after_close_sends_nothing() -> None:
    """Unsent output keeps a closed connection open; a hook that goes on adds nothing to it."""
    much = b"250-" + b"x" * 8_000_000 + b"\r\n"

    class Closes:
        async def handle_NOOP(self, server: Any, session: Any, envelope: Any, arg: str) -> str:
            server.transport.write(much)
            server.transport.close()
            await server.push("250 pushed")
            return "250 OK"

    with (
        serving(Closes()) as controller,
        socket.create_connection((controller.hostname, controller.port), 20) as client,
    ):
        client.sendall(b"NOOP\r\n")
        heard = b""
        while data := client.recv(1 << 20):
            heard += data
    assert heard.endswith(much)
