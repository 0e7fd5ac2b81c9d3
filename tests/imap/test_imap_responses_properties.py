"""No value makes a response that is more, or other, than one response.

Rules of this file: hypothesis makes values, a strict reader reads them again.
"""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from support.imap_driver import command
from support.imap_reader import read_response, read_responses

from fastlisten.handlers.imap.engine.body_structure import item_body_structure, item_envelope
from fastlisten.handlers.imap.engine.commands import Expunge, Login, Select
from fastlisten.handlers.imap.engine.mailbox_names import decode_mailbox, encode_mailbox
from fastlisten.handlers.imap.engine.mailbox_responses import (
    id_response,
    list_response,
    status_response,
)
from fastlisten.handlers.imap.engine.message_responses import (
    fetch_response,
    item_section,
    vanished_response,
)
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.sequence_sets import SAVED, STAR, SequenceSet, write_set
from fastlisten.handlers.imap.engine.session_states import State
from fastlisten.handlers.imap.engine.status_responses import status
from fastlisten.handlers.imap.engine.strings import (
    write_astring,
    write_flags,
    write_nstring,
    write_string,
)
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.structure import Address, Envelope

#: Octets with more than their share of those that mean something.
octets = st.one_of(
    st.binary(max_size=40),
    st.text(st.sampled_from('()[]{}"\\ \r\n\0*%&NILnil+é5'), max_size=12).map(str.encode),
)
names = st.text(max_size=20) | st.text(st.sampled_from('&-,/+a ABCäß日 \r\n\0"\\%*'), max_size=12)
#: What messages are made of whose structure nobody foresees.
PIECES = [
    b"Content-Type: ", b"multipart/mixed; boundary=x", b"message/rfc822", b"\r\n", b"\n", b"--x",
    b"text/plain", b'; a="', b"Subject: ", b"From: <", b"\0", b"\xe4", b"--", b"()",
]  # fmt: skip
ends_of_ranges = st.integers(1, 30) | st.just(STAR)
ranges_of_sets = st.lists(st.tuples(ends_of_ranges, ends_of_ranges), min_size=1)
numbers = st.sets(st.integers(1, 60), max_size=30).map(sorted)


def as_it_arrives(value: bytes) -> bytes:
    return value.replace(b"\0", b"\x80")


def as_sent(string: bytes) -> bytes:
    return string.replace(b"}\r\n", b"+}\r\n", 1) if string.startswith(b"{") else string


@given(octets)
def test_strings(value: bytes) -> None:
    assert read_response(b"* %b\r\n" % write_string(value)) == [as_it_arrives(value)]
    assert read_response(b"* %b\r\n" % write_astring(value)) == [as_it_arrives(value)]
    assert read_response(b"* %b\r\n" % write_nstring(value)) == [as_it_arrives(value)]


@given(octets, octets)
def test_what_we_write_we_read(user: bytes, password: bytes) -> None:
    """The engine's own reader, which wants the + of literals that come with the command."""
    line = b"LOGIN %b %b" % (as_sent(write_astring(user)), as_sent(write_string(password)))
    login = Login(as_it_arrives(user), as_it_arrives(password))
    assert command(line, State.NOT_AUTHENTICATED) == login


@given(names)
def test_names_of_mailboxes(name: str) -> None:
    """Modified UTF-7 and back, as a client writes it and as it reads it."""
    encoded = encode_mailbox(name)
    assert encoded.isascii()
    expected = "INBOX" if name.upper() == "INBOX" else name
    assert decode_mailbox(encoded) == expected
    assert command(b"SELECT " + write_string(encoded)) == Select(expected, closed=True)
    words = read_response(list_response(name, ["\\HasNoChildren"]))
    assert words == [b"LIST", [b"\\HasNoChildren"], b"/", encoded]
    words = read_response(status_response(name, {"MESSAGES": 5}))
    assert words == [b"STATUS", encoded, [b"MESSAGES", b"5"]]


@given(octets)
def test_each_name_has_one_form(encoded: bytes) -> None:
    with contextlib.suppress(Refused):
        name = decode_mailbox(encoded)
        assert encode_mailbox(name) == encoded or name == "INBOX"


@given(st.text() | names, st.sampled_from([b"", b"ALERT"]))
def test_texts_of_status_responses(text: str, code: bytes) -> None:
    said = status(b"a", b"NO", text, code)
    assert said.startswith(b"a NO [ALERT] " if code else b"a NO ")
    assert said.count(b"\r") == said.count(b"\n") == 1
    assert said.endswith(b"\r\n")
    assert said.isascii()
    assert code or not said.startswith(b"a NO [")


@given(st.lists(st.text(max_size=8) | st.sampled_from(["\\Seen", "$Junk", "a]", "a b"])))
def test_flags(flags: list[str]) -> None:
    words = read_response(b"* FLAGS (%b)\r\n" % write_flags(flags))
    assert words[0] == b"FLAGS"
    assert isinstance(words[1], list)
    assert all(isinstance(word, bytes) and word.decode() in flags for word in words[1] if word)


@given(st.dictionaries(st.text(max_size=10), st.none() | st.text(max_size=20), min_size=1))
def test_id(fields: dict[str, str | None]) -> None:
    pairs = [word for pair in fields.items() for word in pair]
    assert read_response(id_response(fields)) == [
        b"ID",
        [None if word is None else as_it_arrives(word.encode()) for word in pairs],
    ]


@given(octets, octets)
def test_sections(first: bytes, second: bytes) -> None:
    items = [item_section(b"BODY[TEXT]", first), item_section(b"BODY[2]<5>", second)]
    assert read_response(fetch_response(7, items)) == [
        b"7",
        b"FETCH",
        [b"BODY[TEXT]", as_it_arrives(first), b"BODY[2]<5>", as_it_arrives(second)],
    ]


@given(st.builds(Address, *[st.none() | octets] * 4), octets)
def test_envelopes(address: Address, subject: bytes) -> None:
    envelope = Envelope(subject=subject, from_=(address, address), message_id=subject)
    (words,) = read_responses(fetch_response(1, [item_envelope(envelope)]))
    found = words[2]
    assert isinstance(found, list)
    assert isinstance(found[1], list)
    assert len(found[1]) == 10
    assert found[1][1] == found[1][9] == as_it_arrives(subject)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))
def test_structures_of_any_message(message: bytes) -> None:
    part = parse(message)
    words = read_response(fetch_response(1, [item_body_structure(part)]))
    assert words[:2] == [b"1", b"FETCH"]


@given(numbers)
def test_sets(found: list[int]) -> None:
    written = write_set(found)
    if found:
        parsed = command(b"UID EXPUNGE " + written)
        assert isinstance(parsed, Expunge)
        assert parsed.uids is not None
        ranges = parsed.uids.ranges
        assert [number for first, last in ranges for number in range(first, last + 1)] == found
        assert read_response(vanished_response(found)) == [b"VANISHED", written]
    else:
        assert written == vanished_response(found) == b""


@given(ranges_of_sets, st.integers(0, 25))
def test_ranges_within_a_mailbox(ranges: list[tuple[int, int]], largest: int) -> None:
    """The same messages as one by one, each once and in order."""
    expected: set[int] = set()
    for ends in ranges:
        first, last = (largest if number == STAR else number for number in ends)
        expected |= set(range(min(first, last), max(first, last) + 1))
    found = [
        number
        for first, last in SequenceSet(tuple(ranges)).within(largest)
        for number in range(first, last + 1)
    ]
    assert found == sorted(number for number in expected if 1 <= number <= largest)


@given(ranges_of_sets, st.integers(0, 30))
def test_numbers_that_are_not_in_use(ranges: list[tuple[int, int]], count: int) -> None:
    """RFC 3501 9: seq-number. ``*`` is in use, unless there is no message."""
    named = [number for ends in ranges for number in ends if number != STAR]
    messages = SequenceSet(tuple(ranges))
    assert messages.exceeds(count) == (max(named, default=0) > count or count == 0)
    assert not SAVED.exceeds(count)
