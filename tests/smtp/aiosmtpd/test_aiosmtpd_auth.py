"""AUTH with built-in mechanisms, the handler's own and its hooks, compared with aiosmtpd."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.aiosmtpd import BAD_PLAIN, ENVELOPE, PLAIN, Recorder, b64, serving, serving_by_aiosmtpd
from support.foreign import foreign
from support.smtp_client import connected

from fastlisten.handlers.smtp.aiosmtpd.types import MISSING, AuthResult

aiosmtpd, pytestmark = foreign("aiosmtpd.smtp")

HELLO, MAIL, RCPT = ENVELOPE
NOOP = "NOOP"

_Hook = Callable[..., Any]

auth_mechanism: Callable[[str], Callable[[_Hook], _Hook]] = (
    aiosmtpd.auth_mechanism if aiosmtpd else lambda name: lambda hook: hook
)


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
    if data.login == b"later":
        message = "454 4.7.0 come again"
        return AuthResult(success=False, handled=False, message=message)
    return AuthResult(success=data.password == b"secret", handled=False, auth_data=data)


class Mechanisms(Recorder):
    async def auth_ASKS(self, server: Any, args: list[str]) -> Any:
        answer = await server.challenge_auth("who?")
        if answer is MISSING:
            return AuthResult(success=False)
        return AuthResult(success=answer == b"me", handled=False, auth_data=answer)

    async def auth_OLD(self, server: Any, args: list[str]) -> Any:
        return "somebody" if args[1:] else False

    @auth_mechanism("x-decorated")
    async def auth_whatever(self, server: Any, args: list[str]) -> Any:
        return AuthResult(success=True, message="235 2.7.0 decorated")

    async def auth_PUSHES__ITSELF(self, server: Any, args: list[str]) -> Any:
        await server.push("535 5.7.8 not you")
        return AuthResult(success=False, handled=True)


LOGIN = [b64(b"user"), b64(b"secret")]
AUTHS: dict[str, list[str | bytes]] = {
    "plain": [HELLO, PLAIN, MAIL],
    "plain without initial response": [HELLO, "AUTH PLAIN", PLAIN.split()[2], MAIL],
    "wrong": [HELLO, BAD_PLAIN, NOOP, PLAIN, MAIL],
    "twice": [HELLO, PLAIN, PLAIN],
    "login": [HELLO, "AUTH LOGIN", *LOGIN, MAIL],
    "login with initial response": [HELLO, f"AUTH LOGIN {LOGIN[0]}", LOGIN[1], MAIL],
    "cancelled": [HELLO, "AUTH LOGIN", "*", PLAIN],
    "cancelled at password": [HELLO, "AUTH LOGIN", LOGIN[0], "*", NOOP, PLAIN],
    "invalid base64": [HELLO, "AUTH LOGIN", "!", "AUTH PLAIN !", PLAIN],
    "malformed plain": [HELLO, f"AUTH PLAIN {b64(b'x')}", PLAIN],
    "later": [HELLO, f"AUTH LOGIN {b64(b'later')}", LOGIN[1], PLAIN],
    "unknown": [HELLO, "AUTH CRAM-MD5", "AUTH", PLAIN],
    "before ehlo": [PLAIN],
    "handler's mechanism": [HELLO, "AUTH ASKS", b64(b"you"), "AUTH ASKS", b64(b"me"), MAIL],
    "handler's mechanism cancelled": [HELLO, "AUTH ASKS", "*", "AUTH ASKS", b64(b"me")],
    "deprecated result": [HELLO, "AUTH OLD", "AUTH OLD eA=="],
    "decorated": [HELLO, "AUTH X-DECORATED", MAIL],
    "pushes its reply": [HELLO, "AUTH PUSHES-ITSELF", NOOP, PLAIN, MAIL],
}


def test_auth_during_transaction_is_refused() -> None:
    """RFC 4954 4 forbids it; aiosmtpd allows it."""
    for serve, code in ((serving_by_aiosmtpd, 235), (serving, 503)):
        with (
            serve(Mechanisms(), authenticator=authenticate, auth_require_tls=False) as controller,
            connected(controller.port) as client,
        ):
            assert client.codes(HELLO, MAIL, PLAIN) == [250, 250, code]


@pytest.mark.parametrize(
    ("identity", "aiosmtpd_code", "our_code"),
    [("", 235, 235), ("user", 235, 235), ("another", 235, 535), ("User", 235, 535)],
)
def test_foreign_authorization_identity_is_refused(
    identity: str, aiosmtpd_code: int, our_code: int
) -> None:
    """RFC 4616 2; aiosmtpd ignores the authorization identity and lets the client in."""
    line = f"AUTH PLAIN {b64(chr(0).join((identity, 'user', 'secret')).encode())}"
    for serve, code in ((serving_by_aiosmtpd, aiosmtpd_code), (serving, our_code)):
        with (
            serve(Recorder(), authenticator=authenticate, auth_require_tls=False) as controller,
            connected(controller.port) as client,
        ):
            assert client.codes(HELLO, line) == [250, code]


def test_non_callable_auth_attribute_is_no_mechanism() -> None:
    class Settings(Mechanisms):
        auth_token = None
        auth_url = "https://example.org/"

    with (
        serving(Settings(), auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        (line,) = (it for it in client.ask(HELLO)[1] if it.startswith("AUTH "))
        assert set(line.split()[1:]) == {"ASKS", "OLD", "X-DECORATED", "PUSHES-ITSELF"}
        assert client.codes("AUTH TOKEN eA==") == [504]


class HandlesAuth(Recorder):
    """Has handle_AUTH, which leaves all but LOGIN to the built-in mechanisms."""

    async def handle_AUTH(self, server: Any, session: Any, envelope: Any, args: list[str]) -> Any:
        if args[0] != "LOGIN":
            return MISSING
        if len(args) == 1:
            await server.push("504 5.7.4 name and all at once")
            return None
        if args[1] == "fail":
            raise ValueError("on purpose")
        return "235 2.7.0 in" if args[1] == b64(b"user") else "535 5.7.8 out"


class ReplacesPlain(Recorder):
    """Overrides a built-in mechanism."""

    async def auth_PLAIN(self, server: Any, args: list[str]) -> Any:
        await asyncio.sleep(0)
        return AuthResult(success=len(args) == 2, handled=False, auth_data=args)


HANDLERS: dict[str, tuple[type[Recorder], list[str | bytes]]] = {
    "handle_AUTH": (
        HandlesAuth,
        [HELLO, "AUTH LOGIN", f"AUTH LOGIN {b64(b'x')}", "AUTH LOGIN fail", PLAIN, PLAIN],
    ),
    "handle_AUTH accepts": (HandlesAuth, [HELLO, f"AUTH LOGIN {LOGIN[0]}", MAIL]),
    "replaced mechanism": (ReplacesPlain, [HELLO, "AUTH PLAIN", BAD_PLAIN, MAIL]),
}


@pytest.mark.parametrize("name", HANDLERS)
def test_auth_hooks_reply_as_in_aiosmtpd(name: str) -> None:
    kind, lines = HANDLERS[name]

    def run(serve: Callable[..., Any]) -> list[int]:
        parameters = {"authenticator": authenticate, "auth_require_tls": False}
        with serve(kind(), **parameters) as controller, connected(controller.port) as client:
            return client.codes(*lines)

    expected = run(serving_by_aiosmtpd)
    assert 235 in expected
    assert run(serving) == expected


def test_session_attributes_after_auth() -> None:
    for serve in (serving_by_aiosmtpd, serving):
        handler = Recorder()
        with (
            serve(handler, authenticator=authenticate, auth_require_tls=False) as controller,
            connected(controller.port) as client,
        ):
            client.codes(HELLO, PLAIN, MAIL, RCPT)
            assert client.data()[0] == 250
        ((_, session),) = handler.messages
        assert session.authenticated is True
        assert session.auth_data == (b"user", b"secret")
        assert session.login_data == b"user"


def test_challenge_without_base64_is_an_error() -> None:
    class Asks(Recorder):
        async def auth_ASKS(self, server: Any, args: list[str]) -> Any:
            return await server.challenge_auth("no base64!", encode_to_b64=False)

    with (
        serving(Asks(), auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        client.codes(HELLO)
        code, (text,) = client.ask("AUTH ASKS")
        assert code == 500
        assert "ValueError" in text


@pytest.mark.parametrize("line", [BAD_PLAIN, "AUTH PUSHES-ITSELF"])
def test_repeated_failed_auth_closes_connection(line: str) -> None:
    with (
        serving(
            Mechanisms(), authenticator=authenticate, auth_require_tls=False, max_errors=3
        ) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, line, line, line, line) == [250, 535, 535, 535, 421]
        assert client.answer() == (0, [])


def test_challenge_outside_auth_is_an_error() -> None:
    class Asks(Recorder):
        async def handle_NOOP(self, server: Any, *arguments: Any) -> Any:
            return await server.challenge_auth("who?")

    with serving(Asks()) as controller, connected(controller.port) as client:
        code, (text,) = client.ask("NOOP")
        assert (code, text.split()[1]) == (500, "(RuntimeError)")
        assert client.codes("RSET") == [250]


def test_hook_that_abandons_its_challenge_closes_connection() -> None:
    class Hasty(Recorder):
        async def auth_HASTY(self, server: Any, args: list[str]) -> Any:
            try:
                async with asyncio.timeout(0.01):
                    await server.challenge_auth("quick?")
            except TimeoutError:
                return AuthResult(success=False, handled=False)

    with (
        serving(Hasty(), auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "AUTH HASTY") == [250, 334]
        assert client.answer()[0] == 421
        assert client.answer() == (0, [])


@pytest.mark.parametrize("suspends", [False, True])
def test_response_sent_before_the_challenge_is_read(suspends: bool) -> None:
    class Asks(Recorder):
        async def auth_ASKS(self, server: Any, args: list[str]) -> Any:
            if suspends:
                await asyncio.sleep(0)
            response = await server.challenge_auth("who?")
            return AuthResult(success=response == b"me")

    with (
        serving(Asks(), auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        client.codes(HELLO)
        client.send("AUTH ASKS", "bWU=")
        assert [client.answer()[0], client.answer()[0]] == [334, 235]


@pytest.mark.parametrize("name", AUTHS)
def test_auth_replies_as_in_aiosmtpd(name: str) -> None:
    def run(serve: Callable[..., Any]) -> list[int]:
        parameters = {"authenticator": authenticate, "auth_require_tls": False}
        with serve(Mechanisms(), **parameters) as controller, connected(controller.port) as client:
            return client.codes(*AUTHS[name])

    expected = run(serving_by_aiosmtpd)
    assert 235 in expected or name == "before ehlo"
    assert run(serving) == expected
