"""Makes a well-formed reply of what a hook returns.

Rules of this file: text only. What a hook returns may quote a client or another server: whatever it
contains becomes exactly one reply (RFC 5321 4.2), or an error.
"""

from __future__ import annotations

import re

from fastlisten.mail.reply import Reply

__all__ = ["HookReply", "error_reply", "reply_of"]

_CODE = re.compile(rb"[245][0-9][0-9](?=[ -]|\Z)")
_BREAK = re.compile(rb"\r\n|\r|\n")

#: Characters of an exception's text that a reply quotes: its line has at most 512 octets (RFC 5321
#: 4.5.3.1.5).
_QUOTED = 400


class HookReply(Reply):
    """What a hook says to a recipient or a message.

    Attributes:
        octets: the complete reply, as the client gets it.
        accepted: whether it means yes. A hook may say 250 and mean no (transaction_hooks.py).
    """

    octets: bytes
    accepted: bool

    @classmethod
    def of(cls, octets: bytes, accepted: bool) -> HookReply:
        """Return a reply of `reply_of` as a `Reply`, whose text is its last line's."""
        last = octets.removesuffix(b"\r\n").rpartition(b"\n")[2]
        answer = cls(int(last[:3]), "", last[4:].decode("utf-8", "replace"))
        answer.octets, answer.accepted = octets, accepted
        return answer


def reply_of(status: object, utf8: bool = True) -> bytes:
    """Return the reply that a hook's string means, with its CRLF.

    Args:
        status: three digits and a text, possibly of several lines; every line may begin with the
            code, or only the first.
        utf8: the text need not be ASCII.

    Raises:
        TypeError: it is not a string.
        ValueError: it does not begin with a code of 2xx, 4xx or 5xx, or is not ASCII.
    """
    if isinstance(status, str):
        data = status.encode("utf-8" if utf8 else "ascii")
    elif isinstance(status, bytes | bytearray):
        data = bytes(status)
    else:
        raise TypeError(f"a hook must return its reply as a string, not {status!r}")
    match = _CODE.match(data)
    if match is None:
        raise ValueError(f"a reply must begin with a three-digit code: {status!r}")
    if b"\n" not in data and b"\r" not in data and data[3:4] != b"-":
        return data + b"\r\n"
    code = match.group()
    lines = _BREAK.split(data)
    while len(lines) > 1 and not lines[-1]:
        lines.pop()
    texts = [line[4:] if _starts(line, code) else line for line in lines]
    last = len(texts) - 1
    return b"".join(
        code + (b"-" if index < last else b" ") + text + b"\r\n" for index, text in enumerate(texts)
    )


def _starts(line: bytes, code: bytes) -> bool:
    return line.startswith(code) and line[3:4] in (b" ", b"-", b"")


def error_reply(error: BaseException, utf8: bool = True) -> bytes:
    """Return aiosmtpd's reply to an exception: ``500 Error: (its type) its text``, on one line.

    An exception whose ``__str__`` raises is named by its type.
    """
    try:
        text = " ".join(str(error).split())[:_QUOTED]
    except Exception:
        text = "it cannot be described"
    line = f"500 Error: ({type(error).__name__}) {text}".rstrip()
    return line.encode("utf-8" if utf8 else "ascii", "backslashreplace") + b"\r\n"
