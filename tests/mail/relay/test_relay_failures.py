"""Mail for others that does not arrive: what the client hears, and what is left behind (nothing).

Each test ends with no connection to the relay, no place taken, and no file in the spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.relay import FOREIGN, Relay, client_of, plain, rcpt, relaying, serving, sessions_of
from support.smtp_client import SmtpClient
from support.smtp_harness import MAIL, Served
from support.waiting import until

from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay import message_source as smtp_source
from fastlisten.mail.relay import relay as smtp_relay
from fastlisten.mail.relay import session as relay_session
from fastlisten.mail.relay.relay_error import RelayError, quoted, refusal

LOCAL = "alice@example.org"
MESSAGE = b"Subject: x\r\n\r\ntext\r\n.\r\n"


@contextlib.contextmanager
def session(
    tmp_path: Path, relay: Relay | None, **options: Any
) -> Iterator[tuple[Served, SmtpClient]]:
    """Serve, and give an authenticated client; look for what is left behind at the end."""
    with serving(tmp_path, relay, **options) as served:
        with client_of(served) as client:
            yield served, client
        until(lambda: sessions_of(served) == 0)
        until(lambda: not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()])
        until(lambda: not served.left_over())


def hasten(served: Served, timeout: float) -> None:
    """Let the relay have less time from now on."""
    assert served.handler.relay is not None
    object.__setattr__(served.handler.relay.settings, "timeout", timeout)


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
def test_a_recipient_that_the_relay_does_not_take(
    tmp_path: Path, answers: dict[str, str | None], expected: bytes
) -> None:
    with relaying(answers=answers) as relay, session(tmp_path, relay) as (_, client):
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(expected)
        assert client.say(b"DATA").startswith(b"554 5.5.1 ")
        # It is asked anew, and what it says then holds.
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
def test_a_message_that_the_relay_does_not_take(
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


def test_a_relay_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        there = Relay(port=nobody.getsockname()[1])
        with session(tmp_path, there) as (_, client):
            client.say(MAIL)
            assert client.say(rcpt(FOREIGN)).startswith(b"451 4.4.1 ")
            assert client.say(rcpt(LOCAL)).startswith(b"250 ")


def test_a_relay_that_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        there = Relay(port=mute.getsockname()[1])
        with session(tmp_path, there, relay_timeout=0.1) as (_, client):
            client.say(MAIL)
            assert client.say(rcpt(FOREIGN)).startswith(b"451 4.4.1 ")


def test_a_relay_that_stops_to_answer(tmp_path: Path) -> None:
    held = threading.Event()
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        hasten(served, 0.05)
        relay.pause = lambda command: held.wait(20) if command == "." else None
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"451 4.4.2 ")
        held.set()


def test_a_relay_that_does_not_read(tmp_path: Path) -> None:
    held = threading.Event()
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        served.protocol()._relay_session._smtp.timeout = 0.1
        # After its 354, which it says only when nobody waits any more.
        relay.pause = lambda command: held.wait(20) if command == "DATA" else None
        client.say(b"DATA")
        assert client.say(b"x" * 900 + b"\r\n" + MESSAGE).startswith(b"451 4.4.2 ")
        held.set()


def test_a_relay_that_refuses_in_the_midst_of_the_message(tmp_path: Path) -> None:
    """It says so and goes, without having read what is coming."""
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
    # What would be said now would be a line of the message.
    assert b"QUIT" not in b"".join(rest)


def test_a_relay_that_says_yes_in_the_midst_of_the_message(tmp_path: Path) -> None:
    """A positive answer to something that is not finished is no answer: nothing is acknowledged."""
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


def test_a_relay_that_says_yes_to_data_instead_of_go_on(tmp_path: Path) -> None:
    with (
        relaying(answers={"DATA": "250 2.0.0 what?"}) as relay,
        session(tmp_path, relay) as (_, client),
    ):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"451 4.5.0 ")
        until(relay.at_rest)
        # Whether it takes what comes for the message is not known: nothing comes.
        assert relay.commands[-1] == "DATA"
        assert relay.cut == b""


def test_a_relay_that_went_away_while_the_client_thought_is_asked_again(tmp_path: Path) -> None:
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        relay.answers["RCPT"] = None
        relay.once.add("RCPT")
        # It goes away at the second recipient: that one is refused, the first one is kept.
        assert client.say(rcpt("dora@elsewhere.example")).startswith(b"451 4.4.1 ")
        until(relay.at_rest)
        assert client.say(rcpt("dora@elsewhere.example")).startswith(b"250 ")
        assert relay.begun == 2
        # And now before the message.
        served.call(lambda: served.protocol()._relay_session._smtp.transport.abort())
        until(relay.at_rest)
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"250 ")
        assert relay.begun == 3
        ((_, recipients, _),) = relay.messages
        assert len(recipients) == 2


def test_a_relay_that_changes_its_mind_about_a_recipient(tmp_path: Path) -> None:
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        served.call(lambda: served.protocol()._relay_session._smtp.transport.abort())
        until(relay.at_rest)
        relay.answers["RCPT"] = "550 5.1.1 no more"
        client.say(b"DATA")
        assert client.say(MESSAGE).startswith(b"451 4.4.2 ")


@pytest.mark.parametrize("moment", ["220", "EHLO", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_leaves_meanwhile(tmp_path: Path, moment: str, how: str) -> None:
    reached, held = threading.Event(), threading.Event()

    def pause(command: str) -> None:
        if command.startswith(moment):
            reached.set()
            held.wait(20)

    with relaying(pause=pause) as relay, serving(tmp_path, relay, tls=None) as served:
        client = SmtpClient(served.connect())
        client.say(b"EHLO c")
        protocol = served.protocol()

        def log_in() -> None:  # there is no AUTH without TLS, and a reset over TLS is another test
            roster = served.handler.office.accounts.roster
            assert roster is not None
            user = roster.login("alice@example.org")
            assert user is not None
            protocol._user, protocol._login = user.name, user
            protocol.engine.authenticated = True

        served.call(log_in)
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
            # The half that still sends keeps it: what was asked for is done, as with any client.
            held.set()
        until(lambda: served.protocols == [])
        until(lambda: sessions_of(served) == 0)
        held.set()
        until(lambda: not served.left_over())
        # Without our reply the client sends it again: better twice than never.
        assert len(relay.messages) >= len(served.delivered())


def test_rset_and_quit_end_the_session_politely(tmp_path: Path) -> None:
    for command in (b"RSET", b"EHLO c", b"QUIT"):
        with relaying() as relay, session(tmp_path, relay) as (_, client):
            client.say(MAIL)
            client.say(rcpt(FOREIGN))
            assert client.say(command)[:1] == b"2"
            until(relay.at_rest)
            assert relay.commands[-1] == "QUIT"
            assert relay.messages == []


def test_a_message_that_is_refused_here_is_not_handed_over(tmp_path: Path) -> None:
    with relaying() as relay, session(tmp_path, relay, max_message_size=65536) as (_, client):
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        client.say(b"DATA")
        assert client.say(b"x" * 70000 + b"\r\n.\r\n").startswith(b"552 5.3.4 ")
        until(relay.at_rest)
        assert relay.messages == []


def test_a_message_that_cannot_be_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_a_fault_of_ours_is_answered_and_leaves_nothing(
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


def test_a_file_that_has_become_shorter_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_bytes(b"0123456789")
    source = smtp_source.MessageSource(str(file), 4, 8)
    assert source.read(0) == b"456789"
    with pytest.raises(OSError, match="too short"):
        source.read(6)


def test_sessions_of_a_process_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_relay, "SESSIONS", 1)
    with relaying() as relay, session(tmp_path, relay) as (served, client):
        client.say(MAIL)
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        with client_of(served) as other:
            other.say(MAIL)
            hasten(served, 0.1)
            assert other.say(rcpt(FOREIGN)).startswith(b"451 4.3.2 ")
            hasten(served, 20.0)
            client.say(b"RSET")
            assert other.say(rcpt(FOREIGN)).startswith(b"250 ")
        assert relay.begun == 2


def test_sessions_of_a_user_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_what_a_relay_says_is_made_harmless() -> None:
    assert quoted("5.7.1 a\tb\x07\n5.7.1 \u00e4" + "x" * 400).startswith("a?b? ?xxx")
    assert len(quoted("x" * 1000)) == 300
    assert len(str(refusal(550, "x" * 1000).reply)) < 510


def test_a_goodbye_that_nobody_answers_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_session, "_GOODBYE_TIMEOUT", 0.05)
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


def test_a_session_that_is_given_up_while_it_connects() -> None:
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
