"""Why mail cannot be handed to the relay, as a reply to the client that sends it.

Rules of this file: replies in, replies out; no I/O. A refusal by the relay keeps its code and its
enhanced status code, so that the client knows what happens to its mail; its text is quoted, as
printable ASCII of limited length. Problems between us and the relay (a failed login, a greeting
that refuses us) are for the administrator; the client is told to try again later.
"""

from __future__ import annotations

import re

from fastlisten.mail.reply import Reply

__all__ = [
    "LOOPS_BACK",
    "LOST",
    "NOT_READ",
    "NO_BINARY",
    "NO_EIGHT_BITS",
    "NO_UTF8_HEADER",
    "NO_UTF8_RECIPIENT",
    "NO_UTF8_SENDER",
    "OUT_OF_SYNC",
    "TOO_LARGE",
    "TOO_MANY_SESSIONS",
    "UNREACHABLE",
    "RelayError",
    "quoted",
    "refusal",
]

UNREACHABLE = Reply(451, "4.4.1", "The relay cannot be reached; try again later")
LOST = Reply(451, "4.4.2", "Lost connection to the relay; try again later")
TOO_MANY_SESSIONS = Reply(451, "4.3.2", "Too many connections to the relay; try again later")
OUT_OF_SYNC = Reply(451, "4.5.0", "Protocol synchronization error at the relay; try again later")
# Temporary, although RFC 3463 3.5 and Postfix have 5.4.6: the configuration is wrong, not the mail.
LOOPS_BACK = Reply(451, "4.4.6", "Mail loops back to myself: the relay is this server")
NOT_READ = Reply(451, "4.3.0", "The message could not be read back; try again later")
NO_BINARY = Reply(554, "5.6.3", "BINARYMIME is required, but the relay does not offer it")
NO_EIGHT_BITS = Reply(554, "5.6.3", "8BITMIME is required, but the relay does not offer it")
# RFC 6531 3.5: 550 if it is because of the sender, 553 of a recipient, 554 of the header.
NO_UTF8_SENDER = Reply(
    550, "5.6.7", "SMTPUTF8 is required for the sender, but the relay does not offer it"
)
NO_UTF8_RECIPIENT = Reply(
    553, "5.6.7", "SMTPUTF8 is required for the address, but the relay does not offer it"
)
NO_UTF8_HEADER = Reply(
    554, "5.6.9", "SMTPUTF8 is required for the header, but the relay does not offer it"
)
TOO_LARGE = Reply(552, "5.3.4", "Message size exceeds the limit of the relay")

#: Characters of a relay's text that are quoted: a line of a reply has at most 512 octets
#: (RFC 5321 4.5.3.1.5), and readers want the first sentence.
_LONGEST = 300

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: +|$)")
_UNPRINTABLE = re.compile(r"[^ -~]+")

#: 5xx codes that are about our login and not about the message (RFC 4954 6).
_OF_LOGIN = frozenset((530, 534, 535, 538))


class RelayError(Exception):
    """The message, or a recipient, cannot be handed to the relay.

    Attributes:
        reply: the reply to our client.
    """

    def __init__(self, reply: Reply, reason: str = "") -> None:
        self.reply = reply
        super().__init__(reason or str(reply))


def quoted(text: str) -> str:
    """Return the text of a relay's reply on one line, printable and of limited length."""
    # Every line has the enhanced status code (RFC 2034 4); our reply has it once.
    lines = [_ENHANCED.sub("", line.strip(), count=1) for line in text.splitlines()]
    return _UNPRINTABLE.sub("?", " ".join(lines)).strip()[:_LONGEST]


def refusal(code: int, text: str) -> RelayError:
    """Return the error for a relay's refusal of MAIL, RCPT or the message.

    Args:
        code: the relay's reply code.
        text: the text of its reply, lines separated by LF.
    """
    reason = f"{code} {quoted(text)}"
    if code in _OF_LOGIN:
        return RelayError(UNREACHABLE, reason)
    if not 400 <= code <= 599:
        return RelayError(
            Reply(451, "4.5.0", "Unexpected reply from the relay; try again later"), reason
        )
    match = _ENHANCED.match(text)
    status = match[1] if match and match[1][0] == str(code)[0] else f"{code // 100}.0.0"
    if code == 421:
        code = 451  # the relay closes its connection; ours with the client goes on
    return RelayError(Reply(code, status, f"The relay says: {quoted(text)}"), reason)
