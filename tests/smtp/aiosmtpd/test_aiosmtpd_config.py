"""Handlers named in the configuration: `smtp.aiosmtpd-handler` and `smtp.aiosmtpd-args`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.aiosmtpd import ENVELOPE, b64
from support.certificates import authority, table, write
from support.loops import on_loops
from support.program import Program, program
from support.smtp_client import MESSAGE, connected

from fastlisten import testing
from fastlisten.config import loads
from fastlisten.errors import ConfigurationError
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.mail.accounts.passwords import hash_password
from fastlisten.runtime.server import Server

HELLO, MAIL, RCPT = ENVELOPE

LISTENERS = """
[smtp]
aiosmtpd-handler = "support.aiosmtpd_handlers:Describes"

[server.listener.mx]
protocol = "smtp"
bind = "127.0.0.1:0"
smtp.max-message-size = "64KiB"
smtp.greeting-delay = "200ms"
smtp.relay = "127.0.0.1:9"

[server.listener.words]
protocol = "smtp"
bind = "127.0.0.1:0"
smtp.aiosmtpd-args = "one 'two words'"

[server.listener.cli]
protocol = "smtp"
bind = "127.0.0.1:0"
smtp.aiosmtpd-handler = "support.aiosmtpd_handlers:FromCli"
smtp.aiosmtpd-args = "word"

[server.listener.submission]
protocol = "smtp"
bind = "127.0.0.1:0"
smtp.role = "submission"

[server.listener.submissions]
protocol = "smtp"
bind = "127.0.0.1:0"
smtp.role = "submission"
smtp.aiosmtpd-handler = "support.aiosmtpd_handlers:HasMechanism"
tls.implicit = true

[server.listener.local]
protocol = "lmtp"
bind = "127.0.0.1:0"
lmtp.aiosmtpd-handler = "support.aiosmtpd_handlers:Describes"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("aiosmtpd")
    write(directory, authority().sign("mx.example.org", "localhost"))
    accounts = f"""
        [account."alice@example.org"]
        aliases = ["al@example.org"]
        password = "{hash_password("secret")}"
    """
    text = table(directory) + LISTENERS
    with program(directory, text, accounts=accounts, listeners=6) as started:
        yield started
        assert started.stop() == 0
        assert "Traceback" not in started.err


def plain(name: str, password: str) -> str:
    return f"AUTH PLAIN {b64(f'{chr(0)}{name}{chr(0)}{password}'.encode())}"


def test_handler_gets_the_mail(served: Program) -> None:
    with connected(served.port("mx")) as client:
        assert client.greeting == ["mx.example.org ESMTP"]
        assert client.codes(HELLO, MAIL, "RCPT TO:<anybody@anywhere.example>") == [250, 250, 250]
        assert client.data() == (
            250,
            ["nobody: a@example.com to anybody@anywhere.example, 20, made with - -"],
        )
        assert client.codes(MAIL, RCPT) == [250, 250]
        assert client.data(b"x" * 65536 + b"\r\n")[0] == 552
        # Port 25 offers no AUTH, not even over TLS.
        assert client.codes("STARTTLS") == [220]
        client.starttls()
        assert not any("AUTH" in line for line in client.ask(HELLO)[1])
    assert served.messages() == []


def test_settings_without_effect_are_reported(served: Program) -> None:
    note = "smtp.relay has no effect: support.aiosmtpd_handlers:Describes handles the mail"
    assert f'listener "mx": {note}' in served.out
    assert served.out.count("has no effect") == 1


@pytest.mark.parametrize(
    ("listener", "words"), [("words", "one two words"), ("cli", "word from_cli")]
)
def test_handler_is_created_with_its_arguments(served: Program, listener: str, words: str) -> None:
    with connected(served.port(listener)) as client:
        client.codes(*ENVELOPE)
        assert client.data()[1][0].endswith(f"made with {words}")


def test_submission_authenticates_against_accounts(served: Program) -> None:
    with connected(served.port("submission")) as client:
        assert client.codes(HELLO, MAIL, plain("alice@example.org", "secret")) == [250, 530, 538]
        assert client.codes("STARTTLS") == [220]
        client.starttls()
        assert "AUTH LOGIN PLAIN" in client.ask(HELLO)[1]
        assert client.codes(MAIL, plain("alice@example.org", "wrong")) == [530, 535]
        for_another = b64(b"bob@example.org\0alice@example.org\0secret")
        assert client.codes(f"AUTH PLAIN {for_another}") == [535]
        assert client.codes("AUTH LOGIN", b64(b"al@example.org"), b64(b"secret")) == [334, 334, 235]
        assert client.codes(MAIL, "RCPT TO:<b@anywhere.example>") == [250, 250]
        assert client.data()[1][0].startswith("alice@example.org: a@example.com to")
    lines = served.err.splitlines()
    (session,) = {one.rpartition(" ")[2] for one in lines if ": logged in as alice@" in one}
    failed = [one for one in lines if ": authentication failed, user='alice@" in one]
    assert [one.rpartition(" ")[2] for one in failed] == [session]


def test_handler_mechanisms_replace_the_accounts(served: Program) -> None:
    with connected(served.port("submissions"), tls=authority().client_context()) as client:
        assert "AUTH KNOCK" in client.ask(HELLO)[1]
        assert client.codes(MAIL, plain("alice@example.org", "secret")) == [530, 504]
        assert client.codes("AUTH KNOCK", b64(b"you"), "AUTH KNOCK", b64(b"me"), MAIL) == [
            334,
            535,
            334,
            235,
            250,
        ]


def test_lmtp_replies_per_recipient(served: Program) -> None:
    with connected(served.port("local")) as client:
        assert client.greeting == ["mx.example.org LMTP"]
        assert client.codes("LHLO x.example", MAIL, RCPT, "RCPT TO:<c@example.org>") == [250] * 4
        first, second = client.data(), client.answer()
        assert first == second
        assert first[1] == [
            f"nobody: a@example.com to b@example.org,c@example.org, {len(MESSAGE)}, made with - -"
        ]


@pytest.mark.parametrize(
    ("handler", "arguments", "key", "text"),
    [
        (
            "support.aiosmtpd_handlers.Describes",
            None,
            "handler",
            'write "package.module:Class", as in',
        ),
        ("Describes", None, "handler", 'write "package.module:Class"'),
        ("support.aiosmtpd_handlers:Absent", None, "handler", "has no attribute 'Absent'"),
        ("absent_handlers:Describes", None, "handler", 'no module "absent_handlers"'),
        ("support.aiosmtpd_handlers:NOT_A_CLASS", None, "handler", "is not a class"),
        ("support.aiosmtpd_handlers:Describes", "a b c", "args", "does not accept them"),
        ("support.aiosmtpd_handlers:Describes", "'a", "args", "cannot be split into words"),
    ],
)
def test_configuration_errors(handler: str, arguments: str | None, key: str, text: str) -> None:
    config = '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
    config += f'smtp.aiosmtpd-handler = "{handler}"\n'
    if arguments is not None:
        config += f'smtp.aiosmtpd-args = "{arguments}"\n'
    with pytest.raises(ConfigurationError) as caught:
        Server(loads(config))
    (problem,) = caught.value.problems
    assert problem.key == f"server.listener.it.smtp.aiosmtpd-{key}"
    assert problem.line == (5 if key == "args" else 4)
    assert text in str(problem)


@pytest.mark.parametrize(
    ("handler", "arguments", "text"),
    [
        ("CannotStart", None, "OSError: there is no database"),
        ("FromCli", "a b", "FromCli usage: one word"),
    ],
)
def test_failing_handler_constructor_prevents_start(
    tmp_path: Path, handler: str, arguments: str | None, text: str
) -> None:
    config = f"""
        [server.listener.it]
        protocol = "smtp"
        bind = "127.0.0.1:0"
        tls.enable = false
        smtp.aiosmtpd-handler = "support.aiosmtpd_handlers:{handler}"
        {f'smtp.aiosmtpd-args = "{arguments}"' if arguments else ""}
    """
    with program(tmp_path, config, listeners=0) as ended:
        assert ended.ended() == 3
        assert "cannot start: smtp.aiosmtpd-handler = " in ended.err
        assert text in ended.err
        assert "Traceback" not in ended.err


@on_loops
async def test_drain_waits_for_a_running_hook() -> None:
    options = {"aiosmtpd-handler": "support.aiosmtpd_handlers:Waits"}
    lines = "\r\n".join([*ENVELOPE, "DATA", ""]).encode()
    async with testing.serve(SmtpHandler, options=options) as served:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        writer.write(lines + MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        idle, other = await asyncio.open_connection(served.host, served.port)
        assert (await idle.readline()).startswith(b"220 ")
        site: Any = served.handler._configured._served  # type: ignore[attr-defined]
        await site.handler.began.wait()
        assert served.listener.drain() == 1
        assert (await idle.readline()).startswith(b"421 ")
        site.handler.go.set()
        while not (line := await reader.readline()).startswith(b"250 nobody: a@example.com to "):
            assert line.startswith((b"2", b"354"))
        for one in (writer, other):
            one.close()
            await one.wait_closed()
