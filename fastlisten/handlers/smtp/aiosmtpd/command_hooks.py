"""The hooks of commands outside of a transaction: EHLO, HELO, RSET, NOOP, VRFY, QUIT; and HELP.

Rules of this file: an EHLO or HELO that its hook refuses changes nothing (RFC 5321 4.1.4), where
aiosmtpd ends the transaction.
"""

from __future__ import annotations

from typing import Any

from fastlisten.handlers.smtp.aiosmtpd.hook_calls import OK, HookCalls
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING, Envelope
from fastlisten.handlers.smtp.engine.smtp_events import Command

__all__ = ["CommandHooks"]


class CommandHooks(HookCalls):
    """The hooks of commands that are not about a message."""

    __slots__ = ()

    def _take_name(self, event: Command) -> None:
        """Answer EHLO without a hook."""
        server = self._connection.server
        server.envelope = Envelope()
        server.session.extended_smtp = True
        server.session.host_name = event.argument
        self._greeted("\r\n".join([*self._served.ehlo_lines(event.usual), ""]).encode())

    async def _ehlo(self, event: Command) -> None:
        served, connection = self._served, self._connection
        if served.ehlo_form == 0:
            self._take_name(event)
            return
        server = connection.server
        session = server.session
        before = (server.envelope, session.extended_smtp, session.host_name)
        server.envelope = Envelope()
        session.extended_smtp = True
        lines = list(served.ehlo_lines(event.usual))
        reply = b""
        try:
            if served.ehlo_form == 4:
                reply = await self._old_ehlo(event.argument, lines)
            else:
                lines = await self._call("EHLO", event.argument, lines)
                reply = self._reply("\r\n".join(lines))
        finally:
            if not (reply.startswith(b"2") and session.host_name):
                server.envelope, session.extended_smtp, session.host_name = before
        self._greeted(reply)

    async def _old_ehlo(self, name: str, lines: list[str]) -> bytes:
        """Call the older handle_EHLO, which returns the last line and may push others before it."""
        connection = self._connection
        connection.held = b""
        try:
            reply = self._reply(await self._call("EHLO", name))
            pushed = connection.held
        finally:
            connection.held = None
        if not reply.startswith(b"2"):
            return reply
        return self._reply("\r\n".join(lines[:-1]).encode() + b"\r\n" + pushed + reply)

    async def _helo(self, event: Command) -> None:
        server = self._connection.server
        session = server.session
        before = (server.envelope, session.extended_smtp, session.host_name)
        server.envelope = Envelope()
        session.extended_smtp = False
        reply = b""
        try:
            status = await self._call("HELO", event.argument)
            if status is MISSING:
                session.host_name = event.argument
                reply = event.usual
            else:
                reply = self._reply(status)
        finally:
            if not (reply.startswith(b"2") and session.host_name):
                server.envelope, session.extended_smtp, session.host_name = before
        self._greeted(reply)

    def _greeted(self, reply: bytes) -> None:
        """Answer EHLO or HELO; a hook that sets no host_name has refused the client."""
        engine = self._connection.engine
        if reply.startswith(b"2") and self._connection.server.session.host_name:
            engine.accept(reply)
        else:
            engine.reject(reply)

    async def _rset(self, event: Command) -> None:
        self._connection.forget()
        status = await self._call("RSET")
        self._connection.engine.accept(OK if status is MISSING else self._reply(status))

    async def _noop(self, event: Command) -> None:
        self._plain(await self._call("NOOP", event.argument or None), event)

    async def _vrfy(self, event: Command) -> None:
        address = event.argument
        if address.startswith("<") and address.endswith(">"):
            address = address[1:-1]
        self._plain(await self._call("VRFY", address), event)

    async def _help(self, event: Command) -> None:
        self._plain(MISSING, event)

    def _plain(self, status: Any, event: Command) -> None:
        """Answer a command that does not change the state."""
        engine = self._connection.engine
        reply = event.usual if status is MISSING else self._reply(status)
        if reply.startswith(b"2"):
            engine.accept(reply)
        else:
            engine.reject(reply)

    async def _quit(self, event: Command) -> None:
        status = await self._call("QUIT")
        self._connection.engine.accept(event.usual if status is MISSING else self._reply(status))
