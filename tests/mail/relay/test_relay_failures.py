"""Mail that the relay does not accept: the client's reply, and that nothing is left behind.

Rules of this file: each test ends without a connection to the relay, without a session counted, and
with an empty spool.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest
from support.relay import FOREIGN, Relay, rcpt, relaying, session, set_relay_timeout
from support.smtp_harness import MAIL
from support.waiting import until

from fastlisten.mail.relay.relay_error import quoted, refusal

LOCAL = "alice@example.org"
MESSAGE = b"Subject: x\r\n\r\ntext\r\n.\r\n"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"RCPT": "550 5.1.1 no such user"}, b"550 5.1.1 The relay says: no such user\r\n"),
        ({"RCPT": "550 what?"}, b"550 5.0.0 The relay says: what?\r\n"),
        ({"RCPT": "450 4.2.1 gr\xe9ylisted"}, b"450 4.2.1 The relay says: gr?ylisted\r\n"),
        ({"RCPT": "550 4.1.1 at odds"}, b"550 5.0.0 The relay says: at odds\r\n"),
        ({"RCPT": "550-5.7.1 one\r\n550 5.7.1 two"}, b"550 5.7.1 The relay says: one two\r\n"),
        ({"RCPT": "421 4.3.2 closing"}, b"451 4.3.2 The relay says: closing\r\n"),
        ({"RCPT": "354 go on"}, b"451 4.5.0 Unexpected reply from the relay; try again later\r\n"),
        ({"RCPT": "530 5.7.0 log in"}, b"451 4.4.1 "),
        ({"RCPT": "junk"}, b"451 4.4.1 "),
        ({"RCPT": None}, b"451 4.4.1 "),
        ({"MAIL": "550 5.7.1 not you"}, b"550 5.7.1 The relay says: not you\r\n"),
        ({"MAIL": "552 5.3.4 too large"}, b"552 5.3.4 The relay says: too large\r\n"),
        ({"MAIL": None}, b"451 4.4.1 "),
        ({"EHLO": "502 5.5.1 what?"}, b"451 4.4.1 "),
        ({"EHLO": None}, b"451 4.4.1 "),
        ({"220": "554 5.7.1 not you"}, b"451 4.4.1 "),
        ({"220": None}, b"451 4.4.1 "),
    ],
    ids=repr,
)
def test_relay_refuses_recipient(
    tmp_path: Path, answers: dict[str, str | None], expected: bytes
) -> None:
    with relaying(answers=answers) as relay, session(tmp_path, relay) as (_, client):
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(expected)
        assert client.say(b"DATA").startswith(b"554 5.5.1 ")
        # The relay is asked again, and its new reply counts.
        relay.answers.clear()
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"250 ")
        assert len(relay.messages) == 1


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({".": "554 5.7.1 spam"}, b"554 5.7.1 The relay says: spam\r\n"),
        ({".": "452 4.3.1 full"}, b"452 4.3.1 The relay says: full\r\n"),
        ({".": None}, b"451 4.4.2 "),
        ({".": "junk"}, b"451 4.4.2 "),
        ({"DATA": "554 5.5.1 no"}, b"554 5.5.1 The relay says: no\r\n"),
        ({"DATA": "250 2.0.0 what?"}, b"451 4.5.0 "),
        ({"DATA": None}, b"451 4.4.2 "),
    ],
    ids=repr,
)
def test_relay_refuses_message(
    tmp_path: Path, answers: dict[str, str | None], expected: bytes
) -> None:
    with relaying(answers=answers) as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        assert client.say(rcpt(LOCAL)).startswith(b"250 ")
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(expected)
        assert relay.messages == []
        assert served.delivered() == []
        relay.answers.clear()
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")


def test_relay_refuses_connections(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        there = Relay(port=nobody.getsockname()[1])
        with session(tmp_path, there) as (_, client):
            client.say(MAIL)
            assert client.say(rcpt(FOREIGN)).startswith(b"451 4.4.1 ")
            assert client.say(rcpt(LOCAL)).startswith(b"250 ")


def test_relay_without_greeting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        there = Relay(port=mute.getsockname()[1])
        with session(tmp_path, there, relay_timeout=0.1) as (_, client):
            client.say(MAIL)
            assert client.say(rcpt(FOREIGN)).startswith(b"451 4.4.1 ")


def test_relay_does_not_reply_to_message(tmp_path: Path) -> None:
    held = threading.Event()
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        set_relay_timeout(served, 0.05)
        relay.pause = lambda command: held.wait(20) if command == "." else None
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"451 4.4.2 ")
        held.set()


def test_relay_stops_reading(tmp_path: Path) -> None:
    held = threading.Event()
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        served.protocol()._user._delivery._session._smtp.timeout = 0.1
        # After its 354, which it sends only after the timeout.
        relay.pause = lambda command: held.wait(20) if command == "DATA" else None
        client.say(b"DATA")
        assert client.say(b"x" * 900 + b"\r\n" + MESSAGE).startswith(b"451 4.4.2 ")
        held.set()


def test_relay_refuses_during_the_message(tmp_path: Path) -> None:
    """It replies and disconnects without reading the rest."""
    rest: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def relay() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as stream:
                connection.sendall(b"220 hello\r\n")
                for reply in (b"250 hello\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
                    stream.readline()
                    connection.sendall(reply)
                stream.read(100_000)
                connection.sendall(b"552 5.3.4 enough\r\n")
                with contextlib.suppress(ConnectionError):
                    while piece := stream.read1(1 << 20):
                        rest.append(piece)

        thread = threading.Thread(target=relay)
        thread.start()
        there = Relay(port=listening.getsockname()[1])
        with session(tmp_path, there) as (_, client):
            client.say(MAIL)
            assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
            client.say(b"DATA")
            reply = client.say((b"x" * 98 + b"\r\n") * 80_000 + b".\r\n")
            assert reply == b"552 5.3.4 The relay says: enough\r\n"
        thread.join(20)
    # QUIT would be read as a line of the message.
    assert b"QUIT" not in b"".join(rest)


def test_relay_accepts_during_the_message(tmp_path: Path) -> None:
    """A positive reply before the end of the message does not acknowledge it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def relay() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as stream:
                connection.sendall(b"220 hello\r\n")
                for reply in (b"250 hello\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
                    stream.readline()
                    connection.sendall(reply)
                stream.read(100_000)
                connection.sendall(b"250 2.0.0 queued\r\n")
                with contextlib.suppress(ConnectionError):
                    while stream.read1(1 << 20):
                        pass

        thread = threading.Thread(target=relay)
        thread.start()
        with session(tmp_path, Relay(port=listening.getsockname()[1])) as (served, client):
            client.say(MAIL)
            assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
            assert client.say(rcpt(LOCAL)).startswith(b"250 ")
            client.say(b"DATA")
            reply = client.say((b"x" * 98 + b"\r\n") * 80_000 + b".\r\n")
            assert reply.startswith(b"451 4.5.0 Protocol synchronization error at the relay")
            assert served.delivered() == []
        thread.join(20)


def test_relay_replies_250_to_data(tmp_path: Path) -> None:
    with (
        relaying(answers={"DATA": "250 2.0.0 what?"}) as relay,
        session(tmp_path, relay) as (_, client),
    ):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"451 4.5.0 ")
        until(relay.at_rest)
        # It is unknown whether the relay now expects a message or commands: nothing is sent.
        assert relay.commands[-1] == "DATA"
        assert relay.cut == b""


def test_relay_that_disconnects_when_idle_is_asked_again(tmp_path: Path) -> None:
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        relay.answers["RCPT"] = None
        relay.once.add("RCPT")
        # It disconnects at the second recipient, which is refused; the first one is kept.
        assert client.say(rcpt("dora@elsewhere.example")).startswith(b"451 4.4.1 ")
        until(relay.at_rest)
        assert client.say(rcpt("dora@elsewhere.example")).startswith(b"250 ")
        assert relay.begun == 2
        # Now it disconnects before the message.
        served.call(lambda: served.protocol()._user._delivery._session._smtp.transport.abort())
        until(relay.at_rest)
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"250 ")
        assert relay.begun == 3
        ((_, recipients, _),) = relay.messages
        assert len(recipients) == 2


def test_relay_refuses_recipient_after_reconnect(tmp_path: Path) -> None:
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        served.call(lambda: served.protocol()._user._delivery._session._smtp.transport.abort())
        until(relay.at_rest)
        relay.answers["RCPT"] = "550 5.1.1 no more"
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"451 4.4.2 ")


def test_text_of_relay_is_sanitized() -> None:
    assert quoted("5.7.1 a\tb\x07\n5.7.1 \u00e4" + "x" * 400).startswith("a?b? ?xxx")
    assert len(quoted("x" * 1000)) == 300
    assert len(str(refusal(550, "x" * 1000).reply)) < 510
