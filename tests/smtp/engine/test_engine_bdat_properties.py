"""Properties of BDAT in the SMTP engine, for any chunks, however the input is split."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_driver import EngineDriver, chunk, message
from support.smtp_harness import ENVELOPE, HELLO, MAIL, RCPT, codes, cut

BINARY = HELLO + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n" + RCPT
EVIL = b"\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<bob@example.org>\r\n"

TEXTS = st.lists(
    st.sampled_from([b"\r\n", b"x", b".", b"\r\n.\r\n", b"\0", b"\r", b"\n", b"long " * 50]),
    max_size=15,
).map(b"".join)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(edge for edge in cuts if edge < len(data))})
    return [data[a:b] for a, b in itertools.pairwise(edges)] or [b""]


@settings(max_examples=300)
@given(text=TEXTS, chunks=st.lists(st.integers(0, 500), max_size=6), size=st.integers(1, 40))
def test_bdat_and_data_accept_the_same_text(text: bytes, chunks: list[int], size: int) -> None:
    """A message accepted by DATA is accepted by BDAT, in any chunks, and likewise if refused."""
    text += b"\r\n"
    dotted = (b"\r\n" + text).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
    by_data, by_bdat = EngineDriver(), EngineDriver()
    by_data.feed(*cut(ENVELOPE + b"DATA\r\n" + dotted + b"NOOP\r\n", size))
    pieces = split(text, chunks)
    stream = message(pieces)
    by_bdat.feed(*cut(ENVELOPE + stream + b"NOOP\r\n", size))
    assert by_bdat.messages == by_data.messages
    refused = [code for code in codes(by_data.replies) if code >= 500]
    assert refused == [code for code in codes(by_bdat.replies) if code >= 500][:1]
    assert by_data.events[-1][0] == by_bdat.events[-1][0]
    assert by_data.engine.transaction is by_bdat.engine.transaction is None


@settings(max_examples=300)
@given(
    data=st.binary(max_size=300),
    chunks=st.lists(st.integers(0, 300), max_size=6),
    size=st.integers(1, 40),
)
def test_binarymime_is_unchanged(data: bytes, chunks: list[int], size: int) -> None:
    driver = EngineDriver()
    pieces = split(data, chunks)
    stream = message(pieces)
    driver.feed(*cut(BINARY + stream + b"QUIT\r\n", size))
    assert driver.messages == [data]
    assert codes(driver.replies) == [250] * (3 + len(pieces)) + [221]


@settings(max_examples=300)
@given(
    chunks=st.lists(st.tuples(TEXTS, st.booleans()), max_size=8),
    before=st.sampled_from([b"", HELLO, HELLO + MAIL, ENVELOPE, BINARY]),
    size=st.integers(1, 60),
)
def test_octets_of_chunks_are_never_commands(
    chunks: list[tuple[bytes, bool]], before: bytes, size: int
) -> None:
    """After any chunks, in order or not, the next line is read as a command."""
    driver = EngineDriver(max_errors=1000)
    for data, last in chunks:
        driver.feed(before if last else b"", *cut(chunk(data + EVIL, last), size))
    assert driver.engine.buffered == 0
    assert driver.feed(b"HELP\r\n").startswith(b"214")
    assert b"evil" not in b"".join(repr(e).encode() for e in driver.events if e[0] != "message")
