"""How sessions end, and what does not end them: shutdown, faults, refusals, clients that go away.

Rules of this file: what is sent last, what is logged, and that nothing is left of a session.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import cheap_hash, write_accounts
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, ImapServer, serve_imap
from support.kernel import open_below
from support.waiting import until

from fastlisten.handlers.base import HandlerSettings, Reason, SettingError
from fastlisten.handlers.engine_connection import READ_AHEAD
from fastlisten.handlers.imap import selected_commands
from fastlisten.handlers.imap.handler import ImapHandler
from fastlisten.mail.accounts import passwords
from fastlisten.mail.logins.logins import Logins


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        served.deliver(*[MESSAGE] * 3)
        yield served


def ends(server: ImapServer) -> dict[str, int]:
    assert server.handler is not None
    return server.handler.counts.ends


def test_shutdown(tmp_path: Path) -> None:
    with serve_imap(tmp_path) as server:
        client, idle = server.lines("INBOX"), server.lines("INBOX")
        idle.send(b"i IDLE\r\n")
        assert idle.response() == b"+ idling"
        server.stop()
        for one in (client, idle):
            assert one.stream.read() == b"* BYE [UNAVAILABLE] Server shutting down.\r\n"
    assert open_below(tmp_path) == []


@pytest.mark.parametrize("reason", Reason)
def test_refusals_and_farewells(reason: Reason, tmp_path: Path) -> None:
    handler = ImapHandler(HandlerSettings("x", "imap", "h", data_directory=str(tmp_path)))
    for octets in (handler.refusal(reason), handler.farewell(reason)):
        assert octets.startswith(b"* BYE ")
        assert octets.endswith(b"\r\n")
        assert octets.count(b"\r\n") == 1


def test_passwords_cannot_be_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "available", lambda: False)
    with pytest.raises(SettingError, match=r"fastlisten\[auth\]"):
        ImapHandler(HandlerSettings("x", "imap", "h"))


def test_too_many_bad_commands(server: ImapServer) -> None:
    client = server.connect()
    client.send(b"a NONSENSE\r\n" * 3)
    lines = client.stream.read().splitlines()
    assert [line[:5] for line in lines] == [b"a BAD", b"a BAD", b"a BAD", b"* BYE"]
    client.close()
    until(lambda: ends(server) == {"rejected": 1})


def test_fault_ends_the_command_only(
    server: ImapServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*arguments: object) -> None:
        raise RuntimeError("a fault of ours")

    client = server.lines("INBOX")
    with monkeypatch.context() as patch:
        patch.setattr(selected_commands, "fetch", fail)
        assert client.say("FETCH 1 FLAGS")[-1] == b"NO [SERVERBUG] Internal error"
    assert "a fault of ours" in caplog.text
    assert len(client.ok("FETCH 1 FLAGS")) == 1


def test_message_that_becomes_shorter(server: ImapServer) -> None:
    """What has been announced cannot be sent: the session ends, the client knows it is not all."""
    server.deliver(b"Subject: long\r\n\r\n" + b"0123456789abcd\r\n" * 500_000)
    client = server.lines("INBOX")
    client.send(b"a FETCH 4 BODY.PEEK[]\r\n")
    client.stream.read(1000)
    (path,) = (path for path in (server.root / "cur").iterdir() if path.stat().st_size > 10_000)
    with path.open("r+b") as file:
        file.truncate(100_000)
    received = 0
    with contextlib.suppress(OSError):  # the connection is reset
        while piece := client.connection.recv(1 << 20):
            received += len(piece)
    assert received < 8_000_000
    until(lambda: ends(server).get("error") == 1)
    assert len(server.lines("INBOX").ok("FETCH 1:3 FLAGS")) == 3


def test_client_goes_away_while_its_password_is_verified(
    server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    ended: list[str] = []

    async def forever(self: Logins, name: str, *arguments: object) -> None:
        began.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    monkeypatch.setattr(Logins, "check", forever)
    client = server.connect()
    client.send(f"a LOGIN {ADDRESS} {PASSWORD}\r\n".encode())
    until(lambda: began)
    client.close()
    until(lambda: ended)


def test_more_pipelined_commands_than_are_read_ahead(server: ImapServer) -> None:
    client = server.lines("INBOX")
    tag = b"p" * 100
    commands = b"".join(b"%b%d NOOP\r\n" % (tag, number) for number in range(2000))
    assert len(commands) > 3 * READ_AHEAD
    client.send(commands + b"z LOGOUT\r\n")
    lines = client.stream.read().splitlines()
    assert len(lines) == 2002
    assert lines[-3] == tag + b"1999 OK NOOP completed."
    assert lines[-1] == b"z OK Logout completed."


@pytest.mark.parametrize("command", ["NOOP", "SELECT INBOX", "IDLE", "STATUS INBOX (MESSAGES)"])
def test_password_is_changed(server: ImapServer, command: str) -> None:
    """Whoever has the old one, which may have been stolen, gets nothing more."""
    client = server.lines("INBOX")
    client.ok("NOOP")
    write_accounts(
        server.directory / "accounts.toml",
        f'[account."{ADDRESS}"]\npassword = "{cheap_hash("other")}"\n',
    )
    assert server.handler is not None
    server.handler.office.accounts.reload()
    client.send(f"a {command}\r\n".encode())
    rest = client.stream.read()
    assert rest == b"* BYE [EXPIRED] Account has been changed, please log in again\r\n"
    client.close()
    until(lambda: ends(server) == {"rejected": 1})


def test_half_closed_connection(tmp_path: Path) -> None:
    with serve_imap(tmp_path, tls=None) as server:
        client = server.connect()
        client.send(b"a CAPABILITY\r\nb NOOP\r\n")
        client.connection.shutdown(socket.SHUT_WR)
        lines = client.stream.read().splitlines()
        assert [line[:4] for line in lines] == [b"* CA", b"a OK", b"b OK"]
        client.close()
        until(lambda: ends(server) == {"client-closed": 1})


def test_end_is_logged(server: ImapServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten.imap")
    client = server.lines("INBOX")
    client.close()
    until(lambda: f"user=<{ADDRESS}>" in caplog.text)
    assert " ended: client-closed; " in caplog.text or " ended: reset; " in caplog.text
