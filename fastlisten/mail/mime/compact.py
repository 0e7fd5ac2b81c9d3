"""The structure of a message in a compact form for an index, and back.

    unpack(pack(part)) == part

Rules of this file: the form is a JSON array in UTF-8, of the version of the form and the part. A
part is an array of its values in the order below, without those at its end that are empty. Offsets
are counted from where the part before ends, and sizes replace ends. Octets stand as the characters
of ISO 8859-1. JSON, because Python reads it fast, and an administrator can read it too.

What is damaged, or of another version, raises `CompactError`; parse the message again then.
"""

from __future__ import annotations

import json
from typing import Any

from fastlisten.mail.mime.limits import MAX_DEPTH
from fastlisten.mail.mime.structure import Address, Envelope, Parameters, Part

__all__ = ["CompactError", "pack", "unpack"]

#: Changes with the form, and when the parser learns to see more in a message.
_VERSION = 1

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class CompactError(ValueError):
    """Octets that are not the compact form of a structure."""


def pack(part: Part) -> bytes:
    """Return the compact form of a message's structure."""
    return _ENCODE([_VERSION, _part(part, 0)]).encode()


def unpack(packed: bytes) -> Part:
    """Return the structure of a compact form.

    Raises:
        CompactError: it is damaged, or of another version of the program.
    """
    try:
        version, values = json.loads(packed)
        if version != _VERSION:
            raise CompactError(f"version {version} of the form is not known")
        return _part_of(values, 0, MAX_DEPTH + 1)
    except CompactError:
        raise
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise CompactError(f"not a structure: {error}") from error


def _part(part: Part, before: int) -> list[Any]:
    values: list[Any] = [
        part.header - before,
        part.body - part.header,
        part.end - part.body,
        part.header_lines,
        part.lines,
        part.header_bare,
        part.bare,
        _text(part.type) if part.type != b"text" else 0,
        _text(part.subtype) if part.subtype != b"plain" else 0,
        _pairs(part.parameters),
        _text(part.encoding) if part.encoding != b"7bit" else 0,
        _children(part),
        _envelope(part.envelope) if part.envelope is not None else 0,
        _optional(part.disposition),
        _pairs(part.disposition_parameters),
        _optional(part.id),
        _optional(part.description),
        [_text(tag) for tag in part.languages] or 0,
        _optional(part.location),
        _optional(part.md5),
    ]
    return _trimmed(values)


def _children(part: Part) -> list[Any] | int:
    result = []
    before = part.body
    for child in part.children:
        result.append(_part(child, before))
        before = child.end
    return result or 0


def _envelope(envelope: Envelope) -> list[Any]:
    # Sender and Reply-To are mostly the same as From.
    author = envelope.from_
    return _trimmed(
        [
            _optional(envelope.date),
            _optional(envelope.subject),
            _addresses(author),
            _optional(envelope.message_id),
            _addresses(envelope.to),
            _addresses(envelope.cc),
            _optional(envelope.in_reply_to),
            _addresses(envelope.sender) if envelope.sender != author else 0,
            _addresses(envelope.reply_to) if envelope.reply_to != author else 0,
            _addresses(envelope.bcc),
        ]
    )


def _addresses(addresses: tuple[Address, ...]) -> list[Any] | int:
    return [[_optional(value) for value in address] for address in addresses] or 0


def _pairs(parameters: Parameters) -> list[str] | int:
    return [_text(text) for pair in parameters for text in pair] or 0


def _optional(value: bytes | None) -> str | int:
    return 0 if value is None else value.decode("latin-1")


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _trimmed(values: list[Any]) -> list[Any]:
    while values and values[-1] == 0:
        values.pop()
    return values


_PART_VALUES = 20
_ENVELOPE_VALUES = 10


def _padded(values: Any, length: int) -> list[Any]:
    if not isinstance(values, list) or len(values) > length:
        raise CompactError("not a structure")
    return values + [0] * (length - len(values))


def _part_of(values: Any, before: int, depth: int) -> Part:
    if depth < 0:
        raise CompactError("too deep")
    values = _padded(values, _PART_VALUES)
    if not all(type(number) is int and number >= 0 for number in values[1:7]):
        raise CompactError("a size is not a number")
    header = before + values[0]
    body = header + values[1]
    part = Part(
        header,
        body,
        body + values[2],
        values[3],
        values[4],
        values[5],
        values[6],
        _octets(values[7]) if values[7] else b"text",
        _octets(values[8]) if values[8] else b"plain",
        _pairs_of(values[9]),
        _octets(values[10]) if values[10] else b"7bit",
        _optional_of(values[15]),
        _optional_of(values[16]),
        _optional_of(values[19]),
        _optional_of(values[18]),
        _optional_of(values[13]),
        _pairs_of(values[14]),
        tuple(_octets(tag) for tag in values[17] or ()),
    )
    before = body
    for child in values[11] or ():
        part.children.append(_part_of(child, before, depth - 1))
        before = part.children[-1].end
    if values[12] != 0:
        part.envelope = _envelope_of(values[12])
    return part


def _envelope_of(values: Any) -> Envelope:
    values = _padded(values, _ENVELOPE_VALUES)
    author = _addresses_of(values[2])
    return Envelope(
        _optional_of(values[0]),
        _optional_of(values[1]),
        author,
        _addresses_of(values[7]) or author,
        _addresses_of(values[8]) or author,
        _addresses_of(values[4]),
        _addresses_of(values[5]),
        _addresses_of(values[9]),
        _optional_of(values[6]),
        _optional_of(values[3]),
    )


def _addresses_of(values: Any) -> tuple[Address, ...]:
    if not values:
        return ()
    return tuple(
        Address(_optional_of(name), _optional_of(route), _optional_of(mailbox), _optional_of(host))
        for name, route, mailbox, host in values
    )


def _pairs_of(values: Any) -> Parameters:
    if not values:
        return ()
    octets = [_octets(text) for text in values]
    return tuple(zip(octets[::2], octets[1::2], strict=True))


def _optional_of(value: Any) -> bytes | None:
    return None if value == 0 else _octets(value)


def _octets(value: Any) -> bytes:
    octets: bytes = value.encode("latin-1")
    return octets
