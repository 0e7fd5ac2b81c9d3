"""The header field that is prepended to every message: Received (RFC 5321 4.4).

Rules of this file: text made of what the session knows; no I/O, and the message is not looked at.
Return-Path is added where a message gets into a mailbox (mail/delivery/).
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import time

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.engine.engine import SmtpEngine

__all__ = ["TraceFields", "cipher_of"]


def cipher_of(transport: asyncio.BaseTransport | None) -> str:
    """Return TLS version and cipher in the form that Postfix uses; empty without TLS."""
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    if tls is None or tls.cipher() is None:
        return ""
    name, _, bits = tls.cipher()
    return f"{tls.version()} with cipher {name} ({bits} bits)"


class TraceFields:
    """Makes Received fields for one listener.

    Args:
        hostname: the name the server calls itself.
        protocol: ``smtp`` or ``lmtp``.
    """

    __slots__ = ("_date", "_hostname", "_kind")

    def __init__(self, hostname: str, protocol: str) -> None:
        self._hostname = hostname
        self._kind = "LMTP" if protocol == "lmtp" else ""
        self._date = (0, "")

    def received(
        self, info: ConnectionInfo, engine: SmtpEngine, name: str, cipher: str = ""
    ) -> bytes:
        """Return the Received field of the transaction in progress.

        Args:
            info: about the client.
            engine: the session, with its transaction.
            name: the identifier of the message.
            cipher: TLS version and cipher as text; empty without TLS, or if unknown.
        """
        transaction = engine.transaction
        assert transaction is not None
        client = engine.client_name
        if info.peer:
            peer = info.peer.partition("%")[0]
            client += f" ([IPv6:{peer}])" if ":" in peer else f" ([{peer}])"
        # RFC 3848 and RFC 6531 4.3 name the protocols; there is no name for TLS without EHLO.
        if transaction.smtputf8:
            kind = "UTF8" + (self._kind or "SMTP")
        else:
            kind = self._kind or ("ESMTP" if engine.extended else "SMTP")
        if engine.encrypted and engine.extended:
            kind += "S"
        if engine.authenticated:
            kind += "A"
        if cipher:
            client += f"\r\n\t(using {cipher})"
        recipients = transaction.recipients
        # Naming several would reveal to each who the others are (RFC 5321 7.6).
        receiver = f"\r\n\tfor <{recipients[0].mailbox}>" if len(recipients) == 1 else ""
        return (
            f"Received: from {client}\r\n\tby {self._hostname} with {kind} id {name}"
            f"{receiver};\r\n\t{self._now()}\r\n"
        ).encode()

    def _now(self) -> str:
        """Return the date for a header field; formatted once a second."""
        now = int(time.time())
        if self._date[0] != now:
            moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
            self._date = (now, email.utils.format_datetime(moment))
        return self._date[1]
