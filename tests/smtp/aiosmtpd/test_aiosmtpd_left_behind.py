"""Hooks that fail or refuse leave nothing behind.

Rules of this file: each test goes on after the failure, because that is where it would show.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.aiosmtpd import ENVELOPE, PLAIN, Recorder, b64, serving
from support.smtp_client import SmtpClient, connected
from support.waiting import PATIENCE

from fastlisten.handlers.smtp.aiosmtpd.types import MISSING, AuthResult

HELLO, MAIL, RCPT = ENVELOPE


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
    """Accept everybody."""
    return AuthResult(success=True, auth_data=data)


@contextlib.contextmanager
def client_of(handler: Any, **parameters: Any) -> Iterator[SmtpClient]:
    with (
        serving(handler, auth_require_tls=False, **parameters) as controller,
        connected(controller.port) as client,
    ):
        yield client


def test_message_whose_hook_fails_is_not_part_of_the_next_one() -> None:
    class Fails(Recorder):
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
            if envelope.rcpt_tos == ["first@example.org"]:
                raise ValueError("on purpose")
            return await super().handle_DATA(server, session, envelope)

    handler = Fails()
    with client_of(handler) as client:
        client.codes(HELLO, f"{MAIL} SIZE=100", "RCPT TO:<first@example.org>")
        assert client.data()[0] == 500
        assert client.codes(MAIL, RCPT) == [250, 250]
        assert client.data()[0] == 250
    envelope = handler.only()
    assert (envelope.mail_options, envelope.rcpt_tos) == ([], ["b@example.org"])


def test_refused_sender_is_forgotten() -> None:
    seen = []

    class Refuses(Recorder):
        async def handle_MAIL(
            self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
        ) -> Any:
            seen.append((envelope.mail_from, list(envelope.mail_options)))
            if address.startswith("no"):
                envelope.mail_from = address
                envelope.mail_options.append("SIZE=1")
                return "550 no"
            return "250 but nothing is set"

    with client_of(Refuses()) as client:
        assert client.codes(HELLO, "MAIL FROM:<no@example.com>") == [250, 550]
        # Its answer would be a yes if the sender of the refused MAIL were still there.
        assert client.codes("MAIL FROM:<yes@example.com>", RCPT) == [250, 503]
    assert seen == [(None, []), (None, [])]


@pytest.mark.parametrize("verb", ["EHLO", "HELO"])
@pytest.mark.parametrize("answer", ["550 not you", "fails"])
def test_refused_greeting_changes_nothing(verb: str, answer: str) -> None:
    class Refuses(Recorder):
        async def handle_HELO(self, server: Any, session: Any, envelope: Any, name: str) -> str:
            if name == "good.example":
                session.host_name = name
                return "250 hello"
            session.host_name = ""
            if answer == "fails":
                raise ValueError("on purpose")
            return answer

        async def handle_EHLO(
            self, server: Any, session: Any, envelope: Any, name: str, responses: list[str]
        ) -> list[str]:
            reply = await self.handle_HELO(server, session, envelope, name)
            return [reply]

    handler = Refuses()
    with client_of(handler) as client:
        assert client.codes(f"{verb} good.example", MAIL, RCPT) == [250, 250, 250]
        client.codes(f"{verb} bad.example")
        assert client.data()[0] == 250
    ((envelope, session),) = handler.messages
    assert (envelope.mail_from, envelope.rcpt_tos) == ("a@example.com", ["b@example.org"])
    assert session.host_name == "good.example"
    assert session.extended_smtp == (verb == "EHLO")


@pytest.mark.parametrize("verb", ["EHLO", "HELO"])
def test_client_that_is_given_no_name_is_not_greeted(verb: str) -> None:
    class Forgets(Recorder):
        async def handle_HELO(self, server: Any, session: Any, envelope: Any, name: str) -> str:
            return "250 hello"

        async def handle_EHLO(
            self, server: Any, session: Any, envelope: Any, name: str, responses: list[str]
        ) -> list[str]:
            return ["250 hello"]

    with client_of(Forgets()) as client:
        assert client.codes(f"{verb} c.example", MAIL) == [250, 503]


class Auths(Recorder):
    async def auth_PUSHES(self, server: Any, args: list[str]) -> Any:
        await server.push("250-pushed")
        raise ValueError("on purpose")

    async def auth_REFUSES(self, server: Any, args: list[str]) -> Any:
        await server.push("235 2.7.0 Authentication")
        return AuthResult(success=False, handled=False)

    async def auth_LOSES(self, server: Any, args: list[str]) -> Any:
        if await server.challenge_auth("who?") is MISSING:
            raise ValueError("on purpose")

    async def handle_NOOP(self, server: Any, session: Any, envelope: Any, argument: Any) -> str:
        if argument == "claim":
            session.authenticated = True
        await server.push("250-seen")
        return "250 done"


def test_auth_hook_that_fails_holds_nothing_back() -> None:
    """What the next hook pushes is sent, not held until an AUTH exchange ends."""
    with client_of(Auths()) as client:
        assert client.codes(HELLO, "AUTH PUSHES") == [250, 500]
        assert client.ask("NOOP") == (250, ["seen", "done"])


def test_last_of_several_replies_to_auth_decides() -> None:
    with client_of(Auths()) as client:
        client.codes(HELLO)
        for _ in range(2):  # a client that has logged in could not try again
            assert client.codes("AUTH REFUSES") == [235]
            assert client.answer()[0] == 535


def test_auth_hook_that_fails_after_the_client_has_cancelled() -> None:
    with client_of(Auths()) as client:
        assert client.codes(HELLO, "AUTH LOSES", "*", "NOOP") == [250, 334, 501, 250]


def test_client_that_a_hook_has_authenticated_does_not_log_in_again() -> None:
    with client_of(Auths(), authenticator=authenticate) as client:
        assert client.codes(HELLO, "NOOP claim", PLAIN, MAIL) == [250, 250, 503, 250]


@pytest.mark.parametrize("parts", ["user\0secret", "\0user\0secret\0more"])
def test_plain_has_three_parts(parts: str) -> None:
    with client_of(Recorder(), authenticator=authenticate) as client:
        assert client.codes(HELLO, f"AUTH PLAIN {b64(parts.encode())}", PLAIN) == [250, 501, 235]


@pytest.mark.parametrize("result", [True, "user", object(), None])
def test_authenticator_must_return_an_auth_result(result: object) -> None:
    with client_of(Recorder(), authenticator=lambda *_: result) as client:
        # A client that has logged in could not try again.
        assert client.codes(HELLO, PLAIN, PLAIN) == [250, 500, 500]


def test_hook_that_pushes_waits_for_a_client_that_does_not_read() -> None:
    count, line = 20_000, "250-" + "x" * 996

    class Talks:
        pushed = 0
        began = threading.Event()

        async def handle_NOOP(self, server: Any, session: Any, envelope: Any, argument: Any) -> str:
            self.began.set()
            for _ in range(count):
                await server.push(line)
                self.pushed += 1
            return "250 done"

    handler = Talks()
    with serving(handler) as controller, connected(controller.port) as client:
        client.send("NOOP")
        assert handler.began.wait(PATIENCE)
        # That another client is answered shows that the hook has suspended, or ended.
        with connected(controller.port) as other:
            assert other.codes("RSET") == [250]
        assert 0 < handler.pushed < count
        end = b""
        while end != b"250 done\r\n":
            end = (end + client.sock.recv(1 << 20))[-10:]
        assert handler.pushed == count
