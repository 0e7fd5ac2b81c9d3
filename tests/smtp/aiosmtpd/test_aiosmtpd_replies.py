"""The status returned by a hook becomes exactly one reply, whatever it contains."""

from __future__ import annotations

from typing import Any

import pytest

from fastlisten.handlers.smtp.aiosmtpd.hook_replies import error_reply, reply_of
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        ("250 OK", b"250 OK\r\n"),
        ("250", b"250\r\n"),
        (b"451 later", b"451 later\r\n"),
        ("550 sch\u00f6n", "550 sch\u00f6n\r\n".encode()),
        ("250-one\r\n250 two", b"250-one\r\n250 two\r\n"),
        ("250 one\ntwo\rthree\r\n", b"250-one\r\n250-two\r\n250 three\r\n"),
        ("250-one", b"250 one\r\n"),
        ("550 no\r\n250 OK\r\n", b"550-no\r\n550 250 OK\r\n"),
        ("550-a\n\n550-b", b"550-a\r\n550-\r\n550 b\r\n"),
    ],
)
def test_status_becomes_one_reply(status: str | bytes, reply: bytes) -> None:
    assert reply_of(status) == reply


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (None, TypeError),
        (250, TypeError),
        (MISSING, TypeError),
        ("", ValueError),
        ("OK", ValueError),
        ("25 OK", ValueError),
        ("2500 OK", ValueError),
        ("354 go on", ValueError),
        ("100 wait", ValueError),
        ("\r\n250 OK", ValueError),
    ],
)
def test_invalid_status(status: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        reply_of(status)


def test_non_ascii_reply_without_smtputf8() -> None:
    with pytest.raises(UnicodeEncodeError):
        reply_of("250 sch\u00f6n", utf8=False)
    assert error_reply(ValueError("sch\u00f6n"), utf8=False) == (
        b"500 Error: (ValueError) sch\\xf6n\r\n"
    )


def test_error_reply_is_one_short_line() -> None:
    class Undescribable(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    assert error_reply(ValueError("a\r\n250 OK\r\nb")) == b"500 Error: (ValueError) a 250 OK b\r\n"
    assert error_reply(KeyError()) == b"500 Error: (KeyError)\r\n"
    assert len(error_reply(ValueError("x" * 10_000))) < 512
    assert error_reply(Undescribable()) == (
        b"500 Error: (Undescribable) it cannot be described\r\n"
    )
