"""BODYSTRUCTURE and ENVELOPE, compared with what Dovecot says.

Rules of this file: both get the same messages, and what both say is brought into one form. Where we
differ on purpose is listed, with the section of the RFC that settles it, and an example whose
answers are checked. Sections are compared in test_mime_dovecot_sections.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dovecot_imap import DOVECOT_IMAP, MIME, doubtful, dovecot
from support.marks import external
from support.mime_messages import cpython_messages, line_soups, trees, uniform

from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.structure import Address, Envelope, Parameters, Part

Values = list[Any]

#: What Dovecot makes up where a multipart has no parts.
NO_PARTS = [b"text", b"plain", [(b"charset", b"us-ascii")], None, None, b"7bit", 0, 0] + [None] * 4


def squeezed(value: bytes | None) -> bytes | None:
    """Return a text with single spaces: Dovecot squeezes subjects and names so.

    RFC 5322 2.2.3 only removes the line breaks, and we do no more.
    """
    return None if value is None else b" ".join(value.split())


def pairs(values: Sequence[bytes] | None) -> list[tuple[bytes, bytes]] | None:
    """Return parameters in an order of their own: RFC 2045 5.1 gives theirs no meaning.

    Dovecot joins pieces without encoding those that were not encoded, which RFC 2231 7 requires.
    """
    found = []
    for name, value in zip((values or ())[::2], (values or ())[1::2], strict=True):
        found.append((name.lower(), unquote_to_bytes(value) if name.endswith(b"*") else value))
    return sorted(found) or None


def theirs_envelope(values: Values) -> Values:
    lists = [found and [(squeezed(each[0]), *each[1:]) for each in found] for found in values[2:8]]
    return [values[0], squeezed(values[1]), *lists, *values[8:]]


def ours_envelope(envelope: Envelope | None) -> Values:
    assert envelope is not None

    def addresses(found: tuple[Address, ...]) -> Values | None:
        return [(squeezed(each.name), *each[1:]) for each in found] or None

    return [
        envelope.date,
        squeezed(envelope.subject),
        *map(addresses, (envelope.from_, envelope.sender, envelope.reply_to)),
        *map(addresses, (envelope.to, envelope.cc, envelope.bcc)),
        envelope.in_reply_to,
        envelope.message_id,
    ]


def our_pairs(parameters: Parameters) -> list[tuple[bytes, bytes]] | None:
    return pairs([octets for pair in parameters for octets in pair])


def theirs_disposition(values: Values | None) -> Values | None:
    return values and [values[0].lower(), pairs(values[1])]


def theirs(values: Values) -> Values:
    """Return a BODYSTRUCTURE of Dovecot's, as `ours` returns one."""
    if isinstance(values[0], list):
        count = next(i for i, value in enumerate(values) if not isinstance(value, list))
        parts = [theirs(part) for part in values[:count]]
        subtype, parameters, disposition, languages, location = values[count:]
        return [
            parts,
            subtype.lower(),
            pairs(parameters),
            theirs_disposition(disposition),
            languages,
            location,
        ]
    kind, subtype, parameters, number, description, encoding, size, *more = values
    found = [
        kind.lower(),
        subtype.lower(),
        pairs(parameters),
        number,
        squeezed(description),
        encoding.lower(),
        size,
    ]
    if found[:2] == [b"message", b"rfc822"]:
        found += [theirs_envelope(more[0]), theirs(more[1]), more[2]]
    elif found[0] == b"text":
        found += more[:1]
    md5, disposition, languages, location = more[-4:]
    return [*found, md5, theirs_disposition(disposition), languages, location]


def ours(part: Part) -> Values:
    """Return a structure as the values of a BODYSTRUCTURE."""
    parameters = part.parameters
    disposition = None
    if part.disposition is not None:
        disposition = [part.disposition, our_pairs(part.disposition_parameters)]
    languages = list(part.languages) or None
    if part.is_multipart:
        parts = [ours(child) for child in part.children] or [NO_PARTS]
        named = our_pairs(parameters)
        return [parts, part.subtype, named, disposition, languages, part.location]
    if part.type == b"text" and part.parameter(b"charset") is None:
        parameters = (*parameters, (b"charset", b"us-ascii"))
    found: Values = [part.type, part.subtype, our_pairs(parameters)]
    found += [part.id, squeezed(part.description), part.encoding, part.size]
    if part.is_message:
        (inner,) = part.children
        found += [ours_envelope(inner.envelope), ours(inner), part.lines]
    elif part.type == b"text":
        found.append(part.lines)
    return [*found, part.md5, disposition, languages, part.location]


def compare(messages: Sequence[bytes]) -> None:
    if not messages:
        return
    with dovecot(messages) as server:
        answers = server.fetch("BODYSTRUCTURE ENVELOPE RFC822.SIZE")
    for data, found in zip(messages, answers, strict=True):
        part = parse(data)
        assert ours(part) == theirs(found[b"BODYSTRUCTURE"]), data
        assert ours_envelope(part.envelope) == theirs_envelope(found[b"ENVELOPE"]), data
        assert part.header_size + part.size == found[b"RFC822.SIZE"], data


@external(DOVECOT_IMAP)
@pytest.mark.skipif(not cpython_messages(), reason="needs CPython's tests")
def test_messages_of_cpython() -> None:
    """The one left out is in DIFFERENCES: a Content-Type without a subtype."""
    messages = [data for data in cpython_messages().values() if b"Content-Type: text; " not in data]
    assert len(messages) > 35
    compare(messages)
    compare([re.sub(rb"\r?\n", b"\r\n", data) for data in messages])


MESSAGES = st.builds(bytes.__add__, st.sampled_from(MIME), line_soups | trees).map(uniform)


@external(DOVECOT_IMAP)
@given(st.lists(MESSAGES, min_size=1, max_size=40))
@settings(max_examples=15)
def test_messages_at_random(messages: list[bytes]) -> None:
    compare([data for data in messages if not doubtful(parse(data))])


#: Values of To that both read alike.
ADDRESSES = (
    b"a@b", b"<a@b>", b"A B <a@b>", b'"A \\"B" <a@b>', b"a@b (A B)", b"A \t B <a@b>",
    b"J. R. D <a@b>", b"(c) A (d) <(e)a(f)@(g)b(h)> (i)", b"<@x,@y:a@b>", b"a", b"A <a>",
    b"A <>", b"@b", b"a@", b"g: a@b, C <c@d>;", b"g:;", b"g: a@b", b'"g h" (c): a@b (d); (e)',
    b"a @ b . c", b'"a b"@c', b"a@[192.0.2.1]", b"a@b c@d", b"\xe4 <\xe4@\xe4>",
    b"A\n <a@b>,\n\tC <c@d>", b"a@b (c (d) \\))", b"(c)", b"a..b@c", b".a@b",
    b"A <a@b> C <c@d>", b"A <a@b>>", b"", b'"A" "B" <a@b>', b'"" <a@b>', b"=?utf-8?q?x?= <a@b>",
    b"'a' <a@b>", b"a@b ()", b"a@b@c", b"A: b", b"mailto:a@b", b"<a@b>,<c@d>",
)  # fmt: skip

#: Headers that both read alike.
HEADERS = (
    b"From: a@b\nFrom: c@d\nSubject: x\nSubject: y\nDate: 1\nDate: 2\nMessage-ID: <1>\n\tx  y\n",
    b"Sender:\nReply-To: (c)\nFrom: a@b\nSubject:\n b\n\tc  \nIn-Reply-To: <a>\n\t<b>  <c>\n",
    b"Subject:   \nDate:\nMessage-ID:\nIn-Reply-To:\n",
    b"subject : x\nSubject x: y\nSubject\n :z\n",
    b"Subject: a\0b\rc\nReply-To: g:;\nFrom: a@b\nCc: c@d\nBcc: e@f\n",
    b" Subject: a\nTo: b@c\n:x\nDate: a\n \n b\n",
    b"Content-Type: Text / HTML (c) ; (d) charset = utf-8 (e)\n",
    b'Content-Type: a/b; n="x; y\\"\\\\z"; m=""; o=\xe4; p="q\n r"\n',
    b"Content-Type: a/b; n*0=ab; n*1=\"c d\"; m*0*=utf-8''%C3; m*1*=%A4; m*2=x\n",
    b"Content-Type: a/b; n*=utf-8'de'%C3%A4; m=x y; o\n",
    b"Content-Type: a/b\nContent-Type: c/d\nContent-ID: <a> (c)\nContent-ID: <b>\n",
    b'Content-Type: a/b\nContent-Disposition: Inline (c); FileName="x y"\nContent-MD5: Q2h=\n',
    b"Content-Type: a/b\nContent-Description: a\n b\nContent-Location: http://x/ y\n",
    b"Content-Type: a/b\nContent-Language: en, de (c)\nContent-Transfer-Encoding: Base64 (c)\n",
    b"Content-Type: multipart/mixed\n\n--b\n\n--b--\n",
    b"Content-Type: multipart/mixed; boundary=b; x=y\nContent-Location: z\nContent-Language: en\n",
    b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nAAAA\nAAAA\n",
    b"Content-Type: message/global\n\nSubject: x\n\ny\n",
    b"From a@b Mon\nContent-Type : a/b\n",
)


@external(DOVECOT_IMAP)
def test_values_of_fields() -> None:
    headers = [*(b"To: " + value + b"\n" for value in ADDRESSES), *HEADERS]
    compare([header + b"\nbody\n" for header in headers])


def to(*addresses: tuple[bytes | None, ...]) -> tuple[str, Values]:
    """Return where ENVELOPE has To, and these addresses."""
    return "To", [list(address) for address in addresses]


def kind(*values: Any) -> tuple[str, Values]:
    """Return where BODYSTRUCTURE has type, subtype and parameters, and such values."""
    return "type", list(values)


A_B = (None, None, b"a", b"b")
C_D = (None, None, b"c", b"d")
G = (None, None, b"g", None)
END = (None, None, None, None)
NOBODY = (None, None, b"MISSING_MAILBOX", b"MISSING_DOMAIN")
ASCII = [(b"charset", b"us-ascii")]

#: What we read otherwise: why, a header, Dovecot's reading, ours. Where the reason is that no RFC
#: allows the header, ours is meant to lose less of it.
DIFFERENCES: dict[str, tuple[bytes, tuple[str, Values], tuple[str, Values]]] = {
    "RFC 5322 4.4: elements of a list may be empty": (
        b"To: a@b, , c@d",
        to(A_B, NOBODY, C_D),
        to(A_B, C_D),
    ),
    "RFC 5322 4.4: space around the dots of a local part": (
        b"To: a . b@c",
        to((b"a. b", *NOBODY[1:])),
        to((None, None, b"a.b", b"c")),
    ),
    "RFC 2045 5.2: a wrong Content-Type is text/plain": (
        b"Content-Type:",
        kind(b"", b"", None),
        kind(b"text", b"plain", ASCII),
    ),
    "RFC 2045 5.2: so is one without a subtype": (
        b"Content-Type: text",
        kind(b"text", b"", ASCII),
        kind(b"text", b"plain", ASCII),
    ),
    "RFC 2045 5.1: an attribute is a token": (
        b"Content-Type: a/b; =c",
        kind(b"a", b"b", [(b"", b"c")]),
        kind(b"a", b"b", None),
    ),
    "RFC 2231 4: a name without a number is no piece": (
        b"Content-Type: a/b; n*0=c; n*1=d; m*=''e",
        kind(b"a", b"b", [(b"m*1*", b"''e"), (b"n", b"cd")]),
        kind(b"a", b"b", [(b"m*", b"''e"), (b"n", b"cd")]),
    ),
    "no RFC: a special in a value": (
        b"Content-Type: a/b; n=c/d",
        kind(b"a", b"b", [(b"n", b"c")]),
        kind(b"a", b"b", [(b"n", b"c/d")]),
    ),
    "no RFC: a string that does not end": (
        b'Content-Type: a/b; n="c',
        kind(b"a", b"b", None),
        kind(b"a", b"b", [(b"n", b"c")]),
    ),
    "no RFC: an empty parameter": (
        b"Content-Type: a/b;;n=c",
        kind(b"a", b"b", None),
        kind(b"a", b"b", [(b"n", b"c")]),
    ),
    "no RFC: brackets that do not end": (
        b"To: A <a@b",
        to((b"A", None, b"a", b"SYNTAX_ERROR")),
        to((b"A", *A_B[1:])),
    ),
    "no RFC: a comment that does not end": (
        b"To: a@b (c",
        to((None, None, b"a", b"MISSING_DOMAIN")),
        to((b"c", *A_B[1:])),
    ),
    "no RFC: words before an address": (
        b"To: c a@b",
        to((b"c a", *NOBODY[1:])),
        to((b"c", *A_B[1:])),
    ),
    "no RFC: a dot after a domain": (
        b"To: a@b.",
        to((None, None, b"a", b"MISSING_DOMAIN")),
        to((None, None, b"a", b"b.")),
    ),
    "no RFC: a semicolon between addresses": (b"To: a@b; c@d", to(A_B), to(A_B, C_D)),
    "no RFC: a semicolon too many": (b"To: g:;;, a@b", to(G, END), to(G, END, A_B)),
    "no RFC: a domain literal in a name": (
        b"To: A [x] <a@b>",
        to((None, None, b"A", b"MISSING_DOMAIN")),
        to((b"A [x]", *A_B[1:])),
    ),
}


@external(DOVECOT_IMAP)
@pytest.mark.parametrize(
    ("header", "dovecots", "own"),
    DIFFERENCES.values(),
    ids=DIFFERENCES.keys(),
)
def test_differences(header: bytes, dovecots: tuple[str, Values], own: tuple[str, Values]) -> None:
    data = header + b"\n\n"
    with dovecot([data]) as server:
        (found,) = server.fetch("BODYSTRUCTURE ENVELOPE")
    part = parse(data)
    if own[0] == "To":
        assert [list(address) for address in found[b"ENVELOPE"][5]] == dovecots[1]
        assert [list(address) for address in ours_envelope(part.envelope)[5]] == own[1]
    else:
        assert theirs(found[b"BODYSTRUCTURE"])[:3] == dovecots[1]
        assert ours(part)[:3] == own[1]
