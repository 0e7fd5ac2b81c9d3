"""Counting Received fields: of the header only, and with little memory."""

from __future__ import annotations

import pytest

from fastlisten.handlers.smtp.received_count import ReceivedCount

HOP = b"Received: from a by b\r\n"


@pytest.mark.parametrize("header", [HOP + b"\r\n", b"Subject: x\r\n" + HOP + b"\r\n"])
def test_the_body_is_not_looked_at(header: bytes) -> None:
    received = ReceivedCount()
    received.add(header)
    assert received.over
    for piece in (HOP, b"text\r\n" + HOP, b"\r\n" + HOP, b"\r\n\r\n" + HOP * 2):
        received.add(piece)
    assert received.count == 1


def test_a_line_without_end_is_not_kept() -> None:
    received = ReceivedCount()
    for _ in range(100):
        received.add(b"x" * 10_000)
        assert len(received._rest) < 100
    received.add(b"\r\n" + HOP)
    assert received.count == 1
