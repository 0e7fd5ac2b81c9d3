"""How hooks of an aiosmtpd handler are called, and how what they return or raise becomes a reply.

Rules of this file: what all hooks have in common. command_hooks.py, transaction_hooks.py and
auth_hooks.py say what each hook is asked and what its answer means.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from fastlisten.handlers.smtp.aiosmtpd.hook_replies import error_reply, reply_of
from fastlisten.handlers.smtp.aiosmtpd.hook_server import HookServer
from fastlisten.handlers.smtp.aiosmtpd.served_handler import ServedHandler
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING
from fastlisten.handlers.smtp.engine.engine import SmtpEngine

__all__ = ["OK", "HookCalls", "HookedConnection"]

logger = logging.getLogger("fastlisten.smtp")

OK = b"250 OK\r\n"


class HookedConnection(Protocol):
    """What hooks need of their connection; AiosmtpdSession implements it.

    Attributes:
        engine: decides the state, and gets the answers.
        server: what hooks get as their first argument.
        held: what hooks have pushed during an AUTH exchange; None outside of one.
    """

    engine: SmtpEngine
    server: HookServer
    held: bytes | None

    def forget(self) -> None:
        """Drop the transaction."""

    def give_up(self) -> None:
        """End the connection, because no answer can be given."""


class HookCalls:
    """The hooks of one connection; subclasses decide which of them is called when.

    Attributes:
        over: the engine has ended an AUTH exchange that a hook still takes part in.
    """

    __slots__ = ("_calls", "_connection", "_secure", "_served", "over")

    def __init__(self, served: ServedHandler, connection: HookedConnection) -> None:
        self._served = served
        self._connection = connection
        self._calls: dict[str, int] = {}
        self._secure = True
        self.over = False

    async def _call(self, name: str, *arguments: Any) -> Any:
        """Return what a hook returns, MISSING if there is no such hook."""
        hook = self._served.hooks.get(name)
        if hook is None:
            return MISSING
        server = self._connection.server
        return await hook(server, server.session, server.envelope, *arguments)

    def _reply(self, status: Any) -> bytes:
        return reply_of(status, self._served.parameters.enable_SMTPUTF8)

    async def _of_exception(self, error: Exception) -> bytes:
        """Return the reply to a command whose hook has raised an exception."""
        utf8 = self._served.parameters.enable_SMTPUTF8
        peer = self._connection.server.session.peer
        hook = self._served.hooks.get("exception")
        try:
            if hook is not None:
                return self._reply(await hook(error))
        except Exception as inner:
            logger.exception("%r: exception in handle_exception()", peer)
            return error_reply(inner, utf8)
        logger.error("%r: SMTP session exception", peer, exc_info=error)
        return error_reply(error, utf8)
