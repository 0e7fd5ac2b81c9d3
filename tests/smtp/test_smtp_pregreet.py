"""The pregreet delay: clients that talk before the greeting are refused."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.smtp_harness import DIALOGUE, DONE, HOSTNAME, SERVERS, codes, read_all, serve

from fastlisten import testing
from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.handlers.smtp.pregreet import PregreetDelay
from fastlisten.handlers.smtp.session_log import SessionLog
from fastlisten.mail.counts import Counts

GREETING = f"220 {HOSTNAME} ESMTP\r\n".encode()
REFUSAL = (
    f"554 5.5.0 {HOSTNAME} Protocol synchronization error: data sent before the greeting\r\n"
).encode()


@pytest.fixture(params=SERVERS)
def how(request: pytest.FixtureRequest) -> tuple[Callable[[], Any], bool]:
    return SERVERS[request.param]


def test_waiting_client_is_greeted(tmp_path: Path, how: tuple[Callable[[], Any], bool]) -> None:
    with (
        serve(tmp_path, None, how[0], how[1], greeting_delay=0.1) as served,
        served.connect() as client,
    ):
        client.settimeout(0.02)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(20)
        assert client.recv(4096) == GREETING
        client.sendall(b"NOOP\r\nQUIT\r\n")
        assert codes(read_all(client)) == [250, 221]


def test_early_talker_is_refused(
    tmp_path: Path, how: tuple[Callable[[], Any], bool], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastlisten.smtp")
    with (
        serve(tmp_path, None, how[0], how[1], greeting_delay=30.0) as served,
        served.connect() as client,
    ):
        client.sendall(b"EHLO me\r\n")
        assert read_all(client) == REFUSAL
    assert "NOQUEUE: reject: CONNECT from [127.0.0.1]:" in caplog.text
    assert served.handler.counts.rejections == {("5xx", "pregreet"): 1}
    assert served.handler.counts.ends == {"rejected": 1}
    records = {vars(one).get("event"): vars(one).get("fields") for one in caplog.records}
    refused, ended = records["rejected"], records["session-ended"]
    assert refused is not None
    assert ended is not None
    assert refused["session"] == ended["session"] != ""
    assert (ended["bytes_received"], ended["bytes_sent"], ended["rejected"]) == (9, len(REFUSAL), 1)


def test_delay_with_implicit_tls(tmp_path: Path) -> None:
    with serve(tmp_path, tls="implicit", greeting_delay=0.1) as served:
        with served.connect() as client:
            assert client.recv(4096) == GREETING
            client.sendall(DIALOGUE)
            assert codes(read_all(client)) == DONE
        assert len(served.delivered()) == 1
    with (
        serve(tmp_path, tls="implicit", greeting_delay=30.0) as served,
        served.connect() as client,
    ):
        client.sendall(b"EHLO me\r\n")
        assert read_all(client) == REFUSAL


def test_starttls_after_the_delay(tmp_path: Path) -> None:
    with serve(tmp_path, tls="starttls", greeting_delay=0.1) as served, served.connect() as client:
        assert client.recv(4096) == GREETING
        client.sendall(b"EHLO me\r\nSTARTTLS\r\n")
        said = b""
        while b"220 " not in said:
            said += client.recv(4096)
        with served.encrypt(client) as encrypted:
            encrypted.sendall(DIALOGUE)
            assert codes(read_all(encrypted)) == DONE


def test_disconnect_during_the_delay(tmp_path: Path) -> None:
    with serve(tmp_path, greeting_delay=0.2) as served:
        for _ in range(5):
            served.connect().close()
        with served.connect() as half:
            half.shutdown(socket.SHUT_WR)
            assert read_all(half) in (b"", GREETING)
        with served.connect() as client:
            assert client.recv(4096) == GREETING
            client.sendall(b"QUIT\r\n")
            assert codes(read_all(client)) == [221]


def test_stop_during_the_delay(tmp_path: Path) -> None:
    with serve(tmp_path, greeting_delay=60.0) as served:
        client = served.connect()
    with client:
        assert not read_all(client).startswith(b"220")


def test_without_delay_the_core_greets(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        assert served.handler.lazy
        assert served.handler.greeting == GREETING
        assert type(served.handler).lazy


def test_timeouts_start_with_the_greeting(tmp_path: Path) -> None:
    """Until then the client is the one that waits."""
    (tmp_path / "accounts.toml").write_text("")

    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            return read_all(client)

    async def main() -> bytes:
        async with testing.serve(
            SmtpHandler,
            first_byte_timeout=0.2,
            idle_timeout=0.2,
            data_directory=str(tmp_path),
            options={"greeting-delay": 1.5},
        ) as served:
            return await asyncio.to_thread(talk, served.port)

    said = asyncio.run(main())
    assert said.startswith(b"220 test.example ESMTP\r\n421 4.4.2 test.example Timeout")


def test_disconnect_cancels_the_timer() -> None:
    async def main() -> None:
        delay = PregreetDelay(
            ConnectionInfo("it", "192.0.2.1", 1),
            60.0,
            GREETING,
            REFUSAL,
            asyncio.Protocol,
            SessionLog("it", Counts()),
        )
        delay.connection_made(asyncio.Transport())
        timer = delay._timer
        assert timer is not None
        delay.connection_lost(None)
        assert timer._handle.cancelled()

    asyncio.run(main())
