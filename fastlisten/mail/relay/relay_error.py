"""What a relay says, as what we say to the client that wants mail handed to it.

Rules of this file: replies in, replies out; no I/O. A relay's refusal keeps its code and its
enhanced code, so that the client knows what its mail's fate is; its text is quoted, as far as it is
printable ASCII and not long. What concerns us and not the message (a login that fails, a
greeting that refuses us) is the administrator's business: the client hears to come again.
"""

from __future__ import annotations

import re

from fastlisten.mail.reply import Reply

__all__ = [
    "LOST",
    "NOT_READ",
    "NO_BINARY",
    "NO_EIGHT_BITS",
    "NO_PLACE",
    "NO_UTF8_HEADER",
    "NO_UTF8_RECIPIENT",
    "NO_UTF8_SENDER",
    "OUT_OF_STEP",
    "TOO_LARGE",
    "TO_ONESELF",
    "UNREACHABLE",
    "RelayError",
    "quoted",
    "refusal",
]

UNREACHABLE = Reply(451, "4.4.1", "The relay for mail to others cannot be used now; try later")
LOST = Reply(451, "4.4.2", "The relay for mail to others went away; try again later")
NO_PLACE = Reply(451, "4.3.2", "Too much mail is being handed on; try again later")
OUT_OF_STEP = Reply(
    451, "4.5.0", "The relay for mail to others answers out of turn; try again later"
)
# 4, where RFC 3463 3.5 and Postfix have 5.4.6: it is the configuration that is wrong, not the mail.
TO_ONESELF = Reply(451, "4.4.6", "Mail loops back to myself: the relay is this server")
NOT_READ = Reply(451, "4.3.0", "The message could not be read back; try again later")
NO_BINARY = Reply(554, "5.6.3", "The relay for mail to others takes no binary messages")
NO_EIGHT_BITS = Reply(554, "5.6.3", "The relay for mail to others takes no 8-bit messages")
# RFC 6531 3.5: 550 where it is the sender's address, 553 the recipient's, 554 the header.
NO_UTF8_SENDER = Reply(550, "5.6.7", "The relay for mail to others takes ASCII senders only")
NO_UTF8_RECIPIENT = Reply(553, "5.6.7", "The relay for mail to others takes ASCII addresses only")
NO_UTF8_HEADER = Reply(554, "5.6.9", "The relay for mail to others takes no header in UTF-8")
TOO_LARGE = Reply(552, "5.3.4", "Message too large for the relay for mail to others")

#: Characters of a relay's text that are repeated: a line of a reply has at most 512 octets
#: (RFC 5321 4.5.3.1.5), and its reader wants the first sentence.
_LONGEST = 300

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: +|$)")
_UNPRINTABLE = re.compile(r"[^ -~]+")

#: Codes of 5xx with which a relay means our login, not the message (RFC 4954 6).
_OF_LOGIN = frozenset((530, 534, 535, 538))


class RelayError(Exception):
    """The message, or a recipient, cannot be handed over.

    Attributes:
        reply: what our client hears.
    """

    def __init__(self, reply: Reply, reason: str = "") -> None:
        self.reply = reply
        super().__init__(reason or str(reply))


def quoted(text: str) -> str:
    """Return a relay's words on one line, printable, and not longer than is useful."""
    # The enhanced code stands on every line (RFC 2034 4); once is enough.
    lines = [_ENHANCED.sub("", line.strip(), count=1) for line in text.splitlines()]
    return _UNPRINTABLE.sub("?", " ".join(lines)).strip()[:_LONGEST]


def refusal(code: int, text: str) -> RelayError:
    """Return what a relay's refusal of MAIL, RCPT or the message means for our client.

    Args:
        code: of its reply.
        text: of its reply, lines separated by LF.
    """
    reason = f"{code} {quoted(text)}"
    if code in _OF_LOGIN:
        return RelayError(UNREACHABLE, reason)
    if not 400 <= code <= 599:
        return RelayError(Reply(451, "4.5.0", "The relay gave an answer without sense"), reason)
    match = _ENHANCED.match(text)
    status = match[1] if match and match[1][0] == str(code)[0] else f"{code // 100}.0.0"
    if code == 421:
        code = 451  # it closes its connection with us; ours with the client goes on
    return RelayError(Reply(code, status, f"The relay says: {quoted(text)}"), reason)
