"""aiosmtpd's own handlers, unchanged, on our engine."""

from __future__ import annotations

import asyncio
import io
import mailbox
import smtplib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from support.aiosmtpd import ENVELOPE, Recorder, serving
from support.foreign import foreign
from support.smtp_client import MESSAGE, connected

from fastlisten.handlers import smtp

handlers, pytestmark = foreign("aiosmtpd.handlers")


def send(port: int, message: bytes = MESSAGE) -> int:
    """Send a message; return the code of the last reply."""
    with connected(port) as client:
        assert client.codes(*ENVELOPE) == [250, 250, 250]
        return client.data(message)[0]


def test_debugging_handler() -> None:
    stream = io.StringIO()
    with serving(handlers.Debugging(stream)) as controller, connected(controller.port) as client:
        client.codes(ENVELOPE[0], ENVELOPE[1] + " SIZE=20", ENVELOPE[2])
        client.data()
        peer = client.sock.getsockname()
    assert stream.getvalue().splitlines() == [
        "---------- MESSAGE FOLLOWS ----------",
        "mail options: ['SIZE=20']",
        "",
        "Subject: x",
        f"X-Peer: {peer!r}",
        "",
        ".dot",
        "------------ END MESSAGE ------------",
    ]


def test_sink_handler() -> None:
    with serving(handlers.Sink()) as controller:
        assert send(controller.port) == 250


@pytest.mark.parametrize("decode_data", [False, True])
@pytest.mark.parametrize("suspends", [False, True])
def test_message_handlers(suspends: bool, decode_data: bool) -> None:
    taken: list[Message] = []

    def handler() -> Any:
        if not suspends:

            class Sync(handlers.Message):  # type: ignore[misc, name-defined]
                def handle_message(self, message: Message) -> None:
                    taken.append(message)

            return Sync()

        class Async(handlers.AsyncMessage):  # type: ignore[misc, name-defined]
            async def handle_message(self, message: Message) -> None:
                await asyncio.sleep(0.001)
                taken.append(message)

        return Async(loop=asyncio.AbstractEventLoop())  # type: ignore[abstract]

    with serving(handler(), decode_data=decode_data) as controller:
        assert send(controller.port) == 250
    (message,) = taken
    assert message["Subject"] == "x"
    assert message["X-MailFrom"] == "a@example.com"
    assert message["X-RcptTo"] == "b@example.org"
    assert message["X-Peer"].startswith("('127.0.0.1', ")
    payload = message.get_payload()
    assert isinstance(payload, str)
    assert payload.splitlines() == [".dot"]


def test_mailbox_handler_with_parallel_clients(tmp_path: Path) -> None:
    with serving(handlers.Mailbox(tmp_path / "mail")) as controller:
        messages = [b"Subject: %d\r\n\r\nx\r\n" % number for number in range(24)]
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda message: send(controller.port, message), messages))
    assert found == {250}
    kept = mailbox.Maildir(tmp_path / "mail", create=False)
    assert sorted(int(message["Subject"]) for message in kept) == list(range(24))


def test_mailbox_handler_gets_one_message_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, real = threading.Semaphore(1), mailbox.Maildir.add
    alone: list[bool] = []

    def add(self: Any, message: Any) -> Any:
        first = inside.acquire(blocking=False)
        alone.append(first)
        time.sleep(0.01)  # long enough for others to enter, if they were let in
        try:
            return real(self, message)
        finally:
            if first:
                inside.release()

    monkeypatch.setattr(mailbox.Maildir, "add", add)
    with (
        serving(handlers.Mailbox(tmp_path / "mail")) as controller,
        ThreadPoolExecutor(8) as pool,
    ):
        assert set(pool.map(lambda _: send(controller.port), range(8))) == {250}
    assert alone == [True] * 8


def test_blocking_handler_does_not_block_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, threads = threading.Event(), []

    def add(self: Any, message: Message) -> None:
        threads.append(threading.current_thread())
        assert go.wait(20)

    monkeypatch.setattr(mailbox.Maildir, "add", add)
    with (
        serving(handlers.Mailbox(tmp_path / "mail")) as controller,
        connected(controller.port) as client,
        connected(controller.port) as other,
    ):
        client.codes(*ENVELOPE)
        assert client.codes("DATA") == [354]
        client.send(b"x\r\n.")
        assert other.codes("NOOP") == [250]
        go.set()
        assert client.answer()[0] == 250
        assert threads[0] is not controller._thread


def test_exception_in_the_handlers_thread(tmp_path: Path) -> None:
    handler = handlers.Mailbox(tmp_path / "mail")
    with serving(handler) as controller:
        (tmp_path / "mail" / "tmp").rmdir()
        with connected(controller.port) as client:
            client.codes(*ENVELOPE)
            code, (text,) = client.data()
    assert code == 500
    assert "FileNotFoundError" in text


def test_subclass_runs_on_the_loop(tmp_path: Path) -> None:
    threads = []

    class Own(handlers.Mailbox):  # type: ignore[misc, name-defined]
        def handle_message(self, message: Message) -> None:
            threads.append(threading.current_thread())

    with serving(Own(tmp_path / "mail")) as controller:
        assert send(controller.port) == 250
        assert threads == [controller._thread]


def test_proxy_to_a_server_on_the_same_loop() -> None:
    """Proxy blocks in smtplib: on the loop it would wait for ever for the server behind it."""
    behind = Recorder()

    async def serve() -> None:
        async with smtp.serve_smtp(behind, port=0) as target:
            proxy = handlers.Proxy("127.0.0.1", target.sockets[0].getsockname()[1])
            async with smtp.serve_smtp(proxy, port=0) as front:
                port = front.sockets[0].getsockname()[1]
                assert await asyncio.to_thread(send, port) == 250

    asyncio.run(serve())
    envelope = behind.only()
    assert envelope.mail_from == "a@example.com"
    assert envelope.rcpt_tos == ["b@example.org"]
    assert b"\r\nX-Peer: 127.0.0.1\r\n" in envelope.content


def test_smtplib_client() -> None:
    handler = Recorder()
    with (
        serving(handler) as controller,
        smtplib.SMTP("127.0.0.1", controller.port, timeout=20) as client,
    ):
        client.sendmail(
            "a@example.com", ["b@example.org"], MESSAGE, mail_options=["BODY=8BITMIME", "SMTPUTF8"]
        )
        assert client.verify("b@example.org")[0] == 252
        assert client.noop()[0] == 250
        assert client.rset()[0] == 250
    assert handler.only().content == MESSAGE
    assert handler.only().smtp_utf8
    assert handler.only().mail_options == [f"SIZE={len(MESSAGE)}", "BODY=8BITMIME", "SMTPUTF8"]
