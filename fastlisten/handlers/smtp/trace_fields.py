"""The header fields that a message gets on top of it: Return-Path and Received (RFC 5321 4.4).

Rules of this file: texts of what the session knows; no I/O, and no look into the message.
Return-Path is for mailboxes only: what is handed to a relay goes without it, so that it is a
field of its own here.
"""

from __future__ import annotations

import datetime
import email.utils
import time

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.engine.engine import SmtpEngine

__all__ = ["TraceFields", "return_path"]


def return_path(sender: str) -> bytes:
    """Return the field that tells a mailbox's reader where notices go.

    Args:
        sender: the reverse path, empty for none.
    """
    return f"Return-Path: <{sender}>\r\n".encode()


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
            info: where it comes from.
            engine: the session, with its transaction.
            name: the identifier of the message.
            cipher: TLS version and cipher in words, empty where there is none or it is not known.
        """
        transaction = engine.transaction
        assert transaction is not None
        client = engine.client_name
        if info.peer:
            peer = info.peer.partition("%")[0]
            client += f" ([IPv6:{peer}])" if ":" in peer else f" ([{peer}])"
        # RFC 3848 and RFC 6531 4.3 name the kinds; there is none for TLS without EHLO.
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
        # Several would show each of them who the others are (RFC 5321 7.6).
        receiver = f"\r\n\tfor <{recipients[0].mailbox}>" if len(recipients) == 1 else ""
        return (
            f"Received: from {client}\r\n\tby {self._hostname} with {kind} id {name}"
            f"{receiver};\r\n\t{self._now()}\r\n"
        ).encode()

    def _now(self) -> str:
        """Return the date for a header; made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
            self._date = (now, email.utils.format_datetime(moment))
        return self._date[1]
