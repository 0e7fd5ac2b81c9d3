"""The base subject: what SORT and THREAD take for the subject of a message (RFC 5256 2.1).

Rules of this file: an unfolded value in, text out; the numbers are those of the RFC's steps.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fastlisten.mail.mime.encoded_words import decoded

__all__ = ["BaseSubject", "base_subject"]

#: Characters of a subject that are looked at.
_LONGEST = 2000

_SPACE = re.compile(r"[ \t\r\n]+")
_BLOB = r"\[[^\[\]]*\][ ]*"
_LEADER = re.compile(rf"[ ]+|(?:{_BLOB})*+(?:re|fwd?)[ ]*(?:{_BLOB})?:", re.IGNORECASE)
_ONE_BLOB = re.compile(_BLOB)


class BaseSubject(NamedTuple):
    """A base subject.

    Attributes:
        text: as it is written; compare it as `fold` returns it.
        is_reply: whether something was removed that replies and forwarded messages have.
    """

    text: str
    is_reply: bool


def base_subject(value: bytes) -> BaseSubject:
    """Return the base subject of an unfolded value of the field Subject."""
    text = _SPACE.sub(" ", decoded(value)[:_LONGEST])  # 1
    is_reply = False
    while True:
        # 2. A pattern for the end would be tried at every space.
        while True:
            if text.endswith(" "):
                text = text.rstrip(" ")
            elif text[-5:].lower() == "(fwd)":
                text = text[:-5]
                is_reply = True
            else:
                break
        while True:  # 3 to 5
            if match := _LEADER.match(text):
                is_reply = is_reply or not match[0].isspace()
            else:
                match = _ONE_BLOB.match(text)
                if match is None or match.end() == len(text):
                    break
            text = text[match.end() :]
        if text[:5].lower() != "[fwd:" or not text.endswith("]"):  # 6
            return BaseSubject(text, is_reply)
        text = text[5:-1]
        is_reply = True
