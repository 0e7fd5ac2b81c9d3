"""The parameters of aiosmtpd's SMTP class: each takes effect, or is refused with the reason."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.aiosmtpd import ENVELOPE, PLAIN, Recorder, server_context, serving
from support.certificates import authority
from support.smtp_client import connected

from fastlisten.handlers import smtp
from fastlisten.handlers.smtp.aiosmtpd.aiosmtpd_parameters import NO_LIMIT, AiosmtpdParameters
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING, AuthResult

pytestmark = pytest.mark.usefixtures("descriptors_back")

HELLO, MAIL, RCPT = ENVELOPE


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
    return AuthResult(success=data.password == b"secret", handled=False, auth_data=data)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"proxy_protocol_timeout": 5}, TypeError, "PROXY is read by the listener"),
        ({"spam": 1}, TypeError, "'spam' is not a parameter"),
        ({"data_size_limit": "1"}, TypeError, "number of octets"),
        ({"data_size_limit": True}, TypeError, "number of octets"),
        ({"data_size_limit": -1}, ValueError, "at most"),
        ({"data_size_limit": NO_LIMIT + 1}, ValueError, "at most"),
        ({"tls_context": "x"}, TypeError, "SSLContext"),
        ({"require_starttls": True}, TypeError, "needs a tls_context"),
        ({"timeout": 0}, ValueError, "positive"),
        ({"max_recipients": 0}, ValueError, "at least 1"),
        ({"auth_exclude_mechanism": "PLAIN"}, TypeError, "list of names"),
        ({"authenticator": 1}, TypeError, "function"),
        ({"auth_callback": 1}, TypeError, "function"),
        ({"ident": "a\r\nb"}, ValueError, "printable"),
        ({"server_hostname": "a\nb"}, ValueError, "printable"),
        ({"command_call_limit": {"MAIL": 1.5}}, TypeError, "must be int"),
        ({"command_call_limit": "5"}, TypeError, "must be int"),
        ({"protocol": "imap"}, ValueError, "smtp"),
    ],
)
def test_invalid_arguments(given: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        smtp.Controller(Recorder(), **given)


def test_serve_smtp_takes_no_loop() -> None:
    async def serve() -> None:
        async with smtp.serve_smtp(Recorder(), loop=asyncio.get_running_loop()):
            pass

    with pytest.raises(TypeError, match="running loop"):
        asyncio.run(serve())


def test_overridden_factory_is_refused() -> None:
    class Old(smtp.Controller):
        def factory(self) -> Any:
            return None

    with pytest.raises(TypeError, match="factory"):
        Old(Recorder())


def test_invalid_mechanism_name() -> None:
    class Bad:
        async def auth_TOO_LONG_A_NAME_FOR_ONE(self, server: Any, args: list[str]) -> Any:
            return None

    with pytest.raises(TypeError, match="RFC 4422"):
        smtp.Controller(Bad())


def test_call_limit_by_command() -> None:
    limits = AiosmtpdParameters(command_call_limit={"NOOP": 2, "*": 3})
    assert [limits.call_limit(verb) for verb in ("NOOP", "RSET")] == [2, 3]
    assert AiosmtpdParameters(command_call_limit={"NOOP": 2}).call_limit("RSET") == 20
    assert AiosmtpdParameters(command_call_limit=4).call_limit("RSET") == 4
    assert AiosmtpdParameters().call_limit("RSET") is None


@pytest.mark.parametrize(
    ("limit", "lines"),
    [
        ({"NOOP": 2}, ["NOOP", "RSET", "NOOP", "RSET", "NOOP"]),
        ({"*": 1}, [HELLO, MAIL, "RSET", MAIL]),
        (1, [HELLO, MAIL, RCPT, "RCPT TO:<c@example.org>"]),
        (1, ["HELP", "HELP"]),
        ({"STARTTLS": 0}, [HELLO, "STARTTLS"]),
        ({"AUTH": 0}, [HELLO, PLAIN]),
    ],
)
def test_client_over_command_call_limit_gets_421(limit: Any, lines: list[str | bytes]) -> None:
    parameters: dict[str, Any] = {"tls_context": server_context(), "auth_require_tls": False}
    with (
        serving(
            Recorder(), command_call_limit=limit, authenticator=authenticate, **parameters
        ) as controller,
        connected(controller.port) as client,
    ):
        *before, last = client.codes(*lines)
        assert all(code < 300 for code in before)
        assert last == 421
        assert client.answer() == (0, [])


def test_data_over_command_call_limit_gets_421() -> None:
    handler = Recorder()
    with (
        serving(handler, command_call_limit={"DATA": 1}) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(*ENVELOPE) == [250, 250, 250]
        assert client.data()[0] == 250
        assert client.codes(MAIL, RCPT) == [250, 250]
        assert client.data()[0] == 421
    assert len(handler.messages) == 1


def test_ehlo_extensions_follow_the_parameters() -> None:
    def offers(**parameters: Any) -> list[str]:
        with (
            serving(Recorder(), **parameters) as controller,
            connected(controller.port) as client,
        ):
            return client.ask(HELLO)[1][1:]

    plain = offers(data_size_limit=1000)
    assert plain == [
        "PIPELINING",
        "SIZE 1000",
        "8BITMIME",
        "CHUNKING",
        "SMTPUTF8",
        "LIMITS RCPTMAX=1000",
        "HELP",
    ]
    assert f"SIZE {NO_LIMIT}" in offers(data_size_limit=None)
    assert "SMTPUTF8" not in offers(enable_SMTPUTF8=False)
    assert "8BITMIME" not in offers(decode_data=True)
    context = server_context()
    assert offers(tls_context=context)[0] == "STARTTLS"
    # Over TLS only, by default.
    assert not any("AUTH" in offer for offer in offers(authenticator=authenticate))
    clear: dict[str, Any] = {"auth_require_tls": False}
    assert "AUTH LOGIN PLAIN" in offers(authenticator=authenticate, **clear)
    assert "AUTH LOGIN PLAIN" in offers(auth_callback=lambda *given: True, **clear)
    assert "AUTH PLAIN" in offers(
        authenticator=authenticate, auth_exclude_mechanism=["LOGIN"], **clear
    )
    # Without an authenticator, no password could be right.
    assert not any("AUTH" in offer for offer in offers(**clear))


def test_ident_and_server_hostname() -> None:
    handler = Recorder()
    parameters = {"server_hostname": "mx.example.org", "ident": "Mine 1.0"}
    with serving(handler, **parameters) as controller, connected(controller.port) as client:
        assert client.greeting == ["mx.example.org Mine 1.0"]
        assert client.ask("HELO x.example") == (250, ["mx.example.org"])
    with (
        serving(handler, protocol="lmtp", server_hostname="mx.example.org") as controller,
        connected(controller.port) as client,
    ):
        assert client.greeting == ["mx.example.org LMTP fastlisten"]


def test_decode_data() -> None:
    handler = Recorder()
    with serving(handler, decode_data=True) as controller, connected(controller.port) as client:
        client.codes(*ENVELOPE)
        assert client.data("sch\u00f6n \udcff\r\n".encode("utf-8", "surrogateescape"))[0] == 250
        assert client.codes("MAIL FROM:<a@example.com> BODY=8BITMIME") == [555]
    assert handler.only().content == "sch\u00f6n \udcff\r\n"
    assert handler.only().original_content == b"sch\xc3\xb6n \xff\r\n"


def test_decode_data_without_smtputf8() -> None:
    handler = Recorder()
    with (
        serving(handler, decode_data=True, enable_SMTPUTF8=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, "MAIL FROM:<a@example.com> SMTPUTF8", MAIL, RCPT) == [
            250,
            501,
            250,
            250,
        ]
        assert client.data("sch\u00f6n\r\n".encode())[0] == 500
        assert client.codes(MAIL, RCPT) == [250, 250]
        assert client.data(b"plain\r\n")[0] == 250
    assert handler.only().content == "plain\r\n"


def test_data_size_limit() -> None:
    handler = Recorder()
    with (
        serving(handler, data_size_limit=100) as controller,
        connected(controller.port) as client,
    ):
        client.codes(*ENVELOPE)
        assert client.data(b"x" * 101 + b"\r\n")[0] == 552
        assert client.codes(MAIL, RCPT) == [250, 250]
        assert client.data(b"x" * 98 + b"\r\n")[0] == 250
    assert len(handler.only().content) == 100


def test_bdat_message() -> None:
    handler = Recorder()
    with serving(handler) as controller, connected(controller.port) as client:
        client.codes(*ENVELOPE)
        client.sock.sendall(b"BDAT 9\r\nSubject: BDAT 6 LAST\r\n.x\r\n\r\n")
        assert [client.answer()[0] for _ in range(2)] == [250, 250]
    assert handler.only().content == b"Subject: .x\r\n\r\n"


def test_lmtp_replies_for_each_recipient() -> None:
    class Handler(Recorder):
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> Any:
            assert session.extended_smtp
            await super().handle_DATA(server, session, envelope)
            return "250 taken" if len(self.messages) == 1 else "550 enough"

    with serving(Handler(), protocol="lmtp") as controller, connected(controller.port) as client:
        assert client.codes(HELLO, "LHLO x.example", MAIL, RCPT, RCPT) == [500, 250, 250, 250, 250]
        assert client.data() == (250, ["taken"])
        assert client.answer() == (250, ["taken"])
        assert client.codes(MAIL, RCPT, "RCPT TO:<c@example.org>") == [250, 250, 250]
        assert client.data()[0] == 550
        assert client.answer()[0] == 550
        assert client.codes("NOOP") == [250]


def test_implicit_tls_counts_as_tls() -> None:
    """aiosmtpd does not count it as TLS and refuses AUTH."""
    handler = Recorder()
    parameters = {"authenticator": authenticate, "auth_required": True, "require_starttls": True}
    with (
        serving(handler, ssl_context=server_context(), **parameters) as controller,
        connected(controller.port, tls=authority().client_context()) as client,
    ):
        lines = client.ask(HELLO)[1]
        assert "AUTH LOGIN PLAIN" in lines
        assert "STARTTLS" not in lines
        assert client.codes(MAIL, PLAIN, MAIL, RCPT) == [530, 235, 250, 250]
        assert client.data()[0] == 250
    assert handler.messages[0][1].ssl["cipher"][0].startswith("TLS")
    assert handler.messages[0][1].auth_data == (b"user", b"secret")


def test_authenticator_may_be_a_coroutine_function() -> None:
    async def later(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        await asyncio.sleep(0.001)
        return authenticate(server, session, envelope, mechanism, data)

    with (
        serving(Recorder(), authenticator=later, auth_require_tls=False) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, PLAIN) == [250, 235]


@pytest.mark.parametrize("wrong", [None, True, MISSING])
def test_authenticator_without_a_result_is_an_error(wrong: Any) -> None:
    with (
        serving(
            Recorder(), authenticator=lambda *arguments: wrong, auth_require_tls=False
        ) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes(HELLO, PLAIN, PLAIN) == [250, 500, 500]
