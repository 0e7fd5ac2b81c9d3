"""The hooks of AUTH.

Rules of this file: over the years such hooks have answered in three ways (handle_AUTH with a reply;
auth_* with an identity, MISSING or False; auth_* with an AuthResult). All become one reply here.
"""

from __future__ import annotations

import base64

from fastlisten.handlers.smtp.aiosmtpd.hook_calls import HookCalls
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING, AuthResult
from fastlisten.handlers.smtp.engine.smtp_events import Auth

__all__ = ["AuthHooks"]

_INVALID = b"535 5.7.8 Authentication credentials invalid\r\n"
_AUTHENTICATED = b"235 2.7.0 Authentication successful\r\n"
_ALREADY_AUTHENTICATED = b"503 Already authenticated\r\n"


class AuthHooks(HookCalls):
    """The hooks of AUTH."""

    __slots__ = ()

    async def _auth(self, event: Auth) -> None:
        connection = self._connection
        engine, session = connection.engine, connection.server.session
        if session.authenticated:
            engine.reject(_ALREADY_AUTHENTICATED)
            return
        args = [event.mechanism]
        if event.response is not None:
            args.append(base64.b64encode(event.response).decode() or "=")
        connection.held, self.over = b"", False
        try:
            reply = await self._auth_reply(args)
            reply = connection.held + (reply or b"")
        finally:
            connection.held = None
        if self.over:
            self.over = False
        elif not engine.waiting:
            connection.give_up()  # the hook did not wait for the response to its challenge
        elif _last_code(reply).startswith(b"2"):
            session.authenticated = True
            engine.accept(reply)
        else:
            engine.reject(reply or _INVALID)

    async def _auth_reply(self, args: list[str]) -> bytes | None:
        """Ask the hooks, and note in the session who the client is.

        Args:
            args: the mechanism, and the initial response in base64 if there is one.

        Returns:
            The reply, None if a hook has pushed it.

        Raises:
            Exception: what a hook raised, or what is wrong with what it returned.
        """
        server = self._connection.server
        session = server.session
        status = await self._call("AUTH", args)
        if status is not MISSING:
            return None if status is None else self._reply(status)
        method = self._served.auth_hooks.get(args[0]) or getattr(server, f"auth_{args[0]}")
        result = await method(server, args)
        if not isinstance(result, AuthResult):
            # Before there was AuthResult, hooks returned the client's identity.
            if result is None:
                return None
            if result is MISSING or result is False:
                return _INVALID
            session._login_data = result
            return _AUTHENTICATED
        if result.success:
            session.auth_data = result.auth_data
            session._login_data = getattr(result.auth_data, "login", None)
            return self._reply(result.message) if result.message else _AUTHENTICATED
        if result.handled:
            return None
        return self._reply(result.message) if result.message else _INVALID


def _last_code(replies: bytes) -> bytes:
    """Return the code of the last of some replies."""
    return replies.removesuffix(b"\r\n").rpartition(b"\n")[2][:3]
