"""The replies of the SMTP engine (RFC 5321 4.2, RFC 2034), and the limits that some of them name.

Rules of this file: texts only. Every reply is complete, with CRLF, ready to be written; those that
never change are made once, those that depend on the listener once per listener.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Limits", "reply"]


def reply(code: int, status: str, *lines: str) -> bytes:
    """Return a reply, of several lines where several are given.

    Args:
        code: the three digits.
        status: the enhanced status code (RFC 3463), repeated on every line; empty for the
            replies that carry none (to EHLO and HELO, 354).
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
START = reply(354, "", "End the message with <CRLF>.<CRLF>")
NOT_VERIFIED = reply(252, "2.1.5", "Addresses are not verified; send the mail and see")
BARE = reply(550, "5.6.0", "The message holds a bare CR or LF; lines end with CR LF")
TOO_MANY = reply(452, "4.5.3", "Too many recipients; send to the others in another transaction")
UNKNOWN = reply(500, "5.5.1", "No such command")
NOT_IMPLEMENTED = reply(502, "5.5.1", "This command is not available here")
GO_AHEAD = reply(220, "2.0.0", "Begin TLS now")
NO_TLS_NOW = reply(454, "4.7.0", "TLS is not available at the moment")

_COMMANDS = "EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT"
_SOURCES = "See RFC 5321, RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8)"
HELP = reply(214, "2.0.0", f"Commands: {_COMMANDS}", _SOURCES)
HELP_STARTTLS = reply(214, "2.0.0", f"Commands: {_COMMANDS} STARTTLS", _SOURCES)


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
    """

    hostname: str
    max_message_size: int = 50 * 1024 * 1024
    max_recipients: int = 100
    max_errors: int = 20
    starttls: bool = False
    ehlo: bytes = field(init=False, repr=False)
    ehlo_encrypted: bytes = field(init=False, repr=False)
    helo: bytes = field(init=False, repr=False)
    goodbye: bytes = field(init=False, repr=False)
    too_large: bytes = field(init=False, repr=False)
    too_many_errors: bytes = field(init=False, repr=False)
    too_many_rejected: bytes = field(init=False, repr=False)
    other_protocol: bytes = field(init=False, repr=False)
    too_early: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        name, size = self.hostname, self.max_message_size
        extensions = (
            "PIPELINING",
            f"SIZE {size}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "HELP",
        )
        offer = ("STARTTLS",) if self.starttls else ()
        fixed = {
            "ehlo": reply(250, "", name, *offer, *extensions),
            # RFC 3207 4.2: not to be offered again.
            "ehlo_encrypted": reply(250, "", name, *extensions),
            "helo": reply(250, "", name),
            "goodbye": reply(221, "2.0.0", f"{name} Goodbye"),
            "too_large": reply(552, "5.3.4", f"A message has at most {size} octets here"),
            "too_many_errors": reply(421, "4.7.0", f"{name} Too many errors"),
            "too_many_rejected": reply(421, "4.7.0", f"{name} Too many recipients were rejected"),
            "other_protocol": reply(421, "4.7.0", f"{name} This is SMTP, not HTTP"),
            "too_early": reply(554, "5.5.0", f"{name} Nothing may follow STARTTLS but TLS"),
        }
        for attribute, value in fixed.items():
            object.__setattr__(self, attribute, value)
