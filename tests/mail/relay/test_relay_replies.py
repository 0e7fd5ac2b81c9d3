"""Parsing a server's replies, in whatever segments they arrive."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlisten.mail.relay.remote_replies import (
    MalformedReplyError,
    RemoteReplies,
    RemoteReply,
    extensions_of,
)


def read(*pieces: bytes) -> list[RemoteReply | str]:
    """Return the replies in a stream, and the error that ends them if there is one."""
    replies, found = RemoteReplies(), list[RemoteReply | str]()
    for piece in pieces:
        replies.add(piece, early=False)
        try:
            while (reply := replies.take()) is not None:
                found.append(reply)
        except MalformedReplyError as error:
            return [*found, str(error).partition(",")[0]]
    return found


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"250 ok\r\n", [RemoteReply(250, ("ok",))]),
        (b"250\r\n", [RemoteReply(250, ("",))]),
        (b"250 \r\n", [RemoteReply(250, ("",))]),
        (b"250 ok\n", [RemoteReply(250, ("ok",))]),
        (b"250-a\r\n250-\r\n250 b\r\n", [RemoteReply(250, ("a", "", "b"))]),
        (b"250-a\r\n250\r\n", [RemoteReply(250, ("a", ""))]),
        (b"250 a\r\n550 b\r\n", [RemoteReply(250, ("a",)), RemoteReply(550, ("b",))]),
        (b"250 \xe4\r\n", [RemoteReply(250, ("\udce4",))]),
        (b"250 a", []),
        (b"250-a\r\n", []),
        (b"550-a\r\n250 b\r\n", ["malformed reply: it has two codes"]),
        (b"250-a\r\n550 b\r\n", ["malformed reply: it has two codes"]),
        (b"150 a\r\n", ["malformed reply: b'150 a'"]),
        (b"600 a\r\n", ["malformed reply: b'600 a'"]),
        (b"2500 a\r\n", ["malformed reply: b'2500 a'"]),
        (b"25 a\r\n", ["malformed reply: b'25 a'"]),
        (b"+25 a\r\n", ["malformed reply: b'+25 a'"]),
        ("２50 a\r\n".encode(), ["malformed reply: b'\\xef\\xbc\\x9250 a'"]),
        (b"250_a\r\n", ["malformed reply: b'250_a'"]),
        (b"\r\n", ["malformed reply: b''"]),
        (b"250 " + b"x" * 9000, ["the reply is too long"]),
        (b"250-x\r\n" * 256 + b"250 x\r\n", ["the reply is too long"]),
        (b"250-" + b"x" * 8000 + b"\r\n250-" + b"x" * 8000 + b"\r\n" + b"250-" + b"x" * 8000
         + b"\r\n250-" + b"x" * 8000 + b"\r\n250-" + b"x" * 8000, ["the reply is too long"]),
    ],
    ids=range(23),
)  # fmt: skip
def test_parse_replies(stream: bytes, expected: list[RemoteReply | str]) -> None:
    assert read(stream) == expected
    assert read(*(stream[index : index + 1] for index in range(len(stream)))) == expected


LINES = st.sampled_from(
    [b"250 a\r\n", b"250-a\r\n", b"550 b\r\n", b"354 c\n", b"\r\n", b"junk\r\n", b"220", b"-x\r\n"]
)


@given(st.lists(LINES, max_size=8).map(b"".join), st.lists(st.integers(0, 60), max_size=6))
def test_result_is_independent_of_segmentation(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[one:other] for one, other in itertools.pairwise(places)]
    assert read(*pieces) == read(stream)


def test_early_replies_are_marked() -> None:
    replies = RemoteReplies()
    replies.add(b"25", early=True)
    replies.add(b"0 a\r\n250 b\r\n", early=False)
    first, second = replies.take(), replies.take()
    assert first is not None
    assert second is not None
    assert (first.early, second.early) == (True, True)
    replies.add(b"250 c\r\n", early=False)
    third = replies.take()
    assert third is not None
    assert not third.early
    assert not replies


def test_parse_extensions() -> None:
    reply = RemoteReply(250, ("relay", "size 100", "AUTH=LOGIN", "auth PLAIN", "8bitmime", "X "))
    offered = {"SIZE": "100", "AUTH": "LOGIN PLAIN", "8BITMIME": "", "X": ""}
    assert extensions_of(reply) == offered
