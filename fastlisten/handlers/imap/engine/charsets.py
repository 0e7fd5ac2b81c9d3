"""The charsets of SEARCH (RFC 3501 6.4.4): every one that Python can decode text from.

Rules of this file: names are looked up in a table before Python is asked, because Python imports a
module for each name that it does not know, and keeps each for ever.
"""

from __future__ import annotations

import codecs
from encodings.aliases import aliases

from fastlisten.handlers.imap.engine.refusal import Refused

__all__ = ["decode_text", "find_charset"]

#: Not charsets: octets to octets, programs' notations, host names, Windows' own.
_NO_CHARSETS = frozenset(
    {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec"}
    | {"idna", "mbcs", "oem", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"}
)

#: Names in Python's spelling, and what Python calls them.
_NAMES = {
    **{name: name for name in aliases.values()},
    **aliases,
    # Those that have no other name.
    **{name: name for name in ("utf_8_sig", "koi8_t", "koi8_u", "cp720", "cp737", "cp856")},
    **{name: name for name in ("cp874", "cp875", "cp1006", "mac_croatian", "mac_farsi")},
}


def find_charset(name: bytes) -> str:
    """Return what Python calls a charset.

    Raises:
        Refused: it is not known.
    """
    spelled = name.decode("latin-1").lower().replace("-", "_").replace(" ", "_").replace(".", "_")
    found = _NAMES.get(spelled)
    if found is not None and found not in _NO_CHARSETS:
        try:
            codecs.lookup(found)
            return found
        except LookupError:  # left out of this Python
            pass
    raise Refused("Unknown charset", "NO", "BADCHARSET (US-ASCII UTF-8)")


def decode_text(octets: bytes, charset: str) -> str:
    """Return the text of a search key.

    Raises:
        Refused: the octets are no text in that charset.
    """
    try:
        return octets.decode(charset)
    except ValueError:
        raise Refused("Invalid search text for the charset") from None
