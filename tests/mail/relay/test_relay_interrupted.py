"""Mail that is not relayed although the relay would accept it: clients that disconnect, internal
errors, and too many sessions.

Rules of this file: as in test_relay_failures.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from pathlib import Path

import pytest
from support.relay import (
    AUTH,
    FOREIGN,
    client_of,
    plain,
    rcpt,
    relaying,
    serving,
    session,
    sessions_of,
    set_relay_timeout,
)
from support.smtp_client import SmtpClient
from support.smtp_harness import MAIL
from support.waiting import until

from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay import message_source as smtp_source
from fastlisten.mail.relay import relay as smtp_relay
from fastlisten.mail.relay import session as relay_session
from fastlisten.mail.relay.relay_error import RelayError

LOCAL = "alice@example.org"


MESSAGE = b"Subject: x\r\n\r\ntext\r\n.\r\n"


@pytest.mark.parametrize("moment", ["220", "EHLO", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("how", ["closes", "resets"])
def test_client_disconnects_while_the_relay_replies(tmp_path: Path, moment: str, how: str) -> None:
    reached, held = threading.Event(), threading.Event()

    def pause(command: str) -> None:
        if command.startswith(moment):
            reached.set()
            held.wait(20)

    with relaying(pause=pause) as relay, serving(tmp_path, relay, tls=None) as served:
        # Without TLS, where a reset differs.
        handler = served.handler
        vars(handler)["limits"] = dataclasses.replace(handler.limits, auth_in_clear=True)
        client = SmtpClient(served.connect())
        client.say(b"EHLO c")
        assert client.say(AUTH).startswith(b"235 ")
        client.sock.sendall(MAIL + rcpt(FOREIGN) + rcpt(LOCAL))
        client.sock.sendall(b"DATA\r\n")
        if moment in ("DATA", "."):
            for _ in range(4):
                client.reply()
            client.sock.sendall(MESSAGE)
        assert reached.wait(20)
        if how == "closes":
            client.close()
        else:
            client.reset()
        if how == "closes":
            # Commands sent before the close are still carried out, as for any half-closed client.
            held.set()
        until(lambda: served.protocols == [])
        until(lambda: sessions_of(served) == 0)
        held.set()
        until(lambda: not served.left_over())
        # Without our reply the client retries: better twice than never.
        assert len(relay.messages) >= len(served.delivered())


def test_quit_is_sent_after_reset_and_quit(tmp_path: Path) -> None:
    for command in (b"RSET", b"EHLO c", b"QUIT"):
        with relaying() as relay, session(tmp_path, relay) as (_, client):
            client.say(MAIL)
            client.say(rcpt(FOREIGN))
            assert client.say(command)[:1] == b"2"
            until(relay.at_rest)
            assert relay.commands[-1] == "QUIT"
            assert relay.messages == []


def test_message_refused_here_is_not_relayed(tmp_path: Path) -> None:
    with relaying() as relay, session(tmp_path, relay, max_message_size=65536) as (_, client):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        client.say(b"DATA")
        assert client.say(b"x" * 70000 + b"\r\n.\r\n").startswith(b"552 5.3.4 ")
        until(relay.at_rest)
        assert relay.messages == []


def test_spooled_message_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, offset: int) -> bytes:
        raise OSError(5, "no")

    monkeypatch.setattr(smtp_source.MessageSource, "read", fail)
    with relaying() as relay, session(tmp_path, relay) as (_, client):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"451 4.3.0 ")
        until(relay.at_rest)
        assert relay.messages == []


@pytest.mark.parametrize("step", ["recipient", "send"])
def test_internal_error_gets_451_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
) -> None:
    async def fail(self: object, given: object) -> None:
        raise ZeroDivisionError("oops")

    with relaying() as relay, session(tmp_path, relay) as (served, client):
        monkeypatch.setattr(relay_session.RelaySession, step, fail)
        client.say(MAIL)
        assert client.say(rcpt(LOCAL)).startswith(b"250 ")
        asked = client.say(rcpt(FOREIGN))
        if step == "recipient":
            assert asked.startswith(b"451 4.3.0 ")
            monkeypatch.undo()
            assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        else:
            client.say(b"DATA")
            assert client.say(MESSAGE).startswith(b"451 4.3.0 ")
            assert served.delivered() == []
            monkeypatch.undo()
            client.say(MAIL)
            client.say(rcpt(LOCAL))
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"250 ")
        assert len(served.delivered()) == 1
    assert "ZeroDivisionError: oops" in caplog.text


def test_truncated_message_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_bytes(b"0123456789")
    source = smtp_source.MessageSource(str(file), 4, 8)
    assert source.read(0) == b"456789"
    with pytest.raises(OSError, match="too short"):
        source.read(6)


def test_sessions_of_a_process_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_relay, "SESSIONS", 1)
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        with client_of(served) as other:
            other.say(MAIL)
            set_relay_timeout(served, 0.1)
            assert other.say(rcpt(FOREIGN)).startswith(b"451 4.3.2 ")
            set_relay_timeout(served, 20.0)
            client.say(b"RSET")
            assert other.say(rcpt(FOREIGN)).startswith(b"250 ")
        assert relay.begun == 2


def test_sessions_of_a_user_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_relay, "SESSIONS_OF_USER", 1)
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        with (
            client_of(served) as other,
            client_of(served, plain("bob@example.org", "builder")) as bob,
        ):
            for each, expected in ((other, b"451 4.3.2 "), (bob, b"250 ")):
                each.say(MAIL)
                assert each.say(rcpt(FOREIGN)).startswith(expected)
            client.say(b"RSET")
            until(lambda: sessions_of(served) == 1)
            assert other.say(rcpt(FOREIGN)).startswith(b"250 ")
        until(lambda: sessions_of(served) == 0)
        assert served.handler.relay is not None
        assert not served.handler.relay._users


def test_unanswered_quit_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_session, "_QUIT_TIMEOUT", 0.05)
    held = threading.Event()
    with relaying() as relay:
        relay.pause = lambda command: held.wait(20) if command == "QUIT" else None
        with session(tmp_path, relay) as (served, client):
            client.say(MAIL)
            client.say(rcpt(FOREIGN))
            client.say(b"DATA")
            assert client.say(MESSAGE).startswith(b"250 ")
            until(lambda: sessions_of(served) == 0)
        held.set()


def test_session_aborted_while_connecting() -> None:
    """Python 3.11's wait_for may lose the cancellation: the session must end by itself."""

    async def main() -> None:
        settings = smtp_relay.RelaySettings("127.0.0.1", relay.port, "none", "me")
        of = smtp_relay.Relay(settings)
        handover = relay_session.RelaySession(of, Envelope("a@b.example"))
        loop = asyncio.get_running_loop()
        relay.pause = lambda _: loop.call_soon_threadsafe(handover.abort)
        with pytest.raises((asyncio.CancelledError, RelayError)):
            await handover.recipient(EnvelopeRecipient(parse_mailbox(FOREIGN)))
        handover.abort()
        assert of.sessions == 0

    with relaying() as relay:
        asyncio.run(main())
