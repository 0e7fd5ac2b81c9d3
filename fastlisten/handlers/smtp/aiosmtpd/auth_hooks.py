"""What the hooks of an aiosmtpd handler say to AUTH, and what it means.

Rules of this file: the three ways in which such hooks have spoken in the course of time (a reply of
handle_AUTH; who the client is, MISSING or False; an AuthResult) become one reply; the engine and
the order of its events are the dialogue's business.
"""

from __future__ import annotations

from fastlisten.handlers.smtp.aiosmtpd.hook_replies import reply_of
from fastlisten.handlers.smtp.aiosmtpd.hook_server import HookServer
from fastlisten.handlers.smtp.aiosmtpd.served_handler import ServedHandler
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING, AuthResult

__all__ = ["INVALID", "last_code", "reply_to_auth"]

#: What is said to a client that is not who it says.
INVALID = b"535 5.7.8 Authentication credentials invalid\r\n"

_AUTHENTICATED = b"235 2.7.0 Authentication successful\r\n"


async def reply_to_auth(served: ServedHandler, server: HookServer, args: list[str]) -> bytes | None:
    """Ask the hooks about an AUTH command.

    Args:
        served: whose hooks.
        server: of the connection; what its session says of who the client is, is set.
        args: the mechanism, and the initial response in base64 if there is one.

    Returns:
        The reply, None if a hook has pushed it.

    Raises:
        Exception: what a hook raised, or what is wrong with what it returned.
    """
    session, utf8 = server.session, served.parameters.enable_SMTPUTF8
    hook = served.hooks.get("AUTH")
    if hook is not None:
        status = await hook(server, session, server.envelope, args)
        if status is not MISSING:
            return None if status is None else reply_of(status, utf8)
    method = served.auth_hooks.get(args[0]) or getattr(server, f"auth_{args[0]}")
    result = await method(server, args)
    if not isinstance(result, AuthResult):
        # Before AuthResult, hooks returned who the client is.
        if result is None:
            return None
        if result is MISSING or result is False:
            return INVALID
        session._login_data = result
        return _AUTHENTICATED
    if result.success:
        session.auth_data = result.auth_data
        session._login_data = getattr(result.auth_data, "login", None)
        return reply_of(result.message, utf8) if result.message else _AUTHENTICATED
    if result.handled:
        return None
    return reply_of(result.message, utf8) if result.message else INVALID


def last_code(replies: bytes) -> bytes:
    """Return the code of the last of some replies."""
    return replies.removesuffix(b"\r\n").rpartition(b"\n")[2][:3]
