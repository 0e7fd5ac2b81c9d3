"""Patterns of LIST and LSUB against names (RFC 3501 6.3.8), and the time that they take.

Rules of this file: the function alone; a regular expression says what is right.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlisten.handlers.imap.list_matching import matcher

NAMES = st.text("ab/", max_size=8)
PATTERNS = st.text("ab/*%", max_size=8)


@given(NAMES, PATTERNS)
def test_wildcards(name: str, pattern: str) -> None:
    words = {"*": ".*", "%": "[^/]*"}
    right = re.fullmatch("".join(words.get(each, each) for each in pattern), name)
    assert matcher((pattern,))(name) is (right is not None)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("inbox", "INBOX", True),
        ("iNb%", "INBOX", True),
        ("INBOX/x", "INBOX/x", True),
        ("inbox/*", "INBOX/x", True),
        ("inbox", "inbox2", False),
        ("work", "Work", False),
        ("a.b", "axb", False),
        ("(*", "(x", True),
        ("ä%", "äö", True),
        ("e\u0301*", "\xe9t", True),
        ("%%", "a/b", False),
        ("%*%", "a/b", True),
    ],
)
def test_names(pattern: str, name: str, matches: bool) -> None:
    assert matcher((pattern,))(name) is matches


def test_several_patterns() -> None:
    matches = matcher(("a%", "b"))
    assert [matches(name) for name in ("a", "ax", "b", "bx")] == [True, True, True, False]


def test_many_wildcards_take_no_time() -> None:
    """A regular expression would try more ways than there are atoms."""
    assert not matcher(("*a" * 500 + "b",))("a" * 1000)
