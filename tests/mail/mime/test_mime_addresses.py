"""Address lists of ENVELOPE: RFC 5322 3.4, its obsolete forms, what no RFC allows.

Rules of this file: one value, and the addresses in it as (name, route, mailbox, host).
"""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlisten.mail.mime import addresses
from fastlisten.mail.mime.addresses import parse_addresses

END = (None, None, None, None)


def group(name: str) -> tuple[None, None, str, None]:
    return (None, None, name, None)


def at(name: str | None, address: str, route: str | None = None) -> tuple[str | None, ...]:
    mailbox, _, host = address.rpartition("@")
    return (name, route, mailbox, host)


def parsed(value: bytes) -> list[tuple[str | None, ...]]:
    return [
        tuple(None if part is None else part.decode("latin-1") for part in address)
        for address in parse_addresses(value)
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", []),
        (b"a@b", [at(None, "a@b")]),
        (b"<a@b>", [at(None, "a@b")]),
        (b"A B <a@b>", [at("A B", "a@b")]),
        (b'"A, B" <a@b>,c@d', [at("A, B", "a@b"), at(None, "c@d")]),
        (b'"A \\"B\\"" <a@b>', [at('A "B"', "a@b")]),
        (b'"" <a@b>', [at(None, "a@b")]),
        (b'"A" B. "C" <a@b>', [at("A B. C", "a@b")]),
        (b"J. R. D <a@b>", [at("J. R. D", "a@b")]),
        (b"A \t  B <a@b>", [at("A B", "a@b")]),
        (b"=?utf-8?q?=C3=A4?= <a@b>", [at("=?utf-8?q?=C3=A4?=", "a@b")]),
        (b"\xe4 <\xe4@\xe4>", [at("\xe4", "\xe4@\xe4")]),
        (b"a@[192.0.2.1]", [at(None, "a@[192.0.2.1]")]),
        (b'"a b"@c', [at(None, "a b@c")]),
        (b'<"a@b"@c>', [at(None, "a@b@c")]),
        # Comments: one after a bare address is its name, as RFC 822 had it.
        (b"a@b (A B)", [at("A B", "a@b")]),
        (b"a@b (A (B) \\))", [at("A (B) )", "a@b")]),
        (b"(c) A (d) <(e)a(f)@(g)b(h)> (i)", [at("A", "a@b")]),
        (b"A <a@b> (B)", [at("A", "a@b")]),
        (b"(only a comment)", []),
        # Groups (RFC 3501 7.4.2 marks both ends).
        (b"g:;", [group("g"), END]),
        (b"g h: a@b, C <c@d>;", [group("g h"), at(None, "a@b"), at("C", "c@d"), END]),
        (b"g: a@b; , e@f", [group("g"), at(None, "a@b"), END, at(None, "e@f")]),
        (b'"g" (c): a@b (d); (e)', [group("g"), at("d", "a@b"), END]),
        (b"g: a@b", [group("g"), at(None, "a@b"), END]),
        # RFC 5322 4.4: routes, empty elements, space around dots.
        (b"<@x,@y:a@b>", [at(None, "a@b", "@x,@y")]),
        (b"A <@x.y : a@b>", [at("A", "a@b", "@x.y")]),
        (b",a@b, ,c@d,", [at(None, "a@b"), at(None, "c@d")]),
        (b"a . b @ c . d", [at(None, "a.b@c.d")]),
        (b'"a" . b@c', [at(None, "a.b@c")]),
    ],
)  # fmt: skip
def test_addresses(value: bytes, expected: list[tuple[str | None, ...]]) -> None:
    assert parsed(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a", [at(None, "a@MISSING_DOMAIN")]),
        (b"A <a>", [at("A", "a@MISSING_DOMAIN")]),
        (b"A <>", [at("A", "MISSING_MAILBOX@MISSING_DOMAIN")]),
        (b"A B", [at("A B", "MISSING_MAILBOX@MISSING_DOMAIN")]),
        (b"@b", [at(None, "MISSING_MAILBOX@b")]),
        (b"<@b>", [at(None, "MISSING_MAILBOX@b")]),
        (b"a@", [at(None, "a@MISSING_DOMAIN")]),
        (b"A <a@b", [at("A", "a@b")]),
        (b"A <a@b, c@d", [at("A", "a@b"), at(None, "c@d")]),
        (b"g: A <a@b; c@d", [group("g"), at("A", "a@b"), END, at(None, "c@d")]),
        (b"<a@b>> x <e@f>, c@d", [at(None, "a@b"), at(None, "c@d")]),
        (b"a@b c@d, e@f", [at(None, "a@b"), at(None, "e@f")]),
        (b"a@b@c", [at(None, "a@b")]),
        (b"A a@b", [at("A", "a@b")]),
        (b"a@b; c@d", [at(None, "a@b"), at(None, "c@d")]),
        (b'"A <a@b>, c@d', [at(None, "A <a@b>, c@d@MISSING_DOMAIN")]),
        (b"a@b (A", [at("A", "a@b")]),
        (b"a..b.@c", [at(None, "a..b.@c")]),
        (b"A [x] <a@b>", [at("A [x]", "a@b")]),
        (b"g: h: a@b;, c@d", [group("g"), at("h", "a@b"), END, at(None, "c@d")]),
        (b"\\<\\>\\@", [at(None, "MISSING_MAILBOX@MISSING_DOMAIN")]),
    ],
)  # fmt: skip
def test_what_no_rfc_allows(value: bytes, expected: list[tuple[str | None, ...]]) -> None:
    assert parsed(value) == expected


def test_number_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_ADDRESSES", 3)
    assert parsed(b"g:" + b"a@b," * 9) == [group("g"), at(None, "a@b"), at(None, "a@b"), END]


@given(st.text('ab.@<>,:;"\\()[] \t\xe4\0', max_size=40))
def test_groups_are_balanced_and_addresses_complete(text: str) -> None:
    inside = False
    for name, route, mailbox, host in parse_addresses(text.encode("latin-1")):
        if host is None:
            assert name is None
            assert route is None
            assert (mailbox is None) is inside
            inside = not inside
        else:
            assert mailbox
            assert host
    assert not inside


_ATOMS = st.text("abcXYZ019!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=8)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
            .map(lambda name: " ".join(name.split())),
            _ATOMS,
            _ATOMS,
        ),
        max_size=8,
    )
)  # fmt: skip
def test_what_python_writes_is_read_back(entries: list[tuple[str, str, str]]) -> None:
    value = ", ".join(email.utils.formataddr((name, f"{a}@{b}")) for name, a, b in entries)
    assert parsed(value.encode()) == [at(name or None, f"{a}@{b}") for name, a, b in entries]
