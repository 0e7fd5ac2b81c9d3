"""Writes ENVELOPE, BODY and BODYSTRUCTURE (RFC 3501 7.4.2).

Rules of this file: from the values of mail/mime to octets. What a part does not say is said here as
the RFCs have it: a text has the charset us-ascii (RFC 2045 5.2), and a multipart without parts,
for which the grammar has no form, has an empty text, as in Dovecot.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastlisten.handlers.imap.engine.strings import write_nstring, write_string
from fastlisten.mail.mime.structure import Address, Envelope, Parameters, Part

__all__ = ["item_body", "item_body_structure", "item_envelope"]

_EMPTY = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0)'
_EMPTY_EXTENDED = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)'
_US_ASCII = ((b"charset", b"us-ascii"),)


def item_envelope(envelope: Envelope) -> bytes:
    """ENVELOPE."""
    return b"ENVELOPE " + _envelope(envelope)


def item_body(part: Part) -> bytes:
    """BODY: the structure without extension data."""
    return b"BODY " + _part(part, extended=False)


def item_body_structure(part: Part) -> bytes:
    """BODYSTRUCTURE."""
    return b"BODYSTRUCTURE " + _part(part, extended=True)


# --- ENVELOPE -------------------------------------------------------------------------------------


def _envelope(envelope: Envelope) -> bytes:
    return b"(%b)" % b" ".join(
        (
            write_nstring(envelope.date),
            write_nstring(envelope.subject),
            _addresses(envelope.from_),
            _addresses(envelope.sender),
            _addresses(envelope.reply_to),
            _addresses(envelope.to),
            _addresses(envelope.cc),
            _addresses(envelope.bcc),
            write_nstring(envelope.in_reply_to),
            write_nstring(envelope.message_id),
        )
    )


def _addresses(addresses: Iterable[Address]) -> bytes:
    written = []
    for name, route, mailbox, host in addresses:
        if mailbox is None or host is None:
            # RFC 3501 7.4.2: where a group begins, with its name as the mailbox, or ends.
            name = route = host = None
        written.append(
            b"(%b %b %b %b)"
            % (
                write_nstring(name),
                write_nstring(route),
                write_nstring(mailbox),
                write_nstring(host),
            )
        )
    return b"(%b)" % b"".join(written) if written else b"NIL"


# --- BODYSTRUCTURE --------------------------------------------------------------------------------


def _part(part: Part, extended: bool) -> bytes:
    if part.is_multipart:
        return _multipart(part, extended)
    words = [write_string(part.type), write_string(part.subtype)]
    parameters = part.parameters
    if part.type == b"text" and part.parameter(b"charset") is None:
        parameters = (*parameters, *_US_ASCII)
    words.append(_parameters(parameters))
    words.append(write_nstring(part.id))
    words.append(write_nstring(part.description))
    words.append(write_string(part.encoding))
    words.append(b"%d" % part.size)
    if part.is_message:
        inner = part.children[0]
        words.append(_envelope(inner.envelope or Envelope()))
        words.append(_part(inner, extended))
        words.append(b"%d" % part.lines)
    elif part.type == b"text":
        words.append(b"%d" % part.lines)
    if extended:
        words.append(write_nstring(part.md5))
        words += _extension(part)
    return b"(%b)" % b" ".join(words)


def _multipart(part: Part, extended: bool) -> bytes:
    if part.children:
        children = b"".join([_part(child, extended) for child in part.children])
    else:
        children = _EMPTY_EXTENDED if extended else _EMPTY
    words = [children, write_string(part.subtype)]
    if extended:
        words.append(_parameters(part.parameters))
        words += _extension(part)
    return b"(%b)" % b" ".join(words)


def _parameters(parameters: Parameters) -> bytes:
    if not parameters:
        return b"NIL"
    return b"(%b)" % b" ".join([write_string(word) for pair in parameters for word in pair])


def _extension(part: Part) -> list[bytes]:
    """Return disposition, languages and location."""
    disposition = b"NIL"
    if part.disposition is not None:
        parameters = _parameters(part.disposition_parameters)
        disposition = b"(%b %b)" % (write_string(part.disposition), parameters)
    languages = b"NIL"
    if part.languages:
        languages = b"(%b)" % b" ".join(map(write_string, part.languages))
    return [disposition, languages, write_nstring(part.location)]
