"""Messages for the tests of MIME: made of lines at random, whole trees, and CPython's own.

Rules of this file: octets and strategies of octets. The lines are few and chosen to be mistaken for
each other: boundaries that begin like others, delimiters in headers, line ends of all kinds.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from hypothesis import strategies as st

__all__ = ["cpython_messages", "has_lf", "line_soups", "multipart", "served", "trees", "uniform"]

_BOUNDARIES = (b"a", b"ab", b"a--", b"=_b")

_LINES = (
    *(b"--" + boundary + end for boundary in _BOUNDARIES for end in (b"", b"--", b" ", b"x")),
    *(b'Content-Type: multipart/mixed; boundary="' + boundary + b'"' for boundary in _BOUNDARIES),
    b"Content-Type: multipart/digest; boundary=ab",
    b"Content-Type: message/rfc822",
    b"Content-Type: text/html; charset=utf-8",
    b"content-type : image/png;",
    b"\tname=x.png",
    b"Content-Transfer-Encoding: base64",
    b"Content-Disposition: attachment; filename=x",
    b"Subject: x",
    b"To: a@example.org",
    b"no field",
    b"--",
    b"-- ",
    b" (folded)",
    b"",
    b"",
    b"",
    b"\r",
    b"a\rb",
    b"\xff\0",
)

#: LF and CRLF, and mixtures in which one is rare.
_ENDS = st.sampled_from((b"\n", b"\r\n")).map(lambda end: st.just(end)) | st.just(
    st.sampled_from((b"\r\n", b"\n", b"\r\n"))
)

#: Messages that are lines in any order; the last may have no line end.
line_soups = st.builds(
    lambda lines, last: b"".join(line + end for line, end in lines) + last,
    _ENDS.flatmap(
        lambda ends: st.lists(st.tuples(st.sampled_from(_LINES), ends), min_size=1, max_size=30)
    ),
    st.sampled_from((b"", b"", b"end", b"--a", b"--a--")),
)


def multipart(
    boundary: bytes, *parts: bytes, kind: bytes = b"mixed", end: bytes = b"\r\n"
) -> bytes:
    """Return a multipart with its header; the parts come with their headers."""
    lines = [b'Content-Type: multipart/%s; boundary="%s"' % (kind, boundary), b""]
    for part in parts:
        lines += [b"--" + boundary, part]
    return end.join((*lines, b"--" + boundary + b"--", b""))


def _nested(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return entities that contain others."""
    return st.builds(
        lambda boundary, parts, kind: multipart(boundary, *parts, kind=kind),
        st.sampled_from((*_BOUNDARIES, b"c", b"dd", b"eee")),
        st.lists(children, max_size=4),
        st.sampled_from((b"mixed", b"alternative", b"digest")),
    ) | children.map(lambda inner: b"Content-Type: message/rfc822\r\n\r\n" + inner)


#: Messages that are well formed, but for boundaries that are used twice.
trees = st.recursive(
    st.sampled_from(
        (
            b"\r\ntext",
            b"Content-Type: text/html\r\n\r\n<p>text\r\n",
            b"Subject: inner\r\nFrom: A <a@example.org>\r\n\r\ntext\r\n\r\n",
            b"Content-Type: image/png; name=x\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n",
            b"Content-ID: <1@example.org>\r\n\r\n",
        )
    ),
    _nested,
    max_leaves=12,
) | st.just(b"")


def cpython_messages() -> dict[str, bytes]:
    """Return the messages of CPython's tests of its email package, by name; empty without them."""
    spec = find_spec("test")
    places = [] if spec is None else spec.submodule_search_locations or []
    return {
        path.name: path.read_bytes()
        for place in places
        for path in sorted(Path(os.fspath(place), "test_email", "data").glob("*.txt"))
    }


def has_lf(data: bytes) -> bool:
    """Whether the lines of a message end with LF: the first one does."""
    return re.match(rb"[^\n]*(?<!\r)\n", data) is not None


def served(data: bytes, lf: bool) -> bytes:
    """Return octets of a message as clients see them; `lf` is `has_lf` of the whole message."""
    return re.sub(rb"(?<!\r)\n", b"\r\n", data) if lf else data


def uniform(data: bytes) -> bytes:
    """Return a message that Dovecot serves as we do: it adds a CR to an LF among CRLFs too.

    We leave such messages as they are, as the store does: otherwise a signature of theirs broke.
    """
    return data if has_lf(data) else served(data, lf=True)
