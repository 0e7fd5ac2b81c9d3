"""Messages with local and relayed recipients: all get the message or none, as the reply says."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from support.relay import FOREIGN, client_of, rcpt, relaying, serving
from support.smtp_harness import MAIL, body_of
from support.waiting import until

LOCAL = "alice@example.org"
MESSAGE = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 20_000
TEXT = MESSAGE + b".\r\n"


def send(client: Any, *recipients: str, text: bytes = TEXT) -> bytes:
    assert client.say(MAIL).startswith(b"250 ")
    for recipient in recipients:
        assert client.say(rcpt(recipient)).startswith(b"250 ")
    client.say(b"DATA")
    return bytes(client.say(text))


@pytest.mark.parametrize("order", [1, -1])
def test_delivered_here_and_relayed(
    tmp_path: Path, order: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastlisten.smtp")
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        to = (LOCAL, FOREIGN, "bob@example.org")[::order]
        reply = send(client, *to)
        assert reply.startswith(b"250 2.0.0 Ok, id ")
        assert reply.endswith(b"; the relay says: queued as 4711\r\n")
        (stored,), (other,) = served.delivered(), served.delivered("bob@example.org")
        assert stored == other
        assert body_of(stored) == MESSAGE
        ((_, recipients, content),) = relay.messages
        assert recipients == [f"RCPT TO:<{FOREIGN}>"]
        # The same, except for Return-Path, which only mailboxes get.
        assert stored == b"Return-Path: <sender@example.com>\r\n" + content
        assert b"for <" not in content.partition(b"\r\n\r\n")[0]
        assert f"accepted by relay 127.0.0.1:{relay.port}: queued as 4711" in caplog.text
        assert f"to {', '.join(at for at in to if at != FOREIGN)}, <{FOREIGN}>" in caplog.text


def test_local_copy_appears_after_the_relay_accepts(tmp_path: Path) -> None:
    reached, held = threading.Event(), threading.Event()

    def pause(command: str) -> None:
        if command == ".":
            reached.set()
            held.wait(20)

    with (
        relaying(pause=pause) as relay,
        serving(tmp_path, relay) as served,
        client_of(served) as client,
    ):
        client.say(MAIL)
        client.say(rcpt(LOCAL))
        client.say(rcpt(FOREIGN))
        client.say(b"DATA")
        client.sock.sendall(TEXT)
        assert reached.wait(20)
        # The message is on disk, but not delivered yet.
        (draft,) = served.left_over()
        assert body_of(draft.read_bytes()) == MESSAGE
        assert served.delivered() == []
        assert served.protocol().busy
        assert served.protocol().working
        held.set()
        assert client.reply().startswith(b"250 ")
        assert len(served.delivered()) == 1
        assert served.left_over() == []


def test_message_that_cannot_be_stored_is_not_relayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:

        def full(fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        assert send(client, LOCAL, FOREIGN).startswith(b"452 4.3.1 ")
        until(relay.at_rest)
        assert relay.messages == []
        monkeypatch.undo()
        assert send(client, LOCAL, FOREIGN).startswith(b"250 ")
        assert len(relay.messages) == len(served.delivered()) == 1


def test_local_failure_after_relaying_gets_451(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:

        def fail(*arguments: Any, **more: Any) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "rename", fail)
        assert send(client, LOCAL, FOREIGN).startswith(b"451 4.3.0 ")
        assert len(relay.messages) == 1
        assert served.delivered() == []
        monkeypatch.undo()
        assert served.left_over() == []
    assert "but not delivered here; a retry sends it there twice" in caplog.text


def test_pipelined_recipients_are_answered_in_order(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        relay.answers["RCPT TO:<DORA"] = "550 5.1.1 no"
        client.sock.sendall(
            MAIL
            + rcpt(FOREIGN, LOCAL, "dora@elsewhere.example", "nobody@example.org", "e@f.example")
            + b"DATA\r\nSubject: x\r\n\r\n.\r\nNOOP\r\n"
        )
        codes = [client.reply()[:3] for _ in range(9)]
        assert codes == [b"250", b"250", b"250", b"550", b"550", b"250", b"354", b"250", b"250"]
        assert relay.messages[0][1] == [f"RCPT TO:<{FOREIGN}>", "RCPT TO:<e@f.example>"]
        assert len(served.delivered()) == 1


def test_no_relaying_if_only_local_recipients_remain(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        relay.answers["RCPT"] = "550 5.1.1 no"
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(b"550 ")
        assert client.say(rcpt(LOCAL)).startswith(b"250 ")
        client.say(b"DATA")
        assert client.say(TEXT).endswith(b"\r\n")
        assert relay.messages == []
        assert len(served.delivered()) == 1


def test_several_messages_in_a_session(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        for to in ((LOCAL,), (FOREIGN,), (LOCAL, FOREIGN), (LOCAL,), (FOREIGN, LOCAL)):
            assert send(client, *to, text=b"Subject: x\r\n\r\n.\r\n").startswith(b"250 ")
        assert len(relay.messages) == 3
        assert relay.begun == 3
        assert len(served.delivered()) == 4
