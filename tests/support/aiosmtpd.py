"""Handlers of aiosmtpd's kind, served by our controller or by aiosmtpd's.

Rules of this file: no test in it. A controller and its loop are closed at the end of the block.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import socket
import ssl
import warnings
from collections.abc import Iterator
from typing import Any

from fastlisten.handlers import smtp
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING
from support.certificates import authority

ENVELOPE = ("EHLO client.example", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>")


@functools.cache
def server_context() -> ssl.SSLContext:
    """Return a context with a certificate for localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().sign("localhost", "127.0.0.1").load_into(context)
    return context


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


PLAIN = f"AUTH PLAIN {b64(chr(0).join(('', 'user', 'secret')).encode())}"
BAD_PLAIN = f"AUTH PLAIN {b64(chr(0).join(('', 'user', 'wrong')).encode())}"


@contextlib.contextmanager
def serving(handler: Any, **parameters: Any) -> Iterator[smtp.Controller]:
    """Serve a handler with our controller, in a thread."""
    with started(smtp.Controller(handler, "127.0.0.1", 0, **parameters)) as controller:
        yield controller


@contextlib.contextmanager
def started(controller: Any) -> Iterator[Any]:
    """Run a controller for the length of a block."""
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()


@contextlib.contextmanager
def serving_by_aiosmtpd(handler: Any, **parameters: Any) -> Iterator[Any]:
    """Serve a handler with aiosmtpd's controller, on asyncio's loop."""
    from aiosmtpd.controller import Controller

    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            controller = Controller(
                handler, "127.0.0.1", port, loop=asyncio.SelectorEventLoop(), **parameters
            )
            controller.start()
    try:
        yield controller
    finally:
        controller.stop()


class Recorder:
    """A handler whose only hook is DATA: it keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
        self.messages.append((envelope, session))
        return MISSING

    def only(self) -> Any:
        """Return the only message's envelope.

        Not a property, because aiosmtpd looks at every attribute of its handlers.
        """
        ((envelope, _),) = self.messages
        return envelope


class AllHooks(Recorder):
    """A handler with every hook; it keeps the calls with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    async def handle_HELO(self, server: Any, session: Any, envelope: Any, name: str) -> str:
        self.calls.append(("HELO", name))
        session.host_name = name
        return "250 hello"

    async def handle_EHLO(
        self, server: Any, session: Any, envelope: Any, name: str, responses: list[str]
    ) -> list[str]:
        assert responses[0].startswith("250-")
        assert responses[-1] == "250 HELP"
        self.calls.append(("EHLO", name))
        if name == "refused.example":
            return ["550 not you"]
        session.host_name = name
        return ["250-mine", "250-X-OURS", "250 HELP"]

    async def handle_MAIL(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> Any:
        self.calls.append(("MAIL", address, *options))
        if address.startswith("no"):
            return "550 no"
        if address.startswith("later"):
            await asyncio.sleep(0.001)
            return "451 later"
        if address.startswith("forgets"):
            return "250 but nothing is set"
        envelope.mail_from = address
        return "250 fine"

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> Any:
        self.calls.append(("RCPT", address, *options))
        if address.startswith("no"):
            return "550 no"
        if address.startswith("missing"):
            return MISSING
        if address.startswith("fails"):
            raise ValueError("on purpose")
        if address.startswith("none"):
            return None
        if address.startswith("waits"):
            await asyncio.sleep(0.001)
        envelope.rcpt_tos.append(address)
        return "250 fine"

    async def handle_RSET(self, server: Any, session: Any, envelope: Any) -> str:
        self.calls.append(("RSET",))
        return "250 reset"

    async def handle_NOOP(self, server: Any, session: Any, envelope: Any, argument: Any) -> str:
        self.calls.append(("NOOP", argument))
        if argument == "fails":
            raise ValueError("on purpose")
        return "250 nothing" if argument != "refused" else "500 not even that"

    async def handle_VRFY(self, server: Any, session: Any, envelope: Any, address: str) -> str:
        self.calls.append(("VRFY", address))
        return "252 perhaps"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:
        self.calls.append(("QUIT",))
        return "221 farewell"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
        await super().handle_DATA(server, session, envelope)
        self.calls.append(("DATA", envelope.mail_from, *envelope.rcpt_tos))
        return "250 taken" if b"virus" not in envelope.content else "554 5.7.1 no"
