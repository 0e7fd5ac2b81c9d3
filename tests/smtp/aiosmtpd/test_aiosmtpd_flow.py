"""Floods, ends and failures: what holds up a connection with hooks, and what ends it."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from typing import Any

import pytest
from support.aiosmtpd import BAD_PLAIN, ENVELOPE, PLAIN, Recorder, controlled, server_context
from support.smtp_client import MESSAGE, connected
from support.waiting import until

from fastlisten.handlers.smtp.aiosmtpd.types import MISSING, AuthResult

HELLO, MAIL, RCPT = ENVELOPE


def test_a_flood_of_commands_is_answered_in_turns() -> None:
    class Counts(Recorder):
        count = 0

        async def handle_NOOP(self, *arguments: Any) -> str:
            self.count += 1
            return f"250 {self.count}"

    with controlled(Counts()) as controller, connected(controller.port) as client:
        number = 20_000
        sending = threading.Thread(target=client.sock.sendall, args=(b"NOOP\r\n" * number,))
        sending.start()
        for count in range(1, number + 1):
            assert client.answer() == (250, [str(count)])
        sending.join()


def test_input_behind_a_hook_is_not_read_without_bound() -> None:
    hold = threading.Event()

    class Waits(Recorder):
        async def handle_VRFY(self, *arguments: Any) -> str:
            while not hold.is_set():
                await asyncio.sleep(0.005)
            return "252 perhaps"

    lines = [b"NOOP " + b"x" * 500] * 40_000  # 20 MB: more than all buffers between hold
    with controlled(Waits()) as controller, connected(controller.port) as client:
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


def test_a_message_in_many_pieces_beside_a_slow_hook() -> None:
    class Slow(Recorder):
        async def handle_RCPT(
            self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
        ) -> str:
            await asyncio.sleep(0.001)
            envelope.rcpt_tos.append(address)
            return "250 OK"

    handler, body = Slow(), b"." + b"x" * 70 + b"\r\n"
    with controlled(handler) as controller, connected(controller.port) as client:
        message = body * 30_000
        client.send(HELLO, MAIL, RCPT, "DATA")
        client.sock.sendall(message.replace(b"\r\n.", b"\r\n..").replace(b".", b"..", 1))
        client.send(b".", MAIL, RCPT, "QUIT")
        assert [client.answer()[0] for _ in range(8)] == [250, 250, 250, 354, 250, 250, 250, 221]
    assert handler.only().content == message


def test_a_message_takes_about_its_size_however_it_comes() -> None:
    """Chunks of two octets, kept one by one, would take twenty times as much."""
    number, handler = 20_000, Recorder()
    with controlled(handler) as controller, connected(controller.port) as client:
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


def test_what_must_happen_happens_although_its_hook_fails() -> None:
    handler = Fails()
    with controlled(handler) as controller, connected(controller.port) as client:
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


def test_tls_that_a_hook_failed_to_judge_is_not_good_enough() -> None:
    with (
        controlled(Fails(), tls_context=server_context()) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "STARTTLS") == [250, 220]
        client.starttls()
        assert client.codes(HELLO, "NOOP", MAIL, "HELO x.example") == [554, 554, 503, 554]


@pytest.mark.parametrize("verdict", [True, False])
def test_tls_is_judged_by_a_coroutine_function_too(verdict: bool) -> None:
    """In aiosmtpd it would always be good enough."""

    class Judge(Recorder):
        async def handle_STARTTLS(self, *arguments: Any) -> bool:
            await asyncio.sleep(0.01)
            return verdict

    with (
        controlled(Judge(), tls_context=server_context()) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "STARTTLS") == [250, 220]
        client.starttls()
        assert client.codes(HELLO) == [250 if verdict else 554]


def test_starttls_over_the_limit_of_commands() -> None:
    parameters = {"tls_context": server_context(), "command_call_limit": {"STARTTLS": 0}}
    with controlled(Recorder(), **parameters) as controller, connected(controller.port) as client:
        assert client.codes(HELLO, "STARTTLS") == [250, 421]


def test_auth_callbacks_and_what_they_say() -> None:
    asked = []

    def callback(mechanism: str, login: bytes, password: bytes) -> bool:
        asked.append((mechanism, login, password))
        return password == b"secret"

    with (
        controlled(Recorder(), auth_callback=callback, auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, BAD_PLAIN, PLAIN) == [250, 535, 235]
    assert asked == [("PLAIN", b"user", b"wrong"), ("PLAIN", b"user", b"secret")]


@pytest.mark.filterwarnings("ignore:AUTH interaction logging")
def test_hooks_of_old_and_their_answers() -> None:
    class Old(Recorder):
        async def auth_OLD(self, server: Any, args: list[str]) -> Any:
            answer = await server._auth_interact("334 d2hvPw==")
            again = await server.challenge_auth("once more", log_client_response=True)
            return MISSING if answer != again else answer

        async def auth_SILENT(self, server: Any, args: list[str]) -> Any:
            return None

    with (
        controlled(Old(), auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "AUTH OLD") == [250, 334]
        assert client.codes("bWU=", "eW91") == [334, 535]
        # It has said nothing, but a client waits for a reply.
        assert client.codes("AUTH SILENT", "AUTH OLD", "bWU=", "bWU=") == [535, 334, 334, 235]


def test_a_hook_that_fails_after_its_dialogue_is_over_says_nothing_more() -> None:
    class Fails(Recorder):
        async def auth_FAILS(self, server: Any, args: list[str]) -> Any:
            assert await server.challenge_auth("who?") is MISSING
            await server.push("535 and what is more")
            raise ValueError("on purpose")

    with (
        controlled(Fails(), auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "AUTH FAILS", "*", "NOOP") == [250, 334, 501, 250]


def test_a_hook_that_fails_while_the_client_is_asked_ends_the_connection() -> None:
    class Fails(Recorder):
        async def auth_FAILS(self, server: Any, args: list[str]) -> Any:
            async with asyncio.timeout(0.01):
                await server.challenge_auth("who?")

    with (
        controlled(Fails(), auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "AUTH FAILS") == [250, 334]
        assert client.answer()[0] == 421


def test_stopping_does_not_wait_for_a_client_that_does_not_read() -> None:
    class Much(Recorder):
        async def handle_NOOP(self, server: Any, *arguments: Any) -> str:
            server.transport.write(b"250-x\r\n" * 1_000_000)
            return "250 x"

    with controlled(Much()) as controller, connected(controller.port) as client:
        client.send("NOOP")
        assert client.sock.recv(1)
        controller.stop()
        assert controller.loop.is_closed()
        controller.start()


def test_an_authenticator_gets_what_there_is() -> None:
    seen = []

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        seen.append((server.session is session, server.envelope is envelope, mechanism, data))
        return AuthResult(success=True, message="235 2.7.0 come in", auth_data=data)

    with (
        controlled(Recorder(), authenticator=authenticate, auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        client.codes(HELLO)
        assert client.ask(PLAIN) == (235, ["2.7.0 come in"])
        assert client.codes(MAIL, RCPT) == [250, 250]
        assert client.data(MESSAGE)[0] == 250
    assert seen == [(True, True, "PLAIN", (b"user", b"secret"))]
