"""Messages sent by BDAT (RFC 3030), from the socket to the Maildir."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import uvloop
from support import smtp_fixtures
from support.raw_client import reset
from support.smtp_harness import (
    DIALOGUE,
    DONE,
    ENVELOPE,
    HELLO,
    MAIL,
    RCPT,
    Served,
    body_of,
    codes,
    cut,
    exchange,
    read_until,
    serve,
)
from support.waiting import until

HEADER = b"Subject: x\r\nContent-Transfer-Encoding: binary\r\n\r\n"
BINARY = HELLO + b"MAIL FROM:<a@example.com> BODY=BINARYMIME\r\n" + RCPT


served = smtp_fixtures.on_all_transports


def chunks(data: bytes, size: int) -> bytes:
    """Return a message as BDAT commands with chunks of one size."""
    pieces = list(cut(data, size))
    return b"".join(
        b"BDAT %d%b\r\n%b" % (len(piece), b" LAST" if piece is pieces[-1] else b"", piece)
        for piece in pieces
    )


@pytest.mark.parametrize("size", [997, 65_536, 10_000_000])
def test_binary_message_is_stored_unchanged(served: Served, size: int) -> None:
    data = HEADER + random.Random(size).randbytes(300_000)
    said = served.say(BINARY + chunks(data, size) + b"QUIT\r\n")
    assert set(codes(said)) == {250, 221}
    assert len(codes(said)) == 3 + -(-len(data) // size) + 1
    (stored,) = served.delivered()
    assert body_of(stored) == data


def test_message_without_final_crlf_is_stored_unchanged(served: Served) -> None:
    served.say(ENVELOPE + chunks(HEADER + b"no end", 10) + b"QUIT\r\n")
    (stored,) = served.delivered()
    assert body_of(stored) == HEADER + b"no end"


def test_commands_within_a_message_are_stored(served: Served) -> None:
    data = HEADER + b".\r\n\r\n.\r\nQUIT\r\n" + ENVELOPE + b"DATA\r\n"
    said = served.say(ENVELOPE + chunks(data, 7) + b"QUIT\r\n")
    assert codes(said)[-1] == 221
    (stored,) = served.delivered()
    assert body_of(stored) == data


def test_refused_chunks_leave_no_files(served: Served) -> None:
    envelope = MAIL + RCPT
    said = served.say(
        HELLO,
        envelope + b"BDAT 5\r\na\r\nb\rBDAT 1 LAST\r\nx",
        envelope + b"BDAT 99999999999 LASTING\r\n",
    )
    assert codes(said) == [250, 250, 250, 250, 550, 250, 250]
    until(lambda: not served.protocols)
    until(lambda: served.left_over() == [])
    assert served.delivered() == []


@pytest.mark.parametrize("abrupt", [True, False])
def test_disconnect_within_a_chunk_leaves_no_files(served: Served, abrupt: bool) -> None:
    client = served.connect()
    client.sendall(ENVELOPE + chunks(HEADER, 1000).replace(b" LAST", b"") + b"BDAT 10 LAST\r\nxxx")
    read_until(client, b"250 2.1.5 Ok\r\n250 2.0.0 Ok\r\n")
    assert served.call(lambda: served.protocol().busy) is True
    if abrupt:
        reset(client)
    else:
        client.close()
    until(lambda: not served.protocols)
    until(lambda: served.left_over() == [])
    assert served.delivered() == []
    assert codes(served.say(DIALOGUE)) == DONE


def test_bdat_over_tls(tmp_path: Path) -> None:
    data = HEADER + os.urandom(200_000)
    with serve(tmp_path, loop_factory=uvloop.new_event_loop, tls="starttls") as served:
        with served.secured() as client:
            said = exchange(client, BINARY + chunks(data, 4096) + b"QUIT\r\n")
        assert set(codes(said)) == {250, 221}
        (stored,) = served.delivered()
        assert body_of(stored) == data
