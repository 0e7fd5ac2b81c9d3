"""Hooks: what they may do besides replying, and what happens when they fail."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from typing import Any

import pytest
from support.aiosmtpd import ENVELOPE, PLAIN, Recorder, serving, started
from support.smtp_client import MESSAGE, connected
from support.waiting import until

from fastlisten.handlers.smtp import Controller
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING, AuthResult

HELLO, MAIL, RCPT = ENVELOPE


class Noop:
    """Replies to NOOP with the result of a function with the hook's arguments."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def handle_NOOP(self, server: Any, session: Any, envelope: Any, argument: Any) -> Any:
        result = self._answer(server, session, envelope, argument)
        return await result if asyncio.iscoroutine(result) else result


def test_pushed_lines_precede_the_hooks_reply() -> None:
    async def answer(server: Any, session: Any, envelope: Any, argument: Any) -> str:
        await server.push("250-pushed")
        await asyncio.sleep(0)
        await server.push(b"250-again")
        return "250 done"

    with serving(Noop(answer)) as controller, connected(controller.port) as client:
        client.send("HELO x.example", "RSET", "NOOP", "RSET")
        assert client.answer()[0] == 250
        assert client.answer()[0] == 250
        assert client.answer() == (250, ["pushed", "again", "done"])
        assert client.answer()[0] == 250


def test_pipelined_commands_wait_for_a_suspended_hook() -> None:
    order = []

    class Slow(Recorder):
        async def handle_RCPT(
            self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
        ) -> str:
            order.append(f"{address} begins")
            await asyncio.sleep(0.002)
            order.append(f"{address} ends")
            envelope.rcpt_tos.append(address)
            return "250 OK"

    handler = Slow()
    with serving(handler) as controller, connected(controller.port) as client:
        client.send(HELLO, MAIL, "RCPT TO:<a@x.org>", "RCPT TO:<b@x.org>", "DATA")
        assert [client.answer()[0] for _ in range(5)] == [250, 250, 250, 250, 354]
        assert client.codes(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".", "QUIT") == [250, 221]
    assert order == ["a@x.org begins", "a@x.org ends", "b@x.org begins", "b@x.org ends"]
    assert handler.only().content == MESSAGE
    assert handler.only().rcpt_tos == ["a@x.org", "b@x.org"]


@pytest.mark.parametrize("suspends", [False, True])
def test_rcpt_hook_that_fills_no_envelope_has_refused_whatever_it_says(suspends: bool) -> None:
    class Silent(Recorder):
        async def handle_RCPT(
            self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
        ) -> str:
            if suspends:
                await asyncio.sleep(0)
            if address != "a@x.org":
                envelope.rcpt_tos.append(address)
            return "250 OK"

    with serving(Silent()) as controller, connected(controller.port) as client:
        assert client.codes(HELLO, MAIL, "RCPT TO:<a@x.org>", "DATA") == [250, 250, 250, 554]
        assert client.codes("RCPT TO:<b@x.org>", "DATA") == [250, 354]


def test_exception_is_logged_and_session_continues(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Recorder):
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
            if b"bad" in envelope.content:
                await asyncio.sleep(0)
                raise ValueError("what a message")
            return await super().handle_DATA(server, session, envelope)

    handler = Fails()
    with serving(handler) as controller, connected(controller.port) as client:
        assert client.codes(*ENVELOPE) == [250, 250, 250]
        assert client.data(b"bad\r\n") == (500, ["Error: (ValueError) what a message"])
        assert client.codes(RCPT, MAIL, RCPT) == [503, 250, 250]
        assert client.data(b"good\r\n")[0] == 250
    assert handler.only().content == b"good\r\n"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "fastlisten.smtp"
    assert "what a message" in caplog.text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("451 4.3.0 come again", (451, ["4.3.0 come again"])),
        (None, (500, ["Error: (TypeError) a hook must return its reply as a string, not None"])),
        (OSError("even that"), (500, ["Error: (OSError) even that"])),
    ],
)
def test_handle_exception_chooses_the_reply(said: Any, expected: Any) -> None:
    class Handler(Noop):
        async def handle_exception(self, error: Exception) -> Any:
            assert str(error) == "on purpose"
            if isinstance(said, Exception):
                raise said
            return said

    def fail(*arguments: Any) -> None:
        raise ValueError("on purpose")

    with serving(Handler(fail)) as controller, connected(controller.port) as client:
        assert client.ask("NOOP") == expected
        assert client.codes("RSET") == [250]


def test_421_closes_connection() -> None:
    with (
        serving(Noop(lambda *arguments: "421 4.7.0 go away")) as controller,
        connected(controller.port) as client,
    ):
        client.send("NOOP", "NOOP")
        assert client.answer() == (421, ["4.7.0 go away"])
        assert client.answer() == (0, [])


def test_hook_closes_the_transport() -> None:
    def close(server: Any, session: Any, envelope: Any, argument: Any) -> Any:
        server.transport.close()
        return MISSING

    with serving(Noop(close)) as controller, connected(controller.port) as client:
        client.send("NOOP", "RSET")
        assert client.answer() == (0, [])


def test_cancelled_hook_closes_connection() -> None:
    async def cancelled(*arguments: Any) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)
        return "250 never"

    with serving(Noop(cancelled)) as controller:
        for _ in range(3):
            with connected(controller.port) as client:
                assert client.codes("NOOP") == [421]
                assert client.answer() == (0, [])


def test_hook_is_cancelled_when_client_disconnects() -> None:
    began, cancelled = threading.Event(), threading.Event()

    async def wait(server: Any, session: Any, envelope: Any, argument: Any) -> str:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            assert server.transport is None
            cancelled.set()
            raise
        return "250 never"

    with serving(Noop(wait)) as controller:
        with connected(controller.port) as client:
            client.send("NOOP")
            assert began.wait(20)
            client.reset()
        assert cancelled.wait(20)
        with connected(controller.port) as client:
            assert client.codes("RSET") == [250]


def test_half_closed_client_gets_its_replies() -> None:
    async def wait(*arguments: Any) -> str:
        await asyncio.sleep(0.01)
        return "250 late"

    with serving(Noop(wait)) as controller, connected(controller.port) as client:
        client.send("NOOP", "RSET")
        client.sock.shutdown(1)
        assert client.answer() == (250, ["late"])
        assert client.answer()[0] == 250
        assert client.answer() == (0, [])


def test_push_waits_for_client_that_does_not_read() -> None:
    progress = [0]

    async def much(server: Any, session: Any, envelope: Any, argument: Any) -> str:
        for progress[0] in range(2000):
            await server.push("250-" + "x" * 10_000)
        return "250 all"

    with serving(Noop(much)) as controller, connected(controller.port) as client:
        client.send("NOOP")
        seen = [-1, 0]

        def stands() -> bool:
            seen.append(progress[0])
            return len(seen) > 20 and len(set(seen[-20:])) == 1 and seen[-1] > 0

        until(stands, "a pause")
        assert seen[-1] < 1999
        code, lines = client.answer()
        assert (code, len(lines)) == (250, 2001)


def test_hooks_of_several_connections_run_concurrently() -> None:
    waiting: list[asyncio.Future[None]] = []

    async def meet(server: Any, session: Any, envelope: Any, argument: Any) -> str:
        waiting.append(server.loop.create_future())
        if len(waiting) == 3:
            for future in waiting:
                future.set_result(None)
        await waiting[-1]
        return f"250 {argument}"

    with (
        serving(Noop(meet)) as controller,
        connected(controller.port) as one,
        connected(controller.port) as two,
        connected(controller.port) as three,
    ):
        for number, client in enumerate((one, two, three)):
            client.send(f"NOOP {number}")
        assert [client.answer() for client in (one, two, three)] == [
            (250, [str(number)]) for number in range(3)
        ]


def test_handle_ehlo_with_four_arguments() -> None:
    class Old:
        async def handle_EHLO(self, server: Any, session: Any, envelope: Any, name: str) -> str:
            session.host_name = name
            await server.push("250-X-PUSHED")
            return "250 X-OLD"

    with pytest.warns(DeprecationWarning, match="5-argument"):
        controller = Controller(Old(), "127.0.0.1", 0, server_hostname="mx.example.org")
    with started(controller), connected(controller.port) as client:
        code, lines = client.ask(HELLO)
        assert code == 250
        assert lines[0] == "mx.example.org"
        assert lines[-2:] == ["X-PUSHED", "X-OLD"]
        assert "8BITMIME" in lines
        assert "HELP" not in lines
        assert client.codes(MAIL) == [250]


def test_handle_ehlo_with_wrong_signature_raises() -> None:
    class Wrong:
        async def handle_EHLO(self, server: Any) -> str:
            return "250 x"

    with pytest.raises(TypeError, match="4 or 5 parameters"), serving(Wrong()):
        pass


@pytest.mark.parametrize("suspends", [False, True])
def test_process_message_of_smtpd(suspends: bool) -> None:
    seen = []

    class Sync:
        def process_message(self, peer: Any, sender: str, recipients: Any, data: Any) -> Any:
            seen.append((peer[0], sender, recipients, data))

    class Async:
        async def process_message(self, *arguments: Any) -> Any:
            await asyncio.sleep(0)
            Sync().process_message(*arguments)
            return "250 processed"

    with pytest.warns(DeprecationWarning, match="handle_DATA"):
        controller = Controller(Async() if suspends else Sync(), "127.0.0.1", 0)
    with started(controller), connected(controller.port) as client:
        client.codes(*ENVELOPE)
        assert client.data() == (250, ["processed" if suspends else "OK"])
    assert seen == [("127.0.0.1", "a@example.com", ["b@example.org"], MESSAGE)]


def test_hook_sets_session_authenticated() -> None:
    class Trusting(Recorder):
        async def handle_EHLO(
            self, server: Any, session: Any, envelope: Any, name: str, responses: list[str]
        ) -> list[str]:
            session.host_name = name
            session.authenticated = name == "trusted.example"
            return responses

    with pytest.warns(UserWarning, match="Requiring AUTH"):
        controller = Controller(
            Trusting(),
            "127.0.0.1",
            0,
            auth_required=True,
            auth_require_tls=False,
            authenticator=lambda *arguments: AuthResult(success=True),
        )
    with started(controller), connected(controller.port) as client:
        assert client.codes(HELLO, MAIL, "VRFY a@b.org") == [250, 530, 530]
        assert client.codes("EHLO trusted.example", MAIL, PLAIN) == [250, 250, 503]


def test_unsupported_server_attributes() -> None:
    def ask(server: Any, *arguments: Any) -> str:
        with pytest.raises(AttributeError, match=r"is not supported; see docs/aiosmtpd\.md"):
            server.smtp_MAIL  # noqa: B018 - asking is what raises
        assert not hasattr(server, "ehlo_hook")
        server.note = "attributes of one's own are kept"
        return f"250 {server.note}"

    with serving(Noop(ask)) as controller, connected(controller.port) as client:
        assert client.ask("NOOP") == (250, ["attributes of one's own are kept"])


def test_connections_leave_no_reference_cycles() -> None:
    servers: list[weakref.ref[Any]] = []

    async def keep(server: Any, session: Any, envelope: Any, argument: str) -> str:
        servers.append(weakref.ref(server))
        if argument == "suspend":
            await asyncio.sleep(0.001)
        if argument == "wait":
            await asyncio.sleep(60)
        return "250 OK"

    gc.collect()
    gc.disable()
    try:
        with serving(Noop(keep)) as controller:
            for argument in ("pass", "suspend"):
                with connected(controller.port) as client:
                    assert client.codes(HELLO, f"NOOP {argument}") == [250, 250]
            with connected(controller.port) as client:
                client.send("NOOP wait")
                until(lambda: len(servers) == 3, "the hook")
                client.reset()
            with connected(controller.port) as client:
                assert client.codes("NOOP") == [250]
                until(lambda: not any(one() for one in servers[:3]), "the ends")
                assert servers[3]() is not None
    finally:
        gc.enable()


def test_hook_outlives_its_connection() -> None:
    began, pushed = threading.Event(), threading.Event()

    async def stubborn(server: Any, session: Any, envelope: Any, argument: Any) -> str:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            assert server.transport is None
            await server.push("250 into the void")
            pushed.set()
        return "250 nobody hears it"

    with serving(Noop(stubborn)) as controller:
        with connected(controller.port) as client:
            client.send("NOOP")
            assert began.wait(20)
            client.reset()
        assert pushed.wait(20)
        with connected(controller.port) as client:
            assert client.codes("RSET") == [250]
