"""Content-Type and its kind: types, parameters, RFC 2231, languages, encodings.

Rules of this file: unfolded values, and what is read in them.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlisten.mail.mime import content_fields
from fastlisten.mail.mime.content_fields import content_type, disposition, languages, token


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"text/html", "text/html"),
        (b"Text/HTML; Charset=UTF-8", "text/html charset=UTF-8"),
        (b"text / html (c) ; (d) charset = utf-8 (e)", "text/html charset=utf-8"),
        (b"text/html;;charset=x;", "text/html charset=x"),
        (b'a/b; n="x; y=z"; m="\\"\\\\"', 'a/b n=x; y=z|m="\\'),
        (b'a/b; n="(no comment)"; m=""', "a/b n=(no comment)|m="),
        (b"image/svg+xml", "image/svg+xml"),
        # Not valid: text/plain (RFC 2045 5.2).
        (b"", "text/plain"),
        (b"html; charset=x", "text/plain"),
        (b'"text/html"', "text/plain"),
        (b"/html", "text/plain"),
        (b"text; charset=x", "text/plain charset=x"),
        # What programs write all the same.
        (b"a/b; boundary=----=_Part_1;n=a/b:c@d?[e]", "a/b boundary=----=_Part_1|n=a/b:c@d?[e]"),
        (b"a/b; n=x y; m=z", "a/b n=x|m=z"),
        (b"a/b; =x; n; m=; o=p", "a/b o=p"),
        (b'a/b; n="x; m=y', "a/b n=x; m=y"),
        (b"a/b; n=\xe4", "a/b n=\xe4"),
        (b"a/b junk; n=x", "a/b n=x"),
        (b"a/b; n=1; n=2", "a/b n=1|n=2"),
    ],
)
def test_content_type(value: bytes, expected: str) -> None:
    kind, subtype, parameters = content_type(value)
    pairs = b"|".join(name + b"=" + text for name, text in parameters)
    found = kind + b"/" + subtype + (b" " + pairs if pairs else b"")
    assert found.decode("latin-1") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"n*0=ab; n*1=\"c d\"", [(b"n", b"abc d")]),
        (b"n*1=b; m=x; n*0=a", [(b"n", b"ab"), (b"m", b"x")]),
        (b"n*=utf-8'de'%C3%A4", [(b"n*", b"utf-8'de'%C3%A4")]),
        (b"n*0*=utf-8''%C3; n*1*=%A4; n*2=\"%'\"", [(b"n*", b"utf-8''%C3%A4%25%27")]),
        (b"n*0=a; n*1*=%20", [(b"n*", b"''a%20")]),
        (b"n*0=a; n*2=c", [(b"n", b"a")]),
        (b"n*1=b; n*2=c", []),
        (b"n*0=a; n*0=b", [(b"n", b"a")]),
        (b"n*x=a", [(b"n*x", b"a")]),
        (b"n*00=a", [(b"n", b"a")]),
    ],
)  # fmt: skip
def test_pieces_of_parameters_are_joined(value: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    """RFC 2231 3 and 4; 6 wants it of IMAP servers."""
    assert content_type(b"a/b; " + value)[2] == tuple(expected)


def test_number_of_parameters_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_fields, "MAX_PARAMETERS", 2)
    assert content_type(b"a/b; c=1; d=2; e=3")[2] == ((b"c", b"1"), (b"d", b"2"))
    assert content_type(b"a/b; c; d; e=3")[2] == ()
    assert content_type(b"a/b;; ;c=1; ;;d=2")[2] == ((b"c", b"1"), (b"d", b"2"))
    assert languages(b"a, b, c") == (b"a", b"b")


def test_disposition() -> None:
    value = b'Attachment (c); FileName="x y.txt"; size=5'
    assert disposition(value) == (b"attachment", ((b"filename", b"x y.txt"), (b"size", b"5")))
    assert disposition(b'"attachment"; filename=x') == (None, ())
    assert disposition(b"") == (None, ())


def test_languages() -> None:
    assert languages(b"en, de-DE (German), x-klingon") == (b"en", b"de-DE", b"x-klingon")
    assert languages(b" ") == ()


def test_encoding() -> None:
    assert token(b"Base64 (comment)") == b"base64"
    assert token(b"(comment) 8bit") == b"8bit"
    assert token(b'"8bit"') == token(b"") == b""


@given(
    st.lists(
        st.tuples(
            st.text("abcdef-", min_size=1, max_size=5),
            st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")),
        ),
        max_size=5,
    )
)
def test_quoted_values_are_read_as_they_were(pairs: list[tuple[str, str]]) -> None:
    escaped = [(name, re.sub(r'(["\\])', r"\\\1", text)) for name, text in pairs]
    value = "; ".join(["a/b", *(f'{name}="{text}"' for name, text in escaped)])
    found = content_type(value.encode("latin-1"))[2]
    assert [(name.decode(), text.decode("latin-1")) for name, text in found] == pairs
