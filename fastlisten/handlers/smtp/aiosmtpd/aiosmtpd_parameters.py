"""The keyword arguments of aiosmtpd's SMTP class, and what they mean on our engine.

Rules of this file: an argument either works or raises a TypeError that says what to use instead;
none is ignored. Names and defaults are those of aiosmtpd 1.4; max_recipients and max_errors are
ours.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["NO_LIMIT", "AiosmtpdParameters"]

#: What `data_size_limit=None` means: the largest number that all clients can be expected to read in
#: SIZE, 32 bits with a sign.
NO_LIMIT = 2**31 - 1

#: aiosmtpd's limit for commands that the dictionary `command_call_limit` does not name.
_CALL_LIMIT = 20

#: Arguments of aiosmtpd's that do not exist here, and what to do instead.
_REFUSED = {
    "proxy_protocol_timeout": "PROXY is read by the listener, before a session begins",
    "loop": "pass it to the Controller; serve_smtp uses the running loop",
}


@dataclass(frozen=True)
class AiosmtpdParameters:
    """The arguments of aiosmtpd's SMTP class.

    Attributes:
        data_size_limit: the largest message, in octets; None or 0: `NO_LIMIT`.
        enable_SMTPUTF8: accept addresses, and send replies, that are not ASCII.
        decode_data: `Envelope.content` is text; 8BITMIME is not offered then.
        hostname: the name that the server calls itself; None: this host's.
        ident: the text after it in the greeting; None: ours.
        tls_context: for STARTTLS.
        require_starttls: before TLS only EHLO, NOOP, STARTTLS and QUIT are allowed.
        timeout: seconds that a client may be silent.
        auth_required: MAIL and VRFY need `Session.authenticated`.
        auth_require_tls: AUTH is offered over TLS only.
        auth_exclude_mechanism: mechanisms that are not offered.
        auth_callback: (mechanism, login, password) -> bool.
        command_call_limit: how often a client may give each command: one number for every
            command, or a dictionary by command, with ``*`` for those not named.
        authenticator: (server, session, envelope, mechanism, auth_data) -> AuthResult; it may
            be a coroutine function, which in aiosmtpd it may not.
        max_recipients: recipients of one message; further ones get 452. Ours: aiosmtpd has no
            limit. 1,000 is the default of Postfix.
        max_errors: refused commands; one more ends the connection. Ours: aiosmtpd counts only
            unknown commands, and allows 5.

    Raises:
        TypeError: a value has the wrong type, or contradicts another.
        ValueError: a value is out of range.
    """

    data_size_limit: int | None = 2**25
    enable_SMTPUTF8: bool = False  # noqa: N815 - aiosmtpd's name
    decode_data: bool = False
    hostname: str | None = None
    ident: str | None = None
    tls_context: ssl.SSLContext | None = None
    require_starttls: bool = False
    timeout: float = 300
    auth_required: bool = False
    auth_require_tls: bool = True
    auth_exclude_mechanism: Iterable[str] | None = None
    auth_callback: Callable[[str, bytes, bytes], bool] | None = None
    command_call_limit: int | dict[str, int] | None = None
    authenticator: Callable[..., Any] | None = None
    max_recipients: int = 1000
    max_errors: int = 20

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> AiosmtpdParameters:
        """Return the parameters that keyword arguments give.

        Raises:
            TypeError: one is unknown or does not exist here; the message says what to do.
        """
        known = {field.name for field in fields(cls)}
        for name in given:
            if name in _REFUSED:
                raise TypeError(f"{name}: {_REFUSED[name]}")
            if name not in known:
                raise TypeError(f"{name!r} is not a parameter of the SMTP server")
        return cls(**given)

    def __post_init__(self) -> None:
        limit = self.data_size_limit
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            raise TypeError(f"data_size_limit must be a number of octets or None, not {limit!r}")
        if limit is not None and not 0 <= limit <= NO_LIMIT:
            raise ValueError(f"data_size_limit must be at most {NO_LIMIT}, not {limit}")
        context = self.tls_context
        if context is not None and not isinstance(context, ssl.SSLContext):
            raise TypeError(f"tls_context must be an SSLContext or None, not {context!r}")
        if self.timeout <= 0:
            raise ValueError(f"timeout must be a positive number of seconds, not {self.timeout}")
        for name in ("max_recipients", "max_errors"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if isinstance(self.auth_exclude_mechanism, str):
            raise TypeError("auth_exclude_mechanism must be a list of names, not a string")
        for name in ("auth_callback", "authenticator"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise TypeError(f"{name} must be a function or None, not {getattr(self, name)!r}")
        for name, text in (("hostname", self.hostname), ("ident", self.ident)):
            if text is not None and not text.isprintable():
                raise ValueError(f"{name} is part of the greeting and must be printable: {text!r}")
        calls = self.command_call_limit
        if isinstance(calls, Mapping):
            if not all(isinstance(number, int) for number in calls.values()):
                raise TypeError("all values of command_call_limit must be int")
        elif calls is not None and not isinstance(calls, int):
            raise TypeError("command_call_limit must be int or a dictionary of them")
        if self.auth_required and not self.auth_require_tls:
            # aiosmtpd's words, which programs may filter.
            warnings.warn(
                "Requiring AUTH while not requiring TLS can lead to security vulnerabilities!",
                stacklevel=4,
            )

    @property
    def max_message_size(self) -> int:
        """The largest message, in octets."""
        return self.data_size_limit or NO_LIMIT

    def call_limit(self, verb: str) -> int | None:
        """Return how often a client may give a command, None for no limit."""
        limit = self.command_call_limit
        if isinstance(limit, Mapping):
            return limit.get(verb, limit.get("*", _CALL_LIMIT))
        return limit
