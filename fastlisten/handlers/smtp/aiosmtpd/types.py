"""What aiosmtpd handlers receive and return: Envelope, Session, AuthResult, LoginPassword, MISSING.

Rules of this file: data only. If aiosmtpd is installed, these are its own classes, so that a
handler's ``isinstance`` checks and imports work. If not, they are classes with the same attributes,
for handlers that import nothing of aiosmtpd.
"""

from __future__ import annotations

import asyncio
import enum
import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

__all__ = ["INSTALLED", "MISSING", "AuthResult", "Envelope", "LoginPassword", "Session"]


class _Missing(enum.Enum):
    MISSING = object()


@dataclass(kw_only=True)
class _AuthResult:
    """What an auth_* hook or an authenticator returns.

    Attributes:
        success: the client is who it claims to be.
        handled: without `success`: the client has already got a reply.
        message: the whole reply, without CRLF; None for the usual one.
        auth_data: becomes `Session.auth_data`.
    """

    success: bool
    handled: bool = True
    message: str | None = None
    auth_data: Any = field(default=None, repr=False)


class _LoginPassword(NamedTuple):
    """What PLAIN and LOGIN pass to the authenticator, as octets."""

    login: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"LoginPassword(login={self.login.decode(errors='replace')!r}, password=...)"


class _Session:
    """The session of a connection; a new one is made when TLS begins.

    Attributes:
        peer: the client's address as `socket.getpeername` returns it.
        ssl: about the TLS session, None without TLS.
        host_name: the name that the client gave in EHLO or HELO, None before.
        extended_smtp: the client sent EHLO (or LHLO).
        loop: the loop that serves.
        proxy_data: always None; PROXY is read before a session begins.
        auth_data: what the authenticator returned about the client.
        login_data: the client's login, for older handlers.
        authenticated: None before, True after a successful AUTH.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.peer: Any = None
        self.ssl: dict[str, Any] | None = None
        self.host_name: str | None = None
        self.extended_smtp = False
        self.loop = loop
        self.proxy_data: Any = None
        self.auth_data: Any = None
        self.authenticated: bool | None = None
        self._login_data: Any = None

    @property
    def login_data(self) -> Any:
        return self._login_data

    @login_data.setter
    def login_data(self, value: Any) -> None:
        self._login_data = value


class _Envelope:
    """One mail transaction.

    Attributes:
        mail_from: the sender, ``<>`` for the null sender.
        mail_options: the parameters of MAIL in upper case.
        smtp_utf8: the client asked for SMTPUTF8.
        content: the message; text with `decode_data`, else octets.
        original_content: the message as octets.
        rcpt_tos: the recipients.
        rcpt_options: the parameters of all RCPTs.
    """

    def __init__(self) -> None:
        self.mail_from: str | None = None
        self.mail_options: list[str] = []
        self.smtp_utf8 = False
        self.content: bytes | str | None = None
        self.original_content: bytes | None = None
        self.rcpt_tos: list[str] = []
        self.rcpt_options: list[str] = []


def _installed() -> Any:
    """Return aiosmtpd's module, None if it is not installed."""
    try:
        return importlib.import_module("aiosmtpd.smtp")
    except ImportError:
        return None


if TYPE_CHECKING:
    INSTALLED: bool
    #: A hook returns this to have the default action taken.
    MISSING: Any
    AuthResult = _AuthResult
    LoginPassword = _LoginPassword
    Session = _Session
    Envelope = _Envelope
else:
    _theirs = _installed()
    INSTALLED = _theirs is not None
    MISSING = _theirs.MISSING if INSTALLED else _Missing.MISSING
    AuthResult = _theirs.AuthResult if INSTALLED else _AuthResult
    LoginPassword = _theirs.LoginPassword if INSTALLED else _LoginPassword
    Session = _theirs.Session if INSTALLED else _Session
    Envelope = _theirs.Envelope if INSTALLED else _Envelope
