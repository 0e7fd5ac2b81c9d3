"""The numbers of the RFCs, as numbers: how long lines and values may be."""

from __future__ import annotations

import pytest
from support.engine_driver import EngineDriver


def replies(line: bytes, **options: object) -> bytes:
    """Return the reply to a line after EHLO."""
    driver = EngineDriver(True, **options)
    driver.engine.receive(b"EHLO c\r\n")
    driver.engine.next_event()
    driver.engine.replies()
    driver.engine.receive(line)
    if driver.engine.next_event() is not None:
        driver.engine.accept()
    return bytes(driver.engine.replies())


@pytest.mark.parametrize(
    ("longest", "verb"),
    [
        (512, b"NOOP "),  # RFC 5321 4.5.3.1.4
        (2048, b"MAIL FROM:<> X="),
        (12_288, b"AUTH PLAIN "),  # RFC 4954 4
    ],
)
def test_command_lines(longest: int, verb: bytes) -> None:
    line = verb + b"x" * (longest - len(verb) - 2) + b"\r\n"
    assert len(line) == longest
    assert not replies(line, mechanisms=("PLAIN",)).startswith(b"500")
    assert replies(line.replace(b"x", b"xx", 1), mechanisms=("PLAIN",)).startswith(b"500 5.5.")


@pytest.mark.parametrize(("keyword", "most"), [(b"ENVID", 100), (b"AUTH", 494)])  # RFC 3461, 4954
def test_values_of_mail(keyword: bytes, most: int) -> None:
    value = b"x" * most if keyword == b"ENVID" else b"x" * 64 + b"@" + b"a." * 200
    value = value[:most].rstrip(b".")
    line = b"MAIL FROM:<> %b=%b\r\n"
    if keyword == b"ENVID":
        assert replies(line % (keyword, value)).startswith(b"250 ")
    assert replies(line % (keyword, b"x" * (most + 1)), mechanisms=("PLAIN",)).startswith(b"501 ")
