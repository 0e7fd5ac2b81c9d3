"""Charsets: octets of a message to text.

Rules of this file: every charset that Python can decode text from, and no failure. What a charset
cannot be, or octets that it does not have, become the characters of ISO 8859-1, which loses
nothing. A name is looked up in a table before Python is asked, because Python imports a module
for each name that it does not know, and keeps each for ever.
"""

from __future__ import annotations

import codecs
import re
from encodings.aliases import aliases

__all__ = ["codec_of", "decode", "decoder", "find_charset"]

#: Not charsets: octets to octets, notations of programs, host names, Windows' own.
_NO_CHARSETS = frozenset(
    {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec"}
    | {"idna", "mbcs", "oem", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"}
)

#: Names in small letters with underscores, and what Python calls the charsets.
_NAMES = {
    **{name: name for name in aliases.values()},
    **aliases,
    # Those that have no other name.
    **{name: name for name in ("utf_8_sig", "koi8_t", "koi8_u", "cp720", "cp737", "cp856")},
    **{name: name for name in ("cp874", "cp875", "cp1006", "mac_croatian", "mac_farsi")},
    # What mail has besides.
    "windows_874": "cp874",
    "iso_8859_8_i": "iso8859_8",
    "iso_8859_8_e": "iso8859_8",
    "x_sjis": "cp932",
    "x_gbk": "gb18030",
    "x_mac_roman": "mac_roman",
}

#: Charsets in place of others that they contain: programs name the smaller one, and use the larger.
#: What says that it is ASCII and is not, is mostly UTF-8.
_LARGER = {
    "ascii": "utf_8",
    "latin_1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}

_SEPARATORS = re.compile(r"[-. :]+")

#: The name under which the handler of errors is known to `codecs`.
_OCTETS = "fastlisten-octets"


def _as_octets(error: UnicodeError) -> tuple[str, int]:
    """Go on after octets that a charset does not have, with the characters of ISO 8859-1."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    # At least one, or a decoder would never end.
    end = max(error.end, error.start + 1)
    return error.object[error.start : end].decode("latin-1"), end


codecs.register_error(_OCTETS, _as_octets)


def codec_of(name: bytes) -> str | None:
    """Return what Python calls a charset; None if it has none of that name."""
    spelled = _SEPARATORS.sub("_", name.strip(b" '\"").decode("latin-1").lower())
    found = _NAMES.get(spelled)
    if found is None or found in _NO_CHARSETS:
        return None
    try:
        codecs.lookup(found)
    except LookupError:  # left out of this Python
        return None
    return found


def find_charset(name: bytes) -> str | None:
    """Return what Python calls the charset that text is in which names this one; None if none."""
    found = codec_of(name)
    return None if found is None else _LARGER.get(found, found)


class _Marked(codecs.IncrementalDecoder):
    """UTF-16 or UTF-32 in the order that the mark at the beginning says, else the highest first.

    RFC 2781 4.3. Python's own decoders need the mark, or take the order of the machine.
    """

    def __init__(self, name: str) -> None:
        super().__init__(_OCTETS)
        self._name = name
        self._held = b""
        self._inner: codecs.IncrementalDecoder | None = None

    def decode(self, data: bytes, final: bool = False) -> str:  # type: ignore[override]
        """Return the text of the next octets."""
        if self._inner is not None:
            return self._inner.decode(data, final)
        self._held += data
        if len(self._held) < 4 and not final:
            return ""
        order = "_le" if self._held.startswith(codecs.BOM_UTF16_LE) else "_be"
        self._inner = codecs.getincrementaldecoder(self._name + order)(_OCTETS)
        return self._inner.decode(self._held, final).removeprefix("\ufeff")


def decoder(name: bytes | None) -> codecs.IncrementalDecoder:
    """Return a decoder of a charset, of UTF-8 if the charset is not known."""
    found = (None if name is None else find_charset(name)) or "utf_8"
    if found in ("utf_16", "utf_32"):
        return _Marked(found)
    return codecs.getincrementaldecoder(found)(_OCTETS)


def decode(octets: bytes, name: bytes | None = None) -> str:
    """Return octets in a charset as text."""
    if octets.isascii() and name is None:
        return octets.decode("ascii")
    return decoder(name).decode(octets, final=True)
