"""What a message takes in memory while it comes in: never more than `HELD`, however large it is.

Rules of this file: the disk stands still, which is the worst case, until the server reads no more;
then what all its objects take is read. By DATA in lines, by BDAT in one chunk.
"""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path

import pytest
from support.smtp_harness import ENVELOPE, body_of, codes, read_all, read_until, serve
from support.waiting import until

from fastlisten.mail.delivery.message_writer import SPOOL_SIZE

#: docs/protocols.md. A read brings up to 256 KiB, so that what is being written and what waits for
#: that have up to 384 KiB each (`SPOOL_SIZE` and a read); what is written is joined before, and a
#: read may be in memory twice. How much a read brings depends on how fast the client is.
HELD = 2 * 1024 * 1024

LINE = b"0123456789abcdef" * 4 + b"\r\n"
MESSAGE = LINE * (16 * 1024 * 1024 // len(LINE))


@pytest.mark.parametrize("how", ["data", "bdat"])
def test_no_large_message_is_held_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    reached, opened, real = threading.Event(), threading.Event(), os.write

    def write(fd: int, data: bytes) -> int:
        reached.set()
        assert opened.wait(20)
        return real(fd, data)

    if how == "data":
        begin, prompt, end = b"DATA\r\n", b"<CR><LF>.<CR><LF>\r\n", b".\r\nQUIT\r\n"
    else:
        begin, prompt, end = b"BDAT %d LAST\r\n" % len(MESSAGE), b"2.1.5 Ok\r\n", b"QUIT\r\n"
    with serve(tmp_path) as served, served.connect() as client:
        client.sendall(ENVELOPE + begin)
        said = read_until(client, prompt)
        protocol = served.protocol()
        monkeypatch.setattr(os, "write", write)
        whole = MESSAGE + end
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            sender = threading.Thread(target=client.sendall, args=(whole,))
            sender.start()
            assert reached.wait(20)
            until(lambda: not protocol._reading)
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
            opened.set()
        said += read_all(client)
        sender.join()
        assert codes(said)[-2:] == [250, 221]
        assert [body_of(stored) == MESSAGE for stored in served.delivered()] == [True]
    assert len(MESSAGE) > 7 * HELD
    assert SPOOL_SIZE < peak < HELD
