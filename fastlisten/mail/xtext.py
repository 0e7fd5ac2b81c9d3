"""xtext (RFC 3461 4): how ENVID, ORCPT and AUTH write characters that SMTP cannot carry.

Rules of this file: text in, text out. Which forms a parameter may have is checked where it is read.
"""

from __future__ import annotations

import re

__all__ = ["decode_xtext"]

_ENCODED = re.compile(r"\+([0-9A-F]{2})")

#: With the form of RFC 6533 3 for characters beyond ASCII.
_UTF8_ENCODED = re.compile(r"\+([0-9A-F]{2})|\\x\{([0-9A-F]{2,6})\}")


def decode_xtext(text: str, international: bool = False) -> str | None:
    """Return the text that an xtext stands for, or None if it is not printable.

    Args:
        text: with two hexadecimal digits after each "+".
        international: it may have the forms of RFC 6533 3 (in ORCPT of type utf-8, in AUTH).
    """
    pattern = _UTF8_ENCODED if international else _ENCODED
    decoded = pattern.sub(_decode_match, text)
    return decoded if decoded.isprintable() else None


def _decode_match(match: re.Match[str]) -> str:
    code = int(match[match.lastindex or 0], 16)
    # A tab is white space. What is no character of Unicode becomes one that is not printable.
    return " " if code == 9 else chr(code) if code <= 0x10FFFF else "\0"
