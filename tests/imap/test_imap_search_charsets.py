"""SEARCH in every charset that Python knows, and keys within keys (RFC 3501 6.4.4).

Rules of this file: what a tree of keys finds is what its leaves find, put together by the sets of
Python. Substrings are compared as RFC 5051 says, so that case and accents' forms do not matter.
"""

from __future__ import annotations

import base64
import codecs
import random
from encodings.aliases import aliases

import pytest
from support import imap_fixtures
from support.imap_expect import expect, new_mailbox
from support.imap_server import MESSAGE, Lines

from fastlisten.mail.mime.charsets import codec_of

server, client, box, other = imap_fixtures.EVERY

#: Words of several scripts; each charset takes the first that it has.
WORDS = ("Жизнь", "日本語", "한국어", "Ελλάδα", "שלום", "مرحبا", "Ąžuolas", "Ürün", "Ærø", "plain")

# --- charsets -------------------------------------------------------------------------------------


def encoded(word: str, charset: str) -> bytes | None:
    """Return a word in a charset, if it has it, and a literal can have that (no NUL)."""
    try:
        octets = word.encode(charset)
        same = octets.decode(charset) == word
    except ValueError:
        return None
    return octets if same and b"\0" not in octets else None


def samples() -> list[tuple[str, bytes]]:
    """Return charsets, each with a text that no other has."""
    found: list[tuple[str, bytes]] = []
    for charset in sorted(set(aliases.values())):
        if codec_of(charset.encode()) is None or not codecs.lookup(charset)._is_text_encoding:
            continue
        for word in WORDS:
            octets = encoded(f"{word} k{len(found):03}", charset)
            if octets is not None:
                found.append((charset, octets))
                break
    return found


def test_every_charset(client: Lines) -> None:
    charsets = samples()
    assert len(charsets) > 80
    messages = [
        b"Subject: =?%b?b?%b?=\r\nContent-Type: text/plain; charset=%b\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n%b"
        % (name.encode(), base64.b64encode(octets), name.encode(), base64.encodebytes(octets))
        for name, octets in charsets
    ]
    client.ok("SELECT " + new_mailbox(client, *messages))
    for number, (name, octets) in enumerate(charsets, 1):
        literal = b"{%d+}\r\n%b" % (len(octets), octets)
        key = (b"SUBJECT", b"BODY", b"TEXT")[number % 3]
        command = b"SEARCH CHARSET %b %b %b" % (name.encode(), key, literal)
        assert client.ok(command) == [b"* SEARCH %d" % number], (name, key)


@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        ("Straße", "STRASSE", False),  # RFC 5051: titlecase, not the full folding
        ("STRASSE", "straße", False),
        ("Ärger", "ärger", True),
        ("A\u0308rger", "ärger", True),
        ("ΟΔΟΣ", "οδος", True),
        ("İstanbul", "istanbul", False),
        ("ﬁne", "fine", True),
        ("ǅ", "ǆ", True),
        ("Ａ", "a", True),
        ("a  b", "a b", False),
        ("naïve", "naive", False),
    ],
)  # fmt: skip
def test_what_is_the_same(client: Lines, text: str, key: str, found: bool) -> None:
    body = f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n".encode()
    client.ok("SELECT " + new_mailbox(client, body))
    octets = key.encode()
    answer = client.ok(b"SEARCH CHARSET UTF-8 BODY {%d+}\r\n%b" % (len(octets), octets))
    assert answer == [b"* SEARCH 1" if found else b"* SEARCH"]


def test_octets_that_are_no_text(client: Lines, box: str) -> None:
    expect(client, b"SEARCH CHARSET UTF-8 BODY {2+}\r\n\xff\xfe", "BAD ...")
    expect(client, b"SEARCH CHARSET US-ASCII BODY {1+}\r\n\xff", "BAD ...")
    for charset in ("base64", "idna", "rot13", "unicode_escape", "zip", "x" * 500):
        expect(client, f"SEARCH CHARSET {charset} BODY x", "NO [BADCHARSET ...] ...")


# --- keys within keys -----------------------------------------------------------------------------

LEAVES = (
    "SEEN", "FLAGGED", "DELETED", "KEYWORD odd", "1:20", "UID 10:30", "LARGER 200", "SUBJECT two",
    "SINCE 2-Jan-2026", "$", "OLDER 86400", "ALL", "FROM bob", "BODY body", "NEW", "MODSEQ 1",
)  # fmt: skip


def tree(rng: random.Random, leaves: dict[str, set[int]], depth: int) -> tuple[str, set[int]]:
    """Return keys and what they must find."""
    kind = rng.choice(("leaf", "not", "or", "and", "list") if depth else ("leaf",))
    if kind == "leaf":
        return rng.choice(list(leaves.items()))
    first, found = tree(rng, leaves, depth - 1)
    if kind == "not":
        return f"NOT ({first})", set(range(1, 41)) - found
    second, more = tree(rng, leaves, depth - 1)
    if kind == "or":
        return f"OR ({first}) ({second})", found | more
    if kind == "and":
        return f"{first} {second}", found & more
    return f"({first} {second})", found & more


def search(client: Lines, keys: str) -> set[int]:
    answer = client.ok(f"SEARCH {keys}")[-1]
    return {int(one) for one in answer.partition(b" (MODSEQ")[0].split()[2:]}


def test_trees(client: Lines) -> None:
    messages = [MESSAGE, MESSAGE.replace(b"Hello", b"two" + b"x" * 99), b"Subject: two\r\n\r\n"]
    client.ok("SELECT " + new_mailbox(client, *(messages * 14)[:40]))
    client.ok("STORE 1:13 +FLAGS.SILENT (\\Seen)")
    client.ok("STORE 7:25 +FLAGS.SILENT (\\Flagged odd)")
    client.ok("STORE 11,17,39 +FLAGS.SILENT (\\Deleted)")
    client.ok("SEARCH RETURN (SAVE) 5,15,25:35")
    leaves = {leaf: search(client, leaf) for leaf in LEAVES}
    assert len({frozenset(found) for found in leaves.values()}) > 10
    rng = random.Random(1)
    for _ in range(150):
        keys, found = tree(rng, leaves, 5)
        assert search(client, keys) == found, keys


def test_bounds_of_nesting(client: Lines, box: str) -> None:
    for begin, end in (("NOT ", ""), ("(", ")"), ("OR 1 ", ""), ("NOT (", ")")):
        for depth in (20, 60):
            if begin != "NOT (" or depth == 20:  # which counts twice
                client.ok(f"SEARCH {begin * depth}1{end * depth}")
        for depth in (70, 5000):
            expect(client, f"SEARCH {begin * depth}1{end * depth}", "BAD ...")
    keys = " ".join(["NOT 9", "OR 1 2"] * 3000)  # many, not deep
    expect(client, f"SEARCH {keys}", "* SEARCH 1 2", "OK ...")
