"""The lines of a session in the log: they share an id, and the last one is a summary.

Rules of this file: as in test_smtp_reject_log.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.logged import events
from support.smtp_harness import ENVELOPE, HELLO, MAIL, RCPT, Served, read_until, serve
from support.waiting import until

from fastlisten import testing
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.log_throttle import MAX_RECORDS


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastlisten")


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as served:
        yield served


def test_session_id_links_the_lines(plain: Served, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        plain.say(ENVELOPE + b"RCPT TO:<x@example.org>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n")
    names = ("rejected", "message-delivered", "session-ended")
    of_each = [[one["session"] for one in events(caplog, name)] for name in names]
    assert of_each[0] == of_each[1] == of_each[2]
    first, second = of_each[0]
    assert first != second
    for delivered, stored in zip(
        events(caplog, "message-delivered"), plain.delivered(), strict=True
    ):
        # The message's id is also in the reply and in the Received field.
        message = delivered["message"].split(": ")[1].split(" ")[0]
        assert f" id {message}".encode() in stored


def test_session_summary(plain: Served, caplog: pytest.LogCaptureFixture) -> None:
    said = ENVELOPE + b"NOPE\r\nDATA\r\nx\r\n.\r\n" + MAIL + RCPT + b"DATA\r\ny\r\n.\r\nQUIT\r\n"
    heard = plain.say(said)
    (end,) = events(caplog, "session-ended")
    assert (end["reason"], end["messages"], end["rejected"]) == ("quit", 2, 1)
    assert (end["bytes_received"], end["bytes_sent"]) == (
        len(said),
        len(heard),
    )
    assert end["helo"] == "client.example.com"
    assert end["duration"] >= 0
    assert plain.handler.counts.octets > 0
    assert plain.handler.counts.ends == {"quit": 1}


def test_reasons_for_ends_by_the_client(plain: Served, caplog: pytest.LogCaptureFixture) -> None:
    plain.say(HELLO)
    client = plain.connect()
    client.sendall(HELLO)
    read_until(client, b"250 HELP\r\n")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    until(lambda: len(events(caplog, "session-ended")) == 2, "the reset")
    plain.say(b"POST / HTTP/1.1\r\n")
    until(lambda: len(events(caplog, "session-ended")) == 3, "the end")
    reasons = [one["reason"] for one in events(caplog, "session-ended")]
    assert reasons == ["client-closed", "reset", "rejected"]


def test_reasons_for_ends_by_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By timeout and by shutdown."""

    async def main(idle: float) -> bytes:
        async with testing.serve(
            SmtpHandler, data_directory=str(tmp_path), idle_timeout=idle
        ) as at:
            reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
            writer.write(HELLO)
            await reader.readuntil(b"250 HELP\r\n")
            said = await reader.read() if idle else b""
        said += await reader.read()
        writer.close()
        return said

    assert asyncio.run(main(0.1)).startswith(b"421 4.4.2 ")
    assert asyncio.run(main(0.0)).startswith(b"421 4.3.2 ")
    assert [one["reason"] for one in events(caplog, "session-ended")] == ["timeout", "shutdown"]


def test_summaries_of_idle_sessions_are_throttled(
    plain: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(MAX_RECORDS + 20):
        plain.say(b"QUIT\r\n")
    plain.say(ENVELOPE + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
    until(lambda: plain.handler.counts.ends.get("quit") == MAX_RECORDS + 21, "all ends")
    plain.call(plain.handler.session_log.close)
    ended = events(caplog, "session-ended")
    told = sum(one["count"] for one in events(caplog, "sessions-omitted"))
    assert len(ended) + told == MAX_RECORDS + 21
    assert ended[-1]["messages"] == 1


def test_tls_version_of_implicit_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(tmp_path, tls="implicit") as served, served.connect() as client:
        assert isinstance(client, ssl.SSLSocket)
        client.sendall(b"X\r\nQUIT\r\n")
        read_until(client, b"Goodbye\r\n")
    (record,) = events(caplog, "rejected")
    assert record["tls"] == "TLSv1.3"
    assert record["message"].endswith(" proto=SMTP helo=<> tls=TLSv1.3")
