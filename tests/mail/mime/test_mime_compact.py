"""The compact form of a structure: there and back, its size, what is damaged.

Rules of this file: structures come from parsed messages, so that every value that can be is there.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.mime_messages import cpython_messages, line_soups, multipart, trees

from fastlisten.mail.mime.compact import CompactError, pack, unpack
from fastlisten.mail.mime.limits import MAX_DEPTH
from fastlisten.mail.mime.parser import parse

FULL = b"""\
Date: Mon, 30 Nov 2026 14:00:00 +0000
From: \xe4 <@r:f@x>
Sender: s@x
Reply-To: r@x
To: g:;
Cc: c@x
Bcc: b@x
Subject:
In-Reply-To: <1@x>
Message-ID: <2@x>
Content-Type: message/rfc822; name="x y"
Content-Disposition: inline; filename=x
Content-Transfer-Encoding: 8bit
Content-ID: <3@x>
Content-Description:
Content-Language: en, de
Content-Location: y
Content-MD5: Q2h=

Subject: inner

text
"""


@given(line_soups | trees)
def test_there_and_back(data: bytes) -> None:
    part = parse(data)
    assert unpack(pack(part)) == part


def test_there_and_back_with_all_values() -> None:
    part = parse(FULL)
    assert unpack(pack(part)) == part


@pytest.mark.skipif(not cpython_messages(), reason="needs CPython's tests")
def test_there_and_back_with_messages_of_cpython() -> None:
    for name, data in cpython_messages().items():
        part = parse(data)
        assert unpack(pack(part)) == part, name


def test_simple_message_is_short() -> None:
    header = b"From: A <a@x>\r\nTo: b@x\r\nSubject: x\r\nMessage-ID: <1@x>\r\n\r\n"
    assert len(pack(parse(header + b"text\r\n"))) < 100


def test_deepest_structure() -> None:
    part = parse(b"Content-Type: message/rfc822\n\n" * (MAX_DEPTH + 2))
    assert unpack(pack(part)) == part


def changed(values: Any) -> Any:
    """Yield values with one of them replaced or removed, on all levels."""
    if isinstance(values, list):
        for index, value in enumerate(values):
            for other in changed(value):
                yield [*values[:index], other, *values[index + 1 :]]
            yield values[:index] + values[index + 1 :]
    yield from (-1, 1, "x", "\u20ac", None, [], {}, [1], [[]], True)


def test_damage_is_reported() -> None:
    values = json.loads(pack(parse(FULL)))
    refused = 0
    for damaged in changed(values):
        try:
            unpack(json.dumps(damaged).encode())
        except CompactError:
            refused += 1
    assert refused > 300


@pytest.mark.parametrize(
    "packed", [b"", b"[]", b"[1", b"\xff", b"[2,[0]]", b"[1,[]]x", b"[1," + b"[" * 5000]
)
def test_what_is_not_a_structure(packed: bytes) -> None:
    with pytest.raises(CompactError):
        unpack(packed)


@given(st.binary(max_size=20))
def test_cut_off_form_is_refused(end: bytes) -> None:
    packed = pack(parse(multipart(b"b", b"\r\ntext")))
    with pytest.raises(CompactError):
        unpack(packed[: -1 - len(end)])


def test_depth_is_bounded() -> None:
    values: list[Any] = []
    for _ in range(MAX_DEPTH + 2):
        values = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, [values]]
    with pytest.raises(CompactError):
        unpack(json.dumps([1, values]).encode())
