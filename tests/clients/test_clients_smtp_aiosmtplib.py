"""aiosmtplib against `fastlisten serve`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import pytest
from support.certificates import authority
from support.real_server import (
    ALICE,
    BOB,
    HOST,
    MESSAGE,
    PASSWORDS,
    SENDER,
    ZOE,
    Mail,
    server_fixture,
    without_old_mail,
)
from support.waiting import PATIENCE, eventually

server = server_fixture("mx", "submission", "submissions")
mail = without_old_mail


def client(mail: Mail, listener: str, **options: Any) -> aiosmtplib.SMTP:
    """Return a client that verifies the certificate, and uses STARTTLS if offered."""
    return aiosmtplib.SMTP(
        hostname=HOST,
        port=mail.port(listener),
        local_hostname="client.example.com",
        timeout=PATIENCE,
        use_tls=listener == "submissions",
        tls_context=authority().client_context(),
        **options,
    )


def run(talk: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine and wait until its connections are closed, which aiosmtplib does not."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        before = descriptors()
        await talk()
        await eventually(lambda: descriptors() == before, "the ends of connections")

    asyncio.run(main())


@pytest.mark.parametrize("mechanism", ["plain", "login"])
@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_user_sends_a_message(mail: Mail, listener: str, mechanism: str) -> None:
    async def talk() -> None:
        async with client(mail, listener) as smtp:
            await smtp.ehlo()
            auth = smtp.auth_plain if mechanism == "plain" else smtp.auth_login
            assert (await auth(ALICE, PASSWORDS[ALICE])).code == 235
            errors, _ = await smtp.sendmail(ALICE, [BOB, ALICE], MESSAGE)
            assert errors == {}

    run(talk)
    for account in (ALICE, BOB):
        trace, content = mail.the_one(account)
        assert content == MESSAGE
        assert " with ESMTPSA id " in trace


def test_passwords_outside_ascii(mail: Mail) -> None:
    async def talk() -> None:
        async with client(mail, "submission") as smtp:
            await smtp.ehlo()
            assert (await smtp.auth_plain(ZOE, PASSWORDS[ZOE])).code == 235
            errors, _ = await smtp.sendmail(ZOE, [BOB], MESSAGE, mail_options=["SMTPUTF8"])
            assert errors == {}

    run(talk)
    trace, content = mail.the_one(BOB)
    assert content == MESSAGE
    assert f"Return-Path: <{ZOE}>\n" in trace
    assert " with UTF8SMTPSA id " in trace


def test_rejected_commands(mail: Mail) -> None:
    async def talk() -> None:
        async with client(mail, "submission", start_tls=False) as smtp:
            with pytest.raises(aiosmtplib.SMTPException, match="AUTH"):
                await smtp.login(ALICE, PASSWORDS[ALICE])
        async with client(mail, "submission") as smtp:
            await smtp.ehlo()
            with pytest.raises(aiosmtplib.SMTPAuthenticationError) as refused:
                await smtp.auth_login(ALICE, "wrong")
            assert refused.value.code == 535
            with pytest.raises(aiosmtplib.SMTPSenderRefused) as stranger:
                await smtp.sendmail(SENDER, [ALICE], MESSAGE)
            assert stranger.value.code == 530
        async with client(mail, "mx") as smtp:
            with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as nobody:
                await smtp.sendmail(SENDER, ["nobody@example.org", "one@example.net"], MESSAGE)
            assert [error.code for error in nobody.value.recipients] == [550, 550]
            assert [error.message[:6] for error in nobody.value.recipients] == ["5.1.1 ", "5.7.1 "]

    run(talk)
    assert mail.everything() == {}


def test_many_concurrent_sessions(mail: Mail) -> None:
    """20 sessions of 10 messages each, and a function for one message."""

    async def session(number: int) -> None:
        async with client(mail, "mx") as smtp:
            for message in range(10):
                await smtp.sendmail(
                    SENDER, [ALICE], b"Subject: %d\r\n\r\n" % (10 * number + message)
                )

    async def talk() -> None:
        await asyncio.gather(*(session(number) for number in range(20)))
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = ALICE, BOB, "one"
        message.set_content("text\n")
        errors, _ = await aiosmtplib.send(
            message,
            hostname=HOST,
            port=mail.port("submissions"),
            use_tls=True,
            tls_context=authority().client_context(),
            username=ALICE,
            password=PASSWORDS[ALICE],
        )
        assert errors == {}

    run(talk)
    assert sorted(mail.arrived()) == sorted(
        b"Subject: %d\r\n\r\n" % number for number in range(200)
    )
    assert mail.the_one(BOB)[1].endswith(b"\r\n\r\ntext\r\n")
