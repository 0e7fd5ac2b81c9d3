"""The object that hooks get as their first argument, `server`.

Rules of this file: what a hook may see and call; no SMTP. Every attribute that aiosmtpd documents
is either here or has a row in docs/aiosmtpd.md that names the alternative. Asking for one that is
not here raises an AttributeError that points there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import logging
import re
import ssl
import warnings
from typing import Any, Protocol

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.aiosmtpd.served_handler import ServedHandler
from fastlisten.handlers.smtp.aiosmtpd.types import (
    MISSING,
    AuthResult,
    Envelope,
    LoginPassword,
    Session,
)
from fastlisten.handlers.smtp.session_log import LogContext

__all__ = ["HookServer"]

logger = logging.getLogger("fastlisten.smtp")


#: The keys of `Session.ssl`, which are those of `asyncio.BaseTransport.get_extra_info`.
_TLS_INFO = ("sslcontext", "ssl_object", "peercert", "cipher", "compression")


class HookChannel(Protocol):
    """What hooks can do with their connection; AiosmtpdSession implements it."""

    @property
    def log_context(self) -> LogContext:
        """What a log record says of the session."""

    def push(self, data: bytes) -> None:
        """Send what a hook says before its answer."""

    async def drained(self) -> None:
        """Wait until the transport's buffer has drained."""

    async def challenge(self, challenge: bytes) -> bytes | None:
        """Send a challenge of AUTH and return the response, None if the exchange is over."""


class HookServer:
    """The server of one connection, as its hooks see it.

    Attributes:
        event_handler: the handler.
        hostname: the name the server calls itself.
        loop: the loop that serves.
        session: the client's session; a new one after STARTTLS.
        envelope: the current transaction.
        transport: the connection; a new one after STARTTLS, None once it is lost.
        tls_context: for STARTTLS, None if that is not offered.
        require_starttls: clients must use STARTTLS first.
        data_size_limit: the largest message, in octets.
        enable_SMTPUTF8: the parameter of that name.
        AuthLoginUsernameChallenge: the first challenge of AUTH LOGIN.
        AuthLoginPasswordChallenge: the second.
    """

    AuthLoginUsernameChallenge = "User Name\x00"
    AuthLoginPasswordChallenge = "Password\x00"

    def __init__(
        self,
        served: ServedHandler,
        connection: HookChannel | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        parameters = served.parameters
        self._served = served
        self._connection = connection
        self.event_handler = served.handler
        self.hostname = served.hostname
        self.__ident__ = served.ident
        self.loop = loop
        self.session: Session  # both are set when the connection is made, and again after STARTTLS
        self.envelope: Envelope
        self.transport: asyncio.Transport | None = None
        self.tls_context: ssl.SSLContext | None = None if served.tls is None else served.tls.context
        self.require_starttls = parameters.require_starttls and served.tls is not None
        self.data_size_limit = parameters.data_size_limit
        self.enable_SMTPUTF8 = parameters.enable_SMTPUTF8

    def begin_session(self, info: ConnectionInfo | None, encrypted: bool) -> None:
        """Make a new session for the client of `transport`.

        Args:
            info: about the client, if it may be another than the transport's peer.
            encrypted: TLS is active.
        """
        transport = self.transport
        assert transport is not None
        session = self.session = Session(self.loop)
        session.peer = peer = transport.get_extra_info("peername")
        if info is not None and info.peer and (not peer or peer[0] != info.peer):
            session.peer = (info.peer, info.port)
        if encrypted:
            session.ssl = {name: transport.get_extra_info(name) for name in _TLS_INFO}

    def detach(self) -> None:
        """Forget the connection, which is lost: a handler that keeps this object keeps no more."""
        self._connection = None

    @property
    def _log_context(self) -> LogContext:
        """What a log record says of the session."""
        return LogContext("", "", 0) if self._connection is None else self._connection.log_context

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"server.{name} is not supported; see docs/aiosmtpd.md", name=name)

    async def push(self, status: str | bytes) -> None:
        """Send a line to the client, before the reply that the hook returns.

        Args:
            status: without its CRLF.
        """
        if isinstance(status, str):
            status = status.encode("utf-8" if self.enable_SMTPUTF8 else "ascii")
        connection = self._connection
        if connection is not None:
            connection.push(bytes(status) + b"\r\n")
            await connection.drained()

    async def challenge_auth(
        self,
        challenge: str | bytes,
        encode_to_b64: bool = True,
        log_client_response: bool = False,
    ) -> Any:
        """Send a challenge, in an auth_* hook, and wait for the client's response.

        Args:
            challenge: text or octets.
            encode_to_b64: False if it is already base64.
            log_client_response: log the response, with any password in it.

        Returns:
            The response, decoded. MISSING if there is none: the client has cancelled the exchange
            or sent something that is not base64, and the engine has replied to that.

        Raises:
            ValueError: `encode_to_b64` is False and the challenge is not base64 (RFC 4954 4).
            RuntimeError: no AUTH command is being executed.
        """
        octets = challenge.encode() if isinstance(challenge, str) else bytes(challenge)
        if not encode_to_b64:
            try:
                octets = base64.b64decode(octets, validate=True)
            except binascii.Error as error:
                raise ValueError(f"the challenge is not base64: {challenge!r}") from error
        if self._connection is None:
            raise RuntimeError("the connection is lost")
        response = await self._connection.challenge(octets)
        if log_client_response:
            warnings.warn("AUTH interaction logging is enabled!", stacklevel=2)
            logger.debug("%r >> %r", self.session.peer, response)
        return MISSING if response is None else response

    async def _auth_interact(self, server_message: str) -> Any:
        """Send a challenge that is already base64; the older form of `challenge_auth`."""
        return await self.challenge_auth(re.sub(r"\A334 ", "", server_message), encode_to_b64=False)

    # --- the mechanisms that need no hook -----------------------------------------------------

    async def auth_PLAIN(self, _: Any, args: list[str]) -> AuthResult:  # noqa: N802
        """Run PLAIN (RFC 4616) and ask the authenticator."""
        data = await self._first_response(args, "")
        if data is MISSING:
            return AuthResult(success=False)
        parts = data.split(b"\0")
        if len(parts) != 3:
            await self.push("501 5.5.2 Can't split auth value")
            return AuthResult(success=False, handled=True)
        if parts[0] not in (b"", parts[1]):
            # A client that wants to act for somebody else must not be let in as itself (RFC 4616
            # 2), and the authenticator is not told about the other.
            return AuthResult(success=False, handled=False)
        return await self._authenticate("PLAIN", LoginPassword(parts[1], parts[2]))

    async def auth_LOGIN(self, _: Any, args: list[str]) -> AuthResult:  # noqa: N802
        """Run LOGIN and ask the authenticator."""
        login = await self._first_response(args, self.AuthLoginUsernameChallenge)
        if login is MISSING:
            return AuthResult(success=False)
        password = await self.challenge_auth(self.AuthLoginPasswordChallenge)
        if password is MISSING:
            return AuthResult(success=False)
        return await self._authenticate("LOGIN", LoginPassword(login, password))

    async def _first_response(self, args: list[str], challenge: str) -> Any:
        """Return the initial response, or the response to a challenge if there was none."""
        if len(args) < 2:
            return await self.challenge_auth(challenge)
        return b"" if args[1] == "=" else base64.b64decode(args[1])

    async def _authenticate(self, mechanism: str, auth_data: Any) -> AuthResult:
        """Ask the authenticator."""
        authenticate = self._served.authenticate
        if authenticate is None:
            return AuthResult(success=False, handled=False)
        result = authenticate(self, self.session, self.envelope, mechanism, auth_data)
        if inspect.isawaitable(result):
            result = await result
        if not isinstance(result, AuthResult):
            raise TypeError(f"the authenticator must return an AuthResult, not {result!r}")
        return result
