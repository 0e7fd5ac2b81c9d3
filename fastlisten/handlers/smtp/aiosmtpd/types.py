"""What an aiosmtpd handler gets and gives: Envelope, Session, AuthResult, LoginPassword.

Rules of this file: data only. Where aiosmtpd is installed these names are its own classes, so that
a handler's ``isinstance`` and what it imports from there agree with what it is given; else they
are classes with the same attributes, and a handler that imports nothing needs no aiosmtpd.
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
        success: the client is who it says.
        handled: if not `success`: the client has been told already.
        message: the whole reply, without CRLF; None for the usual words.
        auth_data: becomes `Session.auth_data`.
    """

    success: bool
    handled: bool = True
    message: str | None = None
    auth_data: Any = field(default=None, repr=False)


class _LoginPassword(NamedTuple):
    """What PLAIN and LOGIN give to an authenticator, as octets."""

    login: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"LoginPassword(login={self.login.decode(errors='replace')!r}, password=...)"


class _Session:
    """What is known of a connection; made anew when TLS begins.

    Attributes:
        peer: the client's address as `socket.getpeername` gives it.
        ssl: what is known of the TLS session, None in plaintext.
        host_name: what the client called itself, None before.
        extended_smtp: it said EHLO (or LHLO).
        loop: that serves.
        proxy_data: always None; PROXY is read before a session begins.
        auth_data: what the authenticator said of the client.
        login_data: its name, as aiosmtpd's older handlers want it.
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
        mail_from: the sender, ``<>`` for the empty one.
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
    """Return aiosmtpd's module, None where it cannot be imported."""
    try:
        return importlib.import_module("aiosmtpd.smtp")
    except ImportError:
        return None


if TYPE_CHECKING:
    INSTALLED: bool
    #: What a hook returns that wants the usual thing to be done.
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
