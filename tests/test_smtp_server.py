"""The smtp handler on real sockets: dialogues, cuttings, early ends, flow control, failures."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import smtplib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from smtp_harness import (
    ENVELOPE,
    HELLO,
    HOSTNAME,
    MAIL,
    RCPT,
    Served,
    body_of,
    codes,
    cut,
    read_all,
    read_until,
    serve,
)

from fastlisten.handlers.base import ConnectionInfo, HandlerSettings, Reason
from fastlisten.handlers.smtp import READ_AHEAD, SmtpConnection, SmtpHandler
from fastlisten.mail import delivery, maildir

MESSAGE = b"Subject: x\r\n\r\n.dot\r\ntext \x00\xff\r\n"
DIALOGUE = ENVELOPE + b"DATA\r\n" + MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\nQUIT\r\n"
DONE = [250, 250, 250, 354, 250, 221]


def settle(condition: Callable[[], bool]) -> None:
    """Wait until something holds; the test's own timeout is the limit."""
    while not condition():
        time.sleep(0.002)


SERVERS = {
    "asyncio": (asyncio.new_event_loop, False),
    "uvloop": (uvloop.new_event_loop, False),
    "native-asyncio": (asyncio.new_event_loop, True),
    "native-uvloop": (uvloop.new_event_loop, True),
}


@pytest.fixture(params=SERVERS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """The handler on the loops' own transports and on the native ones."""
    loop_factory, native = SERVERS[request.param]
    with serve(tmp_path, loop_factory=loop_factory, native=native) as server:
        yield server


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Served]:
    """The handler as it is used."""
    with serve(tmp_path, loop_factory=uvloop.new_event_loop) as server:
        yield server


# --- dialogues ------------------------------------------------------------------------------------


def test_smtplib_delivers(served: Served) -> None:
    with smtplib.SMTP("127.0.0.1", served.port, timeout=20) as client:
        refused = client.sendmail(
            "sender@example.com",
            ["alice@example.org", "bob@EXAMPLE.ORG", "AL@example.org", "nobody@example.org"],
            MESSAGE,
        )
        assert client.vrfy("alice")[0] == 252
        assert client.noop()[0] == 250
        assert client.rset()[0] == 250
        assert client.help().startswith(b"2.0.0 Commands")
    assert refused == {"nobody@example.org": (550, b"5.1.1 No such mailbox here")}
    for account in ("alice@example.org", "bob@example.org"):
        (stored,) = served.delivered(account)
        assert body_of(stored) == MESSAGE
    assert served.left_over() == []


def test_smtplib_speaks_utf8(served: Served) -> None:
    path = served.directory / "accounts.toml"
    path.write_text('[account."jürgen@bücher.example"]\n')
    with smtplib.SMTP("127.0.0.1", served.port, timeout=20) as client:
        client.ehlo()
        client.mail("søren@example.com", ["SMTPUTF8", "BODY=8BITMIME"])
        assert client.rcpt("jürgen@xn--bcher-kva.example")[0] == 250
        assert client.data("Subject: ü\r\n\r\nü\r\n".encode())[0] == 250
    (stored,) = served.delivered("jürgen@bücher.example")
    assert "Return-Path: <søren@example.com>\r\n".encode() in stored
    assert b" with UTF8SMTP id " in stored
    assert body_of(stored) == "Subject: ü\r\n\r\nü\r\n".encode()


@pytest.mark.parametrize("size", [1, 2, 13, 65536])
def test_every_cutting_delivers_the_same(served: Served, size: int) -> None:
    assert codes(served.say(*cut(DIALOGUE, size))) == DONE
    assert [body_of(stored) for stored in served.delivered()] == [MESSAGE]


def test_many_transactions_in_one_breath(served: Served) -> None:
    messages = [f"Subject: {number}\r\n\r\n{number}\r\n".encode() for number in range(50)]
    transactions = b"".join(MAIL + RCPT + b"DATA\r\n" + text + b".\r\n" for text in messages)
    said = served.say(HELLO + transactions + b"QUIT\r\n")
    assert codes(said) == [250] + [250, 250, 354, 250] * 50 + [221]
    assert [body_of(stored) for stored in served.delivered()] == messages


@pytest.mark.parametrize("size", [1460, 65536, 2_000_000])
def test_a_large_message_is_spooled_and_stays_byte_exact(served: Served, size: int) -> None:
    lines = b"".join(
        b".%07d " % number + os.urandom(40).hex().encode() + b"\r\n" for number in range(40_000)
    )
    stuffed = (b"\r\n" + lines).replace(b"\r\n.", b"\r\n..")[2:]
    said = served.say(ENVELOPE + b"DATA\r\n", *cut(stuffed + b".\r\n", size), b"QUIT\r\n")
    assert codes(said) == DONE
    assert [body_of(stored) for stored in served.delivered()] == [lines]
    assert served.left_over() == []


def test_the_trace_of_a_message(plain: Served) -> None:
    plain.say(DIALOGUE)
    (stored,) = plain.delivered()
    assert re.match(
        rb"Return-Path: <sender@example\.com>\r\n"
        rb"Received: from client\.example\.com \(\[127\.0\.0\.1\]\)\r\n"
        rb"\tby mx\.example\.org with ESMTP id [0-9]+\.M[0-9]+P[0-9]+Q[0-9]+R[0-9a-f]{8}\.\S+\r\n"
        rb"\tfor <alice@example\.org>;\r\n"
        rb"\t[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} \+0000\r\n"
        rb"Subject: x\r\n",
        stored,
    )


def test_the_trace_names_no_recipient_of_several_and_says_smtp_after_helo(plain: Served) -> None:
    plain.say(b"HELO c\r\n", MAIL, RCPT, b"RCPT TO:<bob@example.org>\r\n", b"DATA\r\n.\r\n")
    (stored,) = plain.delivered("bob@example.org")
    assert b" with SMTP id " in stored
    assert b"for <" not in stored


@pytest.mark.parametrize(
    ("peer", "tls", "expected"),
    [
        ("2001:db8::1", True, b"from client.example.com ([IPv6:2001:db8::1])\r\n"),
        ("fe80::1%eth0", True, b"from client.example.com ([IPv6:fe80::1])\r\n"),
        ("", False, b"from client.example.com\r\n"),
    ],
)
def test_the_trace_of_other_clients(peer: str, tls: bool, expected: bytes) -> None:
    handler = SmtpHandler(HandlerSettings("smtp", "smtp", HOSTNAME))
    protocol = SmtpConnection(handler, ConnectionInfo("smtp", peer, 0, tls=tls))
    protocol._engine.receive(ENVELOPE)
    for _ in range(2):
        protocol._engine.next_event()
        protocol._engine.accept()
    text = handler.trace(protocol._info, protocol._engine, "ID")
    assert expected in text
    assert (b" with ESMTPS id ID\r\n" if tls else b" with ESMTP id ID\r\n") in text


def test_two_names_of_one_account_are_one_delivery(plain: Served) -> None:
    other = b"RCPT TO:<al@example.org>\r\n"
    assert codes(plain.say(HELLO, MAIL, RCPT, other, b"DATA\r\n.\r\nQUIT\r\n"))[-1] == 221
    assert len(plain.delivered()) == 1


def test_postmaster_is_always_there(plain: Served) -> None:
    said = plain.say(
        HELLO, MAIL, b"RCPT TO:<Postmaster>\r\nRCPT TO:<postmaster@EXAMPLE.org>\r\n"
        b"RCPT TO:<postmaster@elsewhere.example>\r\nDATA\r\n.\r\nQUIT\r\n"
    )  # fmt: skip
    assert codes(said) == [250, 250, 250, 250, 550, 354, 250, 221]
    assert len(plain.delivered()) == 1


def test_options_are_carried_out(tmp_path: Path) -> None:
    with serve(tmp_path, max_message_size=70_000, max_recipients=100, max_errors=2) as server:
        said = server.say(HELLO, b"MAIL FROM:<a@b> SIZE=70001\r\nX\r\nX\r\nNOOP\r\n")
        assert b"250-SIZE 70000\r\n" in said
        assert codes(said) == [250, 552, 500, 421]
        said = server.say(ENVELOPE + b"DATA\r\n", b"x" * 80_000, b"\r\n.\r\n" + MAIL, RCPT * 101)
        assert codes(said) == [250, 250, 250, 354, 552, 250] + [250] * 100 + [452]
        assert server.delivered() == []
        assert server.left_over() == []


# --- accounts -------------------------------------------------------------------------------------


def test_the_accounts_file_is_read_again_when_it_changes(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    path = served.directory / "accounts.toml"
    new = b"RCPT TO:<carol@example.org>\r\n"
    with served.connect() as client:

        def ask(command: bytes) -> list[int]:
            client.sendall(command)
            return codes(read_until(client, b"\r\n"))

        assert ask(b"HELO c\r\n") == [250]
        assert ask(MAIL) == [250]
        assert ask(new) == [550]
        path.write_text('[account."carol@example.org"]\n')
        assert ask(new) == [250]
        assert ask(RCPT) == [550]
        path.write_text("[account.")
        assert ask(new) == [250]
        assert ask(new) == [250]
        path.unlink()
        assert ask(new) == [250]
        path.write_text('[account."alice@example.org"]\n')
        assert ask(RCPT) == [250]
        assert ask(new) == [550]
    assert len([r for r in caplog.records if "cannot be used" in r.message]) == 1


@pytest.mark.parametrize("text", [None, "[account.", '[account."x"]'])
def test_mail_waits_as_long_as_accounts_are_unknown(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(tmp_path, accounts=text) as server:
        assert codes(server.say(ENVELOPE)) == [250, 250, 451]
        (tmp_path / "accounts.toml").write_text('[account."alice@example.org"]\n')
        assert codes(server.say(DIALOGUE)) == DONE
    assert "mail must wait" in caplog.text


# --- ends -----------------------------------------------------------------------------------------


def reset(client: socket.socket) -> None:
    """Close with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_early_end_at_every_point_leaves_nothing(served: Served, how: str) -> None:
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    end = DIALOGUE.index(b"\r\n.\r\n") + 5
    for length in range(end):
        client = served.connect()
        client.sendall(DIALOGUE[:length])
        if how == "reset":
            reset(client)
        else:
            client.close()
    settle(lambda: not served.protocols)
    assert served.delivered() == []
    settle(lambda: served.left_over() == [])
    settle(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, SmtpConnection)]


def test_an_early_end_of_a_spooled_message_leaves_nothing(served: Served) -> None:
    for octets in (200_000, 300_000, 1_000_000):
        with served.connect() as client:
            client.sendall(ENVELOPE + b"DATA\r\n" + b"x" * octets)
            settle(lambda: served.left_over() != [])
    settle(lambda: not served.protocols)
    settle(lambda: served.left_over() == [])
    assert served.delivered() == []


def test_unfinished_messages_hold_no_descriptors(plain: Served) -> None:
    clients = [plain.connect() for _ in range(20)]
    descriptors = len(os.listdir("/proc/self/fd"))
    for client in clients:
        client.sendall(ENVELOPE + b"DATA\r\n" + b"x" * 300_000)
    settle(lambda: len(plain.left_over()) == 20)
    settle(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    for client in clients:
        client.close()
    settle(lambda: plain.left_over() == [])


@pytest.mark.parametrize("command", [b"RSET\r\n", HELLO])
def test_a_transaction_that_is_reset_leaves_nothing(served: Served, command: bytes) -> None:
    assert codes(served.say(ENVELOPE + command + b"DATA\r\nQUIT\r\n")) == [250] * 4 + [503, 221]
    assert served.delivered() == []


def test_a_spooled_message_that_proves_bad_leaves_nothing(served: Served) -> None:
    with served.connect() as client:
        client.sendall(ENVELOPE + b"DATA\r\n" + b"x" * 300_000)
        settle(lambda: served.left_over() != [])
        client.sendall(b"\n.\r\n.\r\nx\r\n.\r\n")
        said = read_until(client, b"No such command\r\n")
        assert codes(said)[:5] == [250, 250, 250, 354, 550]
    settle(lambda: served.left_over() == [])
    assert served.delivered() == []


class Gate:
    """Holds the pool's threads at a system call until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def before(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call with the gate in front of it."""

        def held(*arguments: Any) -> Any:
            if threading.current_thread().name.startswith("delivery"):
                self.reached.set()
                assert self.opened.wait(60)
            return real(*arguments)

        return held


@pytest.fixture
def gate(served: Served) -> Iterator[Gate]:
    """A gate, opened at the end at the latest, over a maildir that is there already."""
    maildir.Maildir(str(served.directory / "mail" / "alice@example.org")).prepare()
    gate = Gate()
    yield gate
    gate.opened.set()


def test_a_client_that_vanishes_during_delivery_is_not_served(
    served: Served, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", gate.before(os.fsync))
    client = served.connect()
    client.sendall(DIALOGUE.replace(b"QUIT\r\n", b""))
    assert gate.reached.wait(20)
    reset(client)
    settle(lambda: not served.protocols)
    gate.opened.set()
    settle(lambda: served.left_over() == [])
    assert served.delivered() == []


def test_commands_wait_for_the_delivery_before_them(
    served: Served, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", gate.before(os.fsync))
    with served.connect() as client:
        client.sendall(DIALOGUE)
        client.shutdown(socket.SHUT_WR)  # what was asked for before it is still answered
        said = read_until(client, b"<CRLF>.<CRLF>\r\n")
        assert gate.reached.wait(20)
        protocol = served.protocol()
        assert protocol.busy
        assert protocol.working
        gate.opened.set()
        said += read_all(client)
    assert codes(said) == DONE
    assert [body_of(stored) for stored in served.delivered()] == [MESSAGE]


def test_input_during_a_delivery_is_kept_within_bounds(
    served: Served, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", gate.before(os.fsync))
    count = 100_000
    with served.connect() as client:
        client.sendall(ENVELOPE + b"DATA\r\n.\r\n")
        said = read_until(client, b"<CRLF>.<CRLF>\r\n")
        assert gate.reached.wait(20)
        sender = threading.Thread(target=client.sendall, args=(b"NOOP\r\n" * count + b"QUIT\r\n",))
        sender.start()
        protocol = served.protocol()
        settle(lambda: not protocol._reading)
        assert protocol._engine.buffered <= READ_AHEAD + 256 * 1024
        gate.opened.set()
        said += read_all(client)
        sender.join()
    assert codes(said) == [*DONE[:5], *[250] * count, 221]


def test_a_client_that_reads_nothing_stops_being_served(served: Served) -> None:
    count = 120_000  # 18 MB of replies: more than the kernel keeps for both ends
    with served.connect() as client:
        sender = threading.Thread(target=client.sendall, args=(b"HELP\r\n" * count + b"QUIT\r\n",))
        sender.start()
        protocol = served.protocol()
        settle(lambda: protocol._write_paused and not protocol._reading)
        transport = protocol._transport
        assert served.call(transport.get_write_buffer_size) < 200_000
        assert protocol._engine.buffered <= READ_AHEAD + 256 * 1024
        said = read_all(client)
        sender.join()
    assert codes(said) == [214] * count + [221]


def test_memory_for_a_message_is_bounded_while_the_disk_is_slow(
    served: Served, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", gate.before(os.write))
    octets = 20_000_000
    with served.connect() as client:
        client.sendall(ENVELOPE + b"DATA\r\n")
        said = read_until(client, b"<CRLF>.<CRLF>\r\n")
        message = b"0123456789abcdef\r\n" * (octets // 18)
        sender = threading.Thread(target=client.sendall, args=(message + b".\r\nQUIT\r\n",))
        sender.start()
        protocol = served.protocol()
        settle(lambda: not protocol._reading)
        assert gate.reached.wait(20)
        assert protocol._letter._pending_size <= delivery.SPOOL_SIZE + 256 * 1024
        assert protocol._engine.buffered <= READ_AHEAD + 256 * 1024
        gate.opened.set()
        said += read_all(client)
        sender.join()
    assert codes(said) == DONE
    assert [body_of(stored) for stored in served.delivered()] == [message]


def test_one_connection_does_not_keep_the_loop(plain: Served) -> None:
    with plain.connect() as client:
        client.sendall(HELLO)
        read_until(client, b"HELP\r\n")
        protocol = plain.protocol()
        plain.call(lambda: protocol.data_received(b"RSET\r\n" * 2000 + b"QUIT\r\n"))
        # It was written in shares of 512 commands, with the loop's other callbacks in between.
        said = read_all(client)
    assert codes(said) == [250] * 2000 + [221]


def test_shares_of_the_loop(plain: Served) -> None:
    with plain.connect() as client:
        client.sendall(HELLO)
        read_until(client, b"HELP\r\n")
        protocol = plain.protocol()

        def first_share() -> tuple[bool, int]:
            protocol.data_received(b"RSET\r\n" * 2000)
            return protocol._scheduled, protocol._engine.buffered

        assert plain.call(first_share) == (True, 6 * (2000 - 512))
        client.shutdown(socket.SHUT_WR)
        assert codes(read_all(client)) == [250] * 2000


def test_busy_is_from_mail_to_the_reply_to_the_end(plain: Served) -> None:
    with plain.connect() as client:
        client.sendall(HELLO)
        read_until(client, b"HELP\r\n")
        protocol = plain.protocol()
        states = []
        for command in (HELLO, MAIL, RCPT, b"DATA\r\n", b"x\r\n.\r\n", MAIL, b"RSET\r\n"):
            client.sendall(command)
            read_until(client, b"\r\n")
            states.append(plain.call(lambda: protocol.busy))
            assert not plain.call(lambda: protocol.working)
    assert states == [False, True, True, True, False, True, False]


@pytest.mark.parametrize(
    ("error", "code"), [(28, b"452 4.3.1 "), (122, b"452 4.3.1 "), (5, b"451 4.3.0 ")]
)
def test_a_failing_disk_is_a_temporary_failure(
    plain: Served, monkeypatch: pytest.MonkeyPatch, error: int, code: bytes
) -> None:
    def fail(fd: int) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(maildir.os, "fsync", fail)
        patch.setattr(maildir.Maildir, "prepare", unsynced_prepare)
        said = plain.say(DIALOGUE)
    assert codes(said) == [250, 250, 250, 354, int(code[:3]), 221]
    assert b"\r\n" + code in said
    assert plain.left_over() == []
    assert plain.delivered() == []
    assert codes(plain.say(DIALOGUE)) == DONE


def unsynced_prepare(self: maildir.Maildir) -> None:
    for part in ("cur", "new", "tmp"):
        (Path(self.path) / part).mkdir(parents=True, exist_ok=True)


def test_a_fault_of_the_code_is_a_temporary_failure(
    plain: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object, wanted: object) -> bool:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(maildir.Draft, "commit", fail)
        assert codes(plain.say(DIALOGUE)) == [250, 250, 250, 354, 451, 221]
    assert plain.left_over() == []
    assert "ZeroDivisionError" in caplog.text


def test_a_spooling_failure_is_told_at_the_end(
    plain: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = maildir.write_all
    calls = []

    def fail(fd: int, data: bytes) -> None:
        calls.append(len(data))
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(fd, data)

    monkeypatch.setattr(maildir, "write_all", fail)
    with plain.connect() as client:
        client.sendall(ENVELOPE + b"DATA\r\n")
        for _ in range(40):
            client.sendall(b"x" * 65_534 + b"\r\n")
        client.sendall(b".\r\nQUIT\r\n")
        said = read_all(client)
    assert codes(said) == [250, 250, 250, 354, 452, 221]
    assert len(calls) == 3
    settle(lambda: plain.left_over() == [])
    assert plain.delivered() == []


# --- the handler ----------------------------------------------------------------------------------


def test_greeting_refusals_and_farewells() -> None:
    handler = SmtpHandler(HandlerSettings("smtp", "smtp", HOSTNAME, greeting="at your service"))
    assert handler.greeting == b"220 mx.example.org ESMTP at your service\r\n"
    assert SmtpHandler(HandlerSettings("s", "smtp", HOSTNAME)).greeting == (
        b"220 mx.example.org ESMTP\r\n"
    )
    refusals = {reason: handler.refusal(reason)[:10] for reason in Reason}
    assert refusals[Reason.LIMIT] == refusals[Reason.OVERLOAD] == b"421 4.3.2 "
    assert refusals[Reason.RATE] == refusals[Reason.ADDRESS] == b"421 4.7.0 "
    assert refusals[Reason.DENIED] == b"554 5.7.1 "
    farewells = {reason: handler.farewell(reason)[:10] for reason in Reason}
    assert farewells[Reason.IDLE] == farewells[Reason.FIRST_BYTE] == b"421 4.4.2 "
    assert farewells[Reason.SHUTDOWN] == b"421 4.3.2 "
    for reason in Reason:
        for text in (handler.refusal(reason), handler.farewell(reason)):
            assert text[10:].startswith(b"mx.example.org ")
            assert text.endswith(b"\r\n")
            assert text.count(b"\n") == 1


def test_a_handler_must_be_started() -> None:
    handler = SmtpHandler(HandlerSettings("smtp", "smtp", HOSTNAME))
    with pytest.raises(RuntimeError, match="not been started"):
        _ = handler.office


def test_a_handler_needs_a_place_for_mail() -> None:
    handler = SmtpHandler(HandlerSettings("smtp", "smtp", HOSTNAME))
    with pytest.raises(ValueError, match="data directory"):
        asyncio.run(handler.start())


@pytest.mark.parametrize(
    ("accounts", "notes"),
    [
        (None, "{} cannot be read or does not exist: all mail must wait"),
        ("[account.", "{} cannot be read or does not exist: all mail must wait"),
        ("", "{} has no accounts: all mail will be rejected"),
        ('[account."a@b"]', ""),
    ],
)
def test_notes_for_the_administrator(tmp_path: Path, accounts: str | None, notes: str) -> None:
    with serve(tmp_path, accounts=accounts) as server:
        expected = notes.format(tmp_path / "accounts.toml")
        assert server.handler.notes() == ((expected,) if expected else ())


def test_deliveries_are_logged_with_the_listener(
    plain: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastlisten")
    plain.say(DIALOGUE)
    (record,) = [record for record in caplog.records if record.name == "fastlisten.smtp"]
    assert record.getMessage().startswith("test: ")
    assert "from <sender@example.com> at [127.0.0.1] to alice@example.org:" in record.getMessage()
