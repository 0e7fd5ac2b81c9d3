"""What IMAP's ENVELOPE says of a message (RFC 3501 7.4.2).

Rules of this file: from the fields of a header to an `Envelope`. Addresses of repeated fields come
one after the other, and of other repeated fields the last counts, as Dovecot has it; RFC 5322 3.6
allows neither to be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastlisten.mail.mime.addresses import parse_addresses
from fastlisten.mail.mime.header_fields import unfold
from fastlisten.mail.mime.limits import MAX_ADDRESSES
from fastlisten.mail.mime.structure import Address, Envelope

__all__ = ["ENVELOPE_FIELDS", "envelope_of"]

_ADDRESSES = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"})

#: The fields that an envelope is made of, in lower case.
ENVELOPE_FIELDS = _ADDRESSES | {b"date", b"subject", b"in-reply-to", b"message-id"}


def envelope_of(found: Iterable[tuple[bytes, bytes]]) -> Envelope:
    """Make the envelope of a message.

    Args:
        found: names in lower case and folded values of its fields, in their order; others than
            `ENVELOPE_FIELDS` are ignored.
    """
    texts: dict[bytes, bytes] = {}
    lists: dict[bytes, list[Address]] = {}
    for name, value in found:
        if name in _ADDRESSES:
            addresses = lists.setdefault(name, [])
            if len(addresses) < MAX_ADDRESSES:
                addresses += parse_addresses(unfold(value))
        elif name in ENVELOPE_FIELDS:
            texts[name] = unfold(value)
    author = tuple(lists.get(b"from", ()))
    return Envelope(
        texts.get(b"date"),
        texts.get(b"subject"),
        author,
        tuple(lists.get(b"sender", ())) or author,
        tuple(lists.get(b"reply-to", ())) or author,
        tuple(lists.get(b"to", ())),
        tuple(lists.get(b"cc", ())),
        tuple(lists.get(b"bcc", ())),
        texts.get(b"in-reply-to"),
        texts.get(b"message-id"),
    )
