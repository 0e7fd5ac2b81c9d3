"""Mailbox addresses: the grammar of RFC 5321 and RFC 6531, and equivalent addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlisten.mail.address import MAX_PATH, AddressError, domain_key, parse_mailbox


@pytest.mark.parametrize(
    ("text", "local", "domain", "canonical"),
    [
        ("a@b", "a", "b", "a@b"),
        ("Al.Ice@Example.ORG", "Al.Ice", "example.org", "Al.Ice@example.org"),
        ("!#$%&'*+-/=?^_`{|}~@b", "!#$%&'*+-/=?^_`{|}~", "b", "!#$%&'*+-/=?^_`{|}~@b"),
        ('"a b"@c', "a b", "c", '"a b"@c'),
        ('"plain"@c', "plain", "c", "plain@c"),
        ('"a\\"b\\\\c"@d', 'a"b\\c', "d", '"a\\"b\\\\c"@d'),
        ('""@c', "", "c", '""@c'),
        ('"a..b"@c', "a..b", "c", '"a..b"@c'),
        ("a@[192.0.2.1]", "a", "[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@[ipv6:2001:DB8:0:0::1]", "a", "[ipv6:2001:db8::1]", "a@[ipv6:2001:db8::1]"),
        ("jürgen@BÜCHER.example", "jürgen", "bücher.example", "jürgen@bücher.example"),
        ("a@xn--bcher-kva.example", "a", "bücher.example", "a@bücher.example"),
        ("u\u0308@b", "ü", "b", "ü@b"),
        ("क्\u200dष\u200c@b", "क्\u200dष\u200c", "b", "क्\u200dष\u200c@b"),
        ("पता@हिन्दी.भारत", "पता", "हिन्दी.भारत", "पता@हिन्दी.भारत"),
        ("a@" + ".".join(["x" * 63] * 3), "a", ".".join(["x" * 63] * 3), None),
    ],
)
def test_valid_address(text: str, local: str, domain: str, canonical: str | None) -> None:
    mailbox = parse_mailbox(text)
    assert (mailbox.local, mailbox.domain) == (local, domain)
    assert str(mailbox) == text
    assert mailbox.canonical == (canonical or text)
    again = parse_mailbox(mailbox.canonical)
    assert (again.local, again.domain) == (local, domain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "@b",
        "a@",
        "a@b@c",
        ".a@b",
        "a.@b",
        "a..b@c",
        "a b@c",
        "a@b c",
        "a@-b",
        "a@b-",
        "a@b..c",
        "a@b.",
        "a@.b",
        "a@b_c",
        "<a@b>",
        "a(c)@b",
        '"a@b',
        'a"b@c',
        '"a"b"@c',
        '"a\tb"@c',
        '"a\r\nb"@c',
        "a\r\n@b",
        "a@b\n",
        "a\0@b",
        "a@[192.0.2]",
        "a@[192.0.2.256]",
        "a@[2001:db8::1]",
        "a@[ipv6:2001:db8::1%eth0]",
        "a@[]",
        "a@" + "x" * 64,
        "a@xn--.b",
        "a@xn--99999999.b",
        "a\u0085b@c",
        "a\u00a0b@c",
        "a\u2028b@c",
        "a@b\u3002c",
        "a\ud800@b",
        *(f"a{character}b@c" for character in "\u00ad\u200e\u202e\u2066\u2069\ufeff\U000e0041"),
        "a@b\u202ec",
        "x" * (MAX_PATH - 3) + "@y",
        "a@" + ".".join(["x" * 63] * 4),
        "a@" + "ü" * 130,
    ],
)
def test_invalid_address(text: str) -> None:
    with pytest.raises(AddressError):
        parse_mailbox(text)


def test_longest_address() -> None:
    assert parse_mailbox("x" * (MAX_PATH - 5) + "@yz").domain == "yz"


@given(st.text(max_size=60) | st.from_regex(r"[a-z\".\\@\[\]: é]{1,40}", fullmatch=True))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    try:
        mailbox = parse_mailbox(text)
    except AddressError:
        return
    assert "\r" not in text
    assert "\n" not in text
    assert domain_key(mailbox.domain) == mailbox.domain
    again = parse_mailbox(mailbox.canonical)
    assert (again.local, again.domain) == (mailbox.local, mailbox.domain)
