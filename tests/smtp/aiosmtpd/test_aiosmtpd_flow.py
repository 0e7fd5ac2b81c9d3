"""Connections with hooks: floods, backpressure, failing hooks, and ends."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from typing import Any

import pytest
from support.aiosmtpd import BAD_PLAIN, ENVELOPE, PLAIN, Recorder, server_context, serving
from support.smtp_client import MESSAGE, connected
from support.waiting import until

from fastlisten.handlers.smtp.aiosmtpd.types import MISSING, AuthResult

HELLO, MAIL, RCPT = ENVELOPE


def test_flood_of_commands_is_answered_in_order() -> None:
    class Counts(Recorder):
        count = 0

        async def handle_NOOP(self, *arguments: Any) -> str:
            self.count += 1
            return f"250 {self.count}"

    with serving(Counts()) as controller, connected(controller.port) as client:
        number = 20_000
        sending = threading.Thread(target=client.sock.sendall, args=(b"NOOP\r\n" * number,))
        sending.start()
        for count in range(1, number + 1):
            assert client.answer() == (250, [str(count)])
        sending.join()


def test_reading_pauses_behind_a_slow_hook() -> None:
    hold = threading.Event()

    class Waits(Recorder):
        async def handle_VRFY(self, *arguments: Any) -> str:
            while not hold.is_set():
                await asyncio.sleep(0.005)
            return "252 perhaps"

    lines = [b"NOOP " + b"x" * 500] * 40_000  # 20 MB: more than all buffers hold
    with serving(Waits()) as controller, connected(controller.port) as client:
        client.send("VRFY a@example.org")
        sending = threading.Thread(target=client.send, args=lines)
        sending.start()

        def stands() -> bool:
            transport = controller.smtpd and controller.smtpd.transport
            return transport is not None and not transport.is_reading()

        until(stands, "the end of reading")
        assert sending.is_alive()
        hold.set()
        assert client.answer()[0] == 252
        assert {client.answer()[0] for _ in lines} == {250}
        sending.join()


def test_pipelined_message_behind_slow_hooks() -> None:
    class Slow(Recorder):
        async def handle_RCPT(
            self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
        ) -> str:
            await asyncio.sleep(0.001)
            envelope.rcpt_tos.append(address)
            return "250 OK"

    handler, body = Slow(), b"." + b"x" * 70 + b"\r\n"
    with serving(handler) as controller, connected(controller.port) as client:
        message = body * 30_000
        client.send(HELLO, MAIL, RCPT, "DATA")
        client.sock.sendall(message.replace(b"\r\n.", b"\r\n..").replace(b".", b"..", 1))
        client.send(b".", MAIL, RCPT, "QUIT")
        assert [client.answer()[0] for _ in range(8)] == [250, 250, 250, 354, 250, 250, 250, 221]
    assert handler.only().content == message


def test_message_in_tiny_chunks_takes_about_its_size() -> None:
    """Chunks of two octets, each kept as an object, would take twenty times as much."""
    number, handler = 20_000, Recorder()
    with serving(handler) as controller, connected(controller.port) as client:
        client.codes(HELLO, MAIL, RCPT, "NOOP")
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(number // 1000):
                client.sock.sendall(b"BDAT 2\r\nab" * 1000)
                assert {client.answer()[0] for _ in range(1000)} == {250}
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert client.codes("BDAT 0 LAST") == [250]
    assert handler.only().content == b"ab" * number
    assert taken < 8 * 2 * number


class Fails(Recorder):
    async def handle_RSET(self, *arguments: Any) -> str:
        raise ValueError("on purpose")

    async def handle_QUIT(self, *arguments: Any) -> str:
        raise ValueError("on purpose")

    def handle_STARTTLS(self, *arguments: Any) -> bool:
        raise ValueError("on purpose")


def test_failing_hooks_do_not_prevent_reset_and_quit() -> None:
    handler = Fails()
    with serving(handler) as controller, connected(controller.port) as client:
        assert client.codes(*ENVELOPE, "RSET", RCPT, MAIL, RCPT) == [
            250,
            250,
            250,
            500,
            503,
            250,
            250,
        ]
        assert client.data()[0] == 250
        assert client.codes("QUIT") == [500]
        assert client.answer() == (0, [])
    assert handler.only().rcpt_tos == ["b@example.org"]


def test_failing_starttls_hook_rejects_tls() -> None:
    with (
        serving(Fails(), tls_context=server_context()) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "STARTTLS") == [250, 220]
        client.starttls()
        assert client.codes(HELLO, "NOOP", MAIL, "HELO x.example") == [554, 554, 503, 554]


@pytest.mark.parametrize("verdict", [True, False])
def test_starttls_hook_may_be_a_coroutine_function(verdict: bool) -> None:
    """aiosmtpd would take the coroutine for a true value and always accept."""

    class Judge(Recorder):
        async def handle_STARTTLS(self, *arguments: Any) -> bool:
            await asyncio.sleep(0.01)
            return verdict

    with (
        serving(Judge(), tls_context=server_context()) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "STARTTLS") == [250, 220]
        client.starttls()
        assert client.codes(HELLO) == [250 if verdict else 554]


def test_starttls_call_limit() -> None:
    parameters = {"tls_context": server_context(), "command_call_limit": {"STARTTLS": 0}}
    with serving(Recorder(), **parameters) as controller, connected(controller.port) as client:
        assert client.codes(HELLO, "STARTTLS") == [250, 421]


def test_auth_callback() -> None:
    asked = []

    def callback(mechanism: str, login: bytes, password: bytes) -> bool:
        asked.append((mechanism, login, password))
        return password == b"secret"

    with (
        serving(Recorder(), auth_callback=callback, auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, BAD_PLAIN, PLAIN) == [250, 535, 235]
    assert asked == [("PLAIN", b"user", b"wrong"), ("PLAIN", b"user", b"secret")]


@pytest.mark.filterwarnings("ignore:AUTH interaction logging")
def test_deprecated_auth_hooks() -> None:
    class Old(Recorder):
        async def auth_OLD(self, server: Any, args: list[str]) -> Any:
            answer = await server._auth_interact("334 d2hvPw==")
            again = await server.challenge_auth("once more", log_client_response=True)
            return MISSING if answer != again else answer

        async def auth_SILENT(self, server: Any, args: list[str]) -> Any:
            return None

    with (
        serving(Old(), auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "AUTH OLD") == [250, 334]
        assert client.codes("bWU=", "eW91") == [334, 535]
        # The hook said nothing, but a client waits for a reply.
        assert client.codes("AUTH SILENT", "AUTH OLD", "bWU=", "bWU=") == [535, 334, 334, 235]


def test_auth_hook_failing_after_its_dialogue_sends_nothing() -> None:
    class Fails(Recorder):
        async def auth_FAILS(self, server: Any, args: list[str]) -> Any:
            assert await server.challenge_auth("who?") is MISSING
            await server.push("535 and what is more")
            raise ValueError("on purpose")

    with (
        serving(Fails(), auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "AUTH FAILS", "*", "NOOP") == [250, 334, 501, 250]


def test_auth_hook_failing_during_a_challenge_closes_connection() -> None:
    class Fails(Recorder):
        async def auth_FAILS(self, server: Any, args: list[str]) -> Any:
            async with asyncio.timeout(0.01):
                await server.challenge_auth("who?")

    with (
        serving(Fails(), auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "AUTH FAILS") == [250, 334]
        assert client.answer()[0] == 421


def test_stop_does_not_wait_for_client_that_never_reads() -> None:
    class Much(Recorder):
        async def handle_NOOP(self, server: Any, *arguments: Any) -> str:
            server.transport.write(b"250-x\r\n" * 1_000_000)
            return "250 x"

    with serving(Much()) as controller, connected(controller.port) as client:
        client.send("NOOP")
        assert client.sock.recv(1)
        controller.stop()
        assert controller.loop.is_closed()
        controller.start()


def test_authenticator_arguments() -> None:
    seen = []

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        seen.append((server.session is session, server.envelope is envelope, mechanism, data))
        return AuthResult(success=True, message="235 2.7.0 come in", auth_data=data)

    with (
        serving(Recorder(), authenticator=authenticate, auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        client.codes(HELLO)
        assert client.ask(PLAIN) == (235, ["2.7.0 come in"])
        assert client.codes(MAIL, RCPT) == [250, 250]
        assert client.data(MESSAGE)[0] == 250
    assert seen == [(True, True, "PLAIN", (b"user", b"secret"))]
