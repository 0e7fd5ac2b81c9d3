"""What administrators watch about the server itself has an event and fields.

Rules of this file: things that really happen; the names of events are in test_log_events.py.
"""

from __future__ import annotations

import base64
import json
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
from support.accounts import write_accounts
from support.http import App, client_of, serving_app
from support.loops import on_loops
from support.management import listener
from support.program import program
from support.relay import FOREIGN, rcpt, relaying, serving
from support.relay import client_of as mail_client
from support.server import connect, read_some, served
from support.smtp_harness import MAIL
from support.waiting import eventually, until

from fastlisten.mail.accounts.accounts_file import Accounts

CHALLENGE = base64.b64encode(b"<challenge>").decode()


def logged(caplog: pytest.LogCaptureFixture, *events: str) -> list[dict[str, Any]]:
    """Return the fields of the records of some events, each with its level and event."""
    return [
        {"level": one.levelname, "event": vars(one)["event"], **vars(one)["fields"]}
        for one in caplog.records
        if vars(one).get("event") in events
    ]


@on_loops
async def test_management_actions_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastlisten")
    head = f'[server]\ndata-directory = "{tmp_path}"\ntls.enable = false\n'
    async with served(head + listener("it")) as server:
        control, (only,) = server.control, server.listeners
        async_port = only.sockets[0].port
        with await connect("127.0.0.1", async_port) as client:
            client.send(b"x")
            assert await read_some(client, 1) == b"x"
            await control.pause("it", "a test")
            await control.resume("it", "a test")
            await control.set_limit("it", 7, "a test")
            await control.drain("it", "a test")
            client.close()
            await eventually(
                lambda: "listener-closed" in str(caplog.records[-1].__dict__), "its end"
            )
    by = {"level": "INFO", "listener": "it", "by": "a test"}
    assert logged(caplog, *(f"listener-{what}" for what in ("paused", "resumed", "draining")),
                "limit-changed", "listener-closed") == [
        {"event": "listener-paused", **by},
        {"event": "listener-resumed", **by},
        {"event": "limit-changed", "limit": 7, **by},
        {"event": "listener-draining", **by},
        {"event": "listener-closed", "level": "INFO", "listener": "it"},
    ]  # fmt: skip


def test_signals_and_accounts_are_logged(tmp_path: Path) -> None:
    text = (
        '[log]\nformat = "json"\n[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
        "tls.enable = false\n"
    )
    with program(tmp_path, text) as started:
        for number in (signal.SIGUSR1, signal.SIGHUP):
            started.signal(number)
            until(lambda: number.name in started.err, "the signal")  # noqa: B023
        assert started.stop() == 0
        records = [json.loads(line) for line in started.err.splitlines()]
    signals = [one for one in records if one["event"] == "signal-received"]
    assert [one["signal"] for one in signals] == ["SIGUSR1", "SIGHUP", "SIGTERM"]
    assert signals[0]["message"] == "SIGUSR1: ignored"


def test_changes_of_accounts_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten")
    path = tmp_path / "accounts.toml"
    accounts = Accounts(path)
    write_accounts(path, '[account."a@example.org"]\n')
    accounts.reload()
    write_accounts(path, '[account."a@example.org"]\n[account."b@example.org"]\n')
    accounts.reload()
    (changed,) = logged(caplog, "accounts-changed")
    expected = {"level": "INFO", "file": str(path), "count": 2}
    assert changed == {"event": "accounts-changed", **expected}


@on_loops
async def test_failed_application_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_app(App()) as at, client_of(at) as client:
        client.send(b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.read()
        port = client.writer.get_extra_info("sockname")[1]
    (failed,) = logged(caplog, "application-failed")
    assert (failed["level"], failed["listener"]) == ("ERROR", "test")
    assert (failed["peer"], failed["port"]) == ("127.0.0.1", port)
    (record,) = [one for one in caplog.records if vars(one).get("event") == "application-failed"]
    assert record.exc_info
    assert record.exc_info[1] is not None


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_relay_login_failure_is_logged_without_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mechanism: str
) -> None:
    """The relay repeats what was sent to it, as some servers do with what they do not
    understand."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    with relaying(extensions=(f"AUTH {mechanism}",)) as relay:

        def repeat(command: str) -> None:
            if not command.upper().startswith(("EHLO", "220", "QUIT", "AUTH LOGIN", "AUTH CRAM")):
                said.extend(command.split())
                relay.answers[""] = f"535 5.7.8 no: {command} {command[:14]} quiet secret"
            elif command.startswith("AUTH"):
                relay.answers["AUTH"] = f"334 {CHALLENGE}"

        relay.pause = repeat
        login = {"relay_user": "us@relay.example", "relay_password": "quiet secret"}
        with serving(tmp_path, relay, **login) as at, mail_client(at) as client:
            client.say(MAIL)
            assert client.say(rcpt(FOREIGN)).startswith(b"451 4.4.1 ")
    (failed,) = logged(caplog, "relay-failed")
    assert (failed["level"], failed["relay"]) == ("WARNING", f"127.0.0.1:{relay.port}")
    assert failed["error"].startswith("535 no: ")
    assert "***" in failed["error"]
    assert [word for word in said if len(word) > 8 and word in caplog.text] == []
    assert "quiet" not in caplog.text
    (rejected,) = logged(caplog, "rejected")
    assert (rejected["reason"], rejected["to"]) == ("local-error", [FOREIGN])


def test_relay_failure_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastlisten")
    with (
        relaying(answers={"RCPT": "550 5.1.1 no such user"}) as relay,
        serving(tmp_path, relay) as at,
        mail_client(at) as client,
    ):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
    assert len([line for line in caplog.messages if "no such user" in line]) == 1
