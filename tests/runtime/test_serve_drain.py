"""How the program ends: what idle, busy and hanging clients see after SIGTERM.

The listener is lazy: a client that has sent nothing has no Python object ("lazy" below), one that
has spoken has its transport and protocol ("eager").
"""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.program import Program, program
from support.smtp_client import SmtpClient
from support.waiting import PATIENCE, until

SMTP = '[server.listener.it]\nprotocol = "smtp"\nbind = ["127.0.0.1:0", "127.0.0.2:0"]\n'

GREETING = b"220 mx.example.org ESMTP\r\n"
GOODBYE = b"421 4.3.2 mx.example.org Shutting down; try again later\r\n"


def begin(client: SmtpClient) -> None:
    """Begin a message and send a part of it."""
    assert client.codes(
        "EHLO c.example.com", "MAIL FROM:<s@example.com>", "RCPT TO:<alice@example.org>", "DATA"
    ) == [250, 250, 250, 354]
    client.sock.sendall(b"Subject: x\r\n\r\nhalf\r\n")


@contextlib.contextmanager
def clients(started: Program, count: int) -> Iterator[list[SmtpClient]]:
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", started.port()), PATIENCE)
            made.append(stack.enter_context(contextlib.closing(SmtpClient(sock))))
            assert made[-1].reply() == GREETING
        yield made


def refused(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == errno.ECONNREFUSED


def test_idle_clients_get_421_and_busy_ones_finish(tmp_path: Path) -> None:
    with program(tmp_path, SMTP) as started, clients(started, 3) as (lazy, eager, busy):
        assert eager.codes("EHLO c.example.com") == [250]
        begin(busy)
        started.signal()
        assert lazy.rest() == GOODBYE
        assert eager.rest() == GOODBYE
        # The kernel refuses clients of a server that no longer listens.
        assert refused(started.port("it", 0))
        assert refused(started.port("it", 1), "127.0.0.2")
        assert started.process.poll() is None
        busy.sock.sendall(b"other half\r\n.\r\n")
        line = busy.reply()
        assert line.startswith(b"250 2.0.0 Ok, id ")
        assert busy.rest() == GOODBYE
        assert started.ended() == 0
        (message,) = started.messages()
        assert message.endswith(b"\r\nSubject: x\r\n\r\nhalf\r\nother half\r\n")
        assert "SIGTERM: draining" in started.err
        assert "draining: 1 connection still open, waiting at most 30 s" in started.err


def test_transaction_ends_without_delivery(tmp_path: Path) -> None:
    """A client is busy from MAIL to the reply that ends the transaction, whatever that is."""
    with program(tmp_path, SMTP) as started, clients(started, 2) as (resets, leaves):
        hello = ("EHLO c.example.com", "MAIL FROM:<s@example.com>")
        assert resets.codes(*hello) == [250, 250]
        assert leaves.codes(*hello) == [250, 250]
        started.signal()
        until(lambda: refused(started.port()), "the drain")
        assert resets.codes("RSET") == [250]
        assert resets.rest() == GOODBYE
        assert leaves.codes("QUIT") == [221]
        assert leaves.rest() == b""
        assert started.ended() == 0


def test_pipelined_goodbye_is_in_order(tmp_path: Path) -> None:
    """A client that sends QUIT by itself gets 221 and no 421."""
    with program(tmp_path, SMTP) as started, clients(started, 1) as (busy,):
        begin(busy)
        started.signal()
        until(lambda: refused(started.port()), "the drain")
        busy.sock.sendall(b".\r\nQUIT\r\n")
        assert busy.reply().startswith(b"250 2.0.0 Ok")
        (goodbye,) = busy.rest().splitlines()
        assert goodbye.startswith(b"221 2.0.0 mx.example.org")
        assert started.ended() == 0
        assert len(started.messages()) == 1


def test_hanging_client_is_closed_after_the_timeout(tmp_path: Path) -> None:
    text = f'shutdown-timeout = "300ms"\n{SMTP}'
    with program(tmp_path, text) as started, clients(started, 2) as (busy, idle):
        begin(busy)
        started.signal()
        assert idle.rest() == GOODBYE
        assert busy.rest() == GOODBYE
        assert started.ended() == 0
        assert started.messages() == []
        assert not list((tmp_path / "data/mail").glob("*/tmp/*"))
        assert "WARNING fastlisten: closed 1 connection that had not finished" in started.err


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_closes_at_once(tmp_path: Path, second: signal.Signals) -> None:
    text = f'shutdown-timeout = "1d"\n{SMTP}'
    with program(tmp_path, text) as started, clients(started, 1) as (busy,):
        begin(busy)
        started.signal()
        until(lambda: "still open" in started.err, "the drain")
        assert started.process.poll() is None
        started.signal(second)
        assert busy.rest() == GOODBYE
        assert started.ended() == 0
        assert f"{second.name}: closing at once" in started.err
        assert started.messages() == []


def test_drain_timeout_0_waits_for_nobody(tmp_path: Path) -> None:
    text = f'shutdown-timeout = "0s"\n{SMTP}'
    with program(tmp_path, text) as started, clients(started, 2) as (busy, idle):
        begin(busy)
        started.signal()
        assert idle.rest() == GOODBYE
        assert busy.rest() == GOODBYE
        assert started.ended() == 0


def test_message_being_stored_is_not_lost(tmp_path: Path) -> None:
    """Its last octet has arrived: whatever reply the client gets, it is true."""
    with program(tmp_path, SMTP) as started, clients(started, 20) as many:
        for one in many:
            begin(one)
        for one in many:
            one.sock.sendall(b".\r\n")
        started.signal()
        answers = [one.reply()[:3] for one in many]
        assert started.ended() == 0
        assert answers == [b"250"] * 20
        assert len(started.messages()) == 20


def test_clients_that_do_not_read_do_not_delay_the_end(tmp_path: Path) -> None:
    """The server ends even if an idle client does not read its 421."""
    with program(tmp_path, SMTP) as started, clients(started, 5):
        started.signal()
        assert started.ended() == 0


def test_server_without_clients_ends_at_once(tmp_path: Path) -> None:
    with program(tmp_path, SMTP) as started:
        assert started.stop() == 0
        assert "still open" not in started.err


def test_clients_waiting_in_the_backlog_are_reset(tmp_path: Path) -> None:
    """Those in the backlog of a full listener that waits were never accepted."""
    text = SMTP + 'max-connections = 1\nlimit-action = "wait"\n'
    with program(tmp_path, text) as started, clients(started, 1) as (served,):
        waiting = socket.create_connection(("127.0.0.1", started.port()), timeout=PATIENCE)
        with waiting:
            started.signal()
            assert served.rest() == GOODBYE
            with pytest.raises(ConnectionResetError):
                assert waiting.recv(1) == b"a reset"
            assert started.ended() == 0
