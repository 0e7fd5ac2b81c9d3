"""The replies of the SMTP engine (RFC 5321 4.2, RFC 2034), and the limits that some of them name.

Rules of this file: texts only, and where sessions count. Every reply is complete, with CRLF, ready
to be written; those that never change are made once, those that depend on the listener once per
listener.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from fastlisten.mail.counts import Counts

__all__ = ["TELLABLE", "Limits", "reply"]

#: What `Limits.told` may name.
TELLABLE = frozenset({"EHLO", "LHLO", "HELO", "RSET", "NOOP", "VRFY", "HELP", "QUIT"})


def reply(code: int, status: str, *lines: str) -> bytes:
    """Return a reply, of several lines where several are given.

    Args:
        code: the three digits.
        status: the enhanced status code (RFC 3463), repeated on every line; empty for the
            replies that carry none (to EHLO, HELO and LHLO, 334, 354).
        lines: the text of each line.
    """
    start = f"{status} " if status else ""
    last = len(lines) - 1
    return "".join(
        f"{code}{'-' if index < last else ' '}{start}{line}\r\n" for index, line in enumerate(lines)
    ).encode()


OK = reply(250, "2.0.0", "Ok")
SENDER_OK = reply(250, "2.1.0", "Ok")
RECIPIENT_OK = reply(250, "2.1.5", "Ok")
START = reply(354, "", "End data with <CR><LF>.<CR><LF>")
NOT_VERIFIED = reply(252, "2.1.5", "Cannot VRFY user, but will accept message and attempt delivery")
BARE = reply(550, "5.6.0", "Message contains bare CR or LF; lines must end with CR LF")
TOO_MANY = reply(452, "4.5.3", "Too many recipients")
UNKNOWN = reply(500, "5.5.1", "Command not recognized")
NOT_IMPLEMENTED = reply(502, "5.5.1", "Command not implemented")
GO_AHEAD = reply(220, "2.0.0", "Ready to start TLS")
NO_TLS_NOW = reply(454, "4.7.0", "TLS not available due to temporary reason")
AUTHENTICATED = reply(235, "2.7.0", "Authentication successful")

_SOURCES = (
    "See RFC 5321, 1870 (SIZE), 6152 (8BITMIME), 3030 (BDAT, BINARYMIME), 6531 (SMTPUTF8),",
    "3461 (DSN), 9422 (LIMITS)",
)


@dataclass(frozen=True)
class Limits:
    """What is fixed for all connections of a listener, with the replies that follow from it.

    Attributes:
        hostname: the name the server calls itself.
        max_message_size: octets, after dot-unstuffing, CRLFs counted.
        max_recipients: accepted recipients per transaction. More rejected ones than that, without
            a message accepted between them, end the connection.
        max_errors: refused commands (5xx; rejected recipients not counted); one more ends the
            connection.
        starttls: clients may begin TLS by STARTTLS (RFC 3207).
        protocol: ``smtp``, or ``lmtp`` (RFC 2033).
        mechanisms: names, in upper case, of the SASL mechanisms that AUTH (RFC 4954) takes, over
            TLS only; none: there is no AUTH.
        auth_in_clear: AUTH is taken without TLS too: for programs that protect the way otherwise.
        auth_required: MAIL needs a successful AUTH first.
        told: verbs of which the user is told by a Command: some of EHLO, LHLO, HELO, RSET, NOOP,
            VRFY, HELP, QUIT.
        counts: what the sessions count.
        commands: what each verb does in a session; the first session fills it.

    Raises:
        ValueError: `told` names another verb.
    """

    hostname: str
    max_message_size: int = 50 * 1024 * 1024
    max_recipients: int = 100
    max_errors: int = 20
    starttls: bool = False
    protocol: Literal["smtp", "lmtp"] = "smtp"
    mechanisms: tuple[str, ...] = ()
    auth_in_clear: bool = False
    auth_required: bool = False
    told: frozenset[str] = frozenset()
    counts: Counts = field(repr=False, compare=False, default_factory=Counts)
    commands: dict[bytes, Any] = field(init=False, repr=False, compare=False, default_factory=dict)
    ehlo: bytes = field(init=False, repr=False)
    ehlo_encrypted: bytes = field(init=False, repr=False)
    helo: bytes = field(init=False, repr=False)
    help: bytes = field(init=False, repr=False)
    help_encrypted: bytes = field(init=False, repr=False)
    goodbye: bytes = field(init=False, repr=False)
    too_large: bytes = field(init=False, repr=False)
    too_many_errors: bytes = field(init=False, repr=False)
    too_many_rejected: bytes = field(init=False, repr=False)
    other_protocol: bytes = field(init=False, repr=False)
    too_early: bytes = field(init=False, repr=False)
    out_of_step: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.told <= TELLABLE:
            raise ValueError(f"nobody can be told of {', '.join(sorted(self.told - TELLABLE))}")
        name, size = self.hostname, self.max_message_size
        fixed = {
            "ehlo": reply(250, "", name, *self._extensions(encrypted=False)),
            "ehlo_encrypted": reply(250, "", name, *self._extensions(encrypted=True)),
            "helo": reply(250, "", name),
            "help": self._help(encrypted=False),
            "help_encrypted": self._help(encrypted=True),
            "goodbye": reply(221, "2.0.0", f"{name} Goodbye"),
            "too_large": reply(552, "5.3.4", f"Message size exceeds fixed limit of {size} octets"),
            "too_many_errors": reply(421, "4.7.0", f"{name} Too many errors"),
            "too_many_rejected": reply(421, "4.7.0", f"{name} Too many rejected recipients"),
            "other_protocol": reply(
                421, "4.7.0", f"{name} This is {self.protocol.upper()}, not HTTP"
            ),
            "too_early": reply(
                554, "5.5.0", f"{name} Protocol synchronization error: data sent after STARTTLS"
            ),
            "out_of_step": reply(501, "5.5.4", f"{name} Syntax error in BDAT; closing connection"),
        }
        for attribute, value in fixed.items():
            object.__setattr__(self, attribute, value)

    def offers_tls(self, encrypted: bool) -> bool:
        """Whether STARTTLS is there; not again once TLS is active (RFC 3207 4.2)."""
        return self.starttls and not encrypted

    def offers_auth(self, encrypted: bool) -> bool:
        """Whether AUTH is there."""
        return bool(self.mechanisms) and (encrypted or self.auth_in_clear)

    def _extensions(self, encrypted: bool) -> list[str]:
        """Return the lines that tell what there is beyond the protocol itself."""
        lines = ["STARTTLS"] if self.offers_tls(encrypted) else []
        if self.offers_auth(encrypted):
            lines.append(f"AUTH {' '.join(self.mechanisms)}")
        return [
            *lines,
            "PIPELINING",
            f"SIZE {self.max_message_size}",
            "8BITMIME",
            "BINARYMIME",
            "CHUNKING",
            "SMTPUTF8",
            "DSN",
            "ENHANCEDSTATUSCODES",
            f"LIMITS RCPTMAX={self.max_recipients}",
            "HELP",
        ]

    def _help(self, encrypted: bool) -> bytes:
        commands = "EHLO HELO" if self.protocol == "smtp" else "LHLO"
        commands += " MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT"
        if self.offers_tls(encrypted):
            commands += " STARTTLS"
        if self.offers_auth(encrypted):
            commands += " AUTH"
        source = ("RFC 2033 (LMTP)",) if self.protocol == "lmtp" else ()
        return reply(214, "2.0.0", f"Commands: {commands}", *_SOURCES, *source)
