"""The values of the fields that describe a part: Content-Type and its kind.

Rules of this file: unfolded values in, data out (RFC 2045, RFC 2183, RFC 2231, RFC 3282). What is
wrong is read as Dovecot reads it where the RFCs leave that open, except that an unquoted value
of a parameter goes up to the next space or semicolon: programs write ``boundary=----=_Part_1``
and ``filename=a/b.txt``.
"""

from __future__ import annotations

import re

from fastlisten.mail.mime.lexical import QUOTED, unquoted, without_comments
from fastlisten.mail.mime.limits import MAX_PARAMETERS
from fastlisten.mail.mime.structure import Parameters

__all__ = ["content_type", "disposition", "languages", "token"]

#: RFC 2045 5.1, and 8-bit octets, which some programs put into file names.
_TOKEN = rb'[^\x00-\x20\x7f()<>@,;:\\"/\[\]?=]+'

_FIRST = re.compile(rb"[ \t]*+(" + _TOKEN + rb")")
_SUBTYPE = re.compile(rb"[ \t]*+/[ \t]*+(" + _TOKEN + rb")")
_LANGUAGE = re.compile(_TOKEN)
_PARAMETER = re.compile(
    rb";[; \t]*+(?:(" + _TOKEN + rb")[ \t]*+=[ \t]*+(?:" + QUOTED + rb'|([^\x00-\x20;"\x7f]++)))?',
    re.DOTALL,
)
#: A name, the number of its piece if there are several, the mark of percent encoding (RFC 2231).
_PIECE = re.compile(rb"([^*]+)(?:\*([0-9]{1,4}))?(\*)?\Z")

#: Octets that need percent encoding in an extended value (RFC 2231 7).
_NOT_ATTRIBUTE = re.compile(rb"[^A-Za-z0-9!#$&+.^_`{|}~-]")


def token(value: bytes) -> bytes:
    """Return the first token of a value in lower case; empty if it does not begin with one."""
    match = _FIRST.match(without_comments(value))
    return b"" if match is None else match[1].lower()


def content_type(value: bytes) -> tuple[bytes, bytes, Parameters]:
    """Return type, subtype and parameters of a Content-Type.

    It is ``text/plain`` without parameters if it is not valid (RFC 2045 5.2); a mere ``text`` keeps
    its parameters, because its charset is still the best guess.
    """
    value = without_comments(value)
    first = _FIRST.match(value)
    if first is None:
        return b"text", b"plain", ()
    kind = first[1].lower()
    second = _SUBTYPE.match(value, first.end())
    if second is not None:
        return kind, second[1].lower(), _parameters(value, second.end())
    if kind == b"text":
        return kind, b"plain", _parameters(value, first.end())
    return b"text", b"plain", ()


def disposition(value: bytes) -> tuple[bytes | None, Parameters]:
    """Return the kind of a Content-Disposition in lower case, and its parameters."""
    value = without_comments(value)
    match = _FIRST.match(value)
    if match is None:
        return None, ()
    return match[1].lower(), _parameters(value, match.end())


def languages(value: bytes) -> tuple[bytes, ...]:
    """Return the tags of a Content-Language as they are written."""
    return tuple(_LANGUAGE.findall(without_comments(value))[:MAX_PARAMETERS])


def _parameters(value: bytes, position: int) -> Parameters:
    """Return the parameters in a value without comments, from `position` on."""
    found: list[tuple[bytes, bytes]] = []
    split = False
    for _ in range(MAX_PARAMETERS):  # those without a name or a value count too
        match = _PARAMETER.search(value, position)
        if match is None:
            break
        position = match.end()
        name, quoted, plain = match.groups()
        if name is not None:
            found.append((name.lower(), plain if quoted is None else unquoted(quoted)))
            split = split or b"*" in name
    return tuple(_joined(found)) if split else tuple(found)


def _joined(found: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Join the values that were split into pieces; each stands where its first piece stood."""
    result: list[tuple[bytes, bytes] | bytes] = []
    pieces: dict[bytes, dict[int, tuple[bool, bytes]]] = {}
    for name, value in found:
        match = _PIECE.match(name)
        if match is None or match[2] is None:
            result.append((name, value))
            continue
        base, number = match[1], int(match[2])
        if base not in pieces:
            pieces[base] = {}
            result.append(base)
        pieces[base].setdefault(number, (match[3] is not None, value))
    return [
        _whole(entry, pieces[entry]) if isinstance(entry, bytes) else entry
        for entry in result
        if not isinstance(entry, bytes) or 0 in pieces[entry]
    ]


def _whole(name: bytes, pieces: dict[int, tuple[bool, bytes]]) -> tuple[bytes, bytes]:
    """Return the parameter that consists of these pieces, up to the first that is missing."""
    values: list[tuple[bool, bytes]] = []
    while (piece := pieces.get(len(values))) is not None:
        values.append(piece)
    if not any(encoded for encoded, _ in values):
        return name, b"".join(value for _, value in values)
    # Charset and language stand at the beginning of the first piece (RFC 2231 4.1).
    text = b"".join(
        value if encoded else _NOT_ATTRIBUTE.sub(_percent, value) for encoded, value in values
    )
    return name + b"*", text if values[0][0] else b"''" + text


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]
