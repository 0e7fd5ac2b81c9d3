"""Flow control of SMTP connections: slow disks, slow clients, fair use of the loop."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import smtp_fixtures
from support.raw_client import reset
from support.smtp_harness import (
    DIALOGUE,
    DONE,
    ENVELOPE,
    HELLO,
    MAIL,
    MESSAGE,
    RCPT,
    Served,
    body_of,
    codes,
    read_all,
    read_until,
)
from support.waiting import until

from fastlisten.handlers.engine_connection import READ_AHEAD
from fastlisten.mail.delivery import message_writer
from fastlisten.mail.maildir import maildir

served, plain = smtp_fixtures.on_all_transports, smtp_fixtures.as_in_production


class Gate:
    """Holds the pool's threads at a system call until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def before(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return a system call that waits at the gate first."""

        def held(*arguments: Any) -> Any:
            if threading.current_thread().name.startswith("delivery"):
                self.reached.set()
                assert self.opened.wait(60)
            return real(*arguments)

        return held


@pytest.fixture
def gate(served: Served) -> Iterator[Gate]:
    """A gate, opened by the end of the test; the maildir exists already."""
    maildir.Maildir(str(served.directory / "mail" / "alice@example.org")).prepare()
    gate = Gate()
    yield gate
    gate.opened.set()


def test_message_of_client_that_resets_during_delivery_is_dropped(
    served: Served, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", gate.before(os.fsync))
    client = served.connect()
    client.sendall(DIALOGUE.replace(b"QUIT\r\n", b""))
    assert gate.reached.wait(20)
    reset(client)
    until(lambda: not served.protocols)
    gate.opened.set()
    until(lambda: served.left_over() == [])
    assert served.delivered() == []


def test_pipelined_commands_wait_for_the_delivery(
    served: Served, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", gate.before(os.fsync))
    with served.connect() as client:
        client.sendall(DIALOGUE)
        client.shutdown(socket.SHUT_WR)  # commands sent before this are still answered
        said = read_until(client, b"<CR><LF>.<CR><LF>\r\n")
        assert gate.reached.wait(20)
        protocol = served.protocol()
        assert protocol.busy
        assert protocol.working
        gate.opened.set()
        said += read_all(client)
    assert codes(said) == DONE
    assert [body_of(stored) for stored in served.delivered()] == [MESSAGE]


def test_input_during_delivery_is_bounded(
    served: Served, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", gate.before(os.fsync))
    count = 100_000
    with served.connect() as client:
        client.sendall(ENVELOPE + b"DATA\r\n.\r\n")
        said = read_until(client, b"<CR><LF>.<CR><LF>\r\n")
        assert gate.reached.wait(20)
        sender = threading.Thread(target=client.sendall, args=(b"NOOP\r\n" * count + b"QUIT\r\n",))
        sender.start()
        protocol = served.protocol()
        until(lambda: not protocol._reading)
        assert protocol.engine.buffered <= READ_AHEAD + 256 * 1024
        gate.opened.set()
        said += read_all(client)
        sender.join()
    assert codes(said) == [*DONE[:5], *[250] * count, 221]


def test_client_that_reads_nothing_pauses_reading(served: Served) -> None:
    count = 120_000  # 18 MB of replies: more than the kernel keeps for both ends
    with served.connect() as client:
        sender = threading.Thread(target=client.sendall, args=(b"HELP\r\n" * count + b"QUIT\r\n",))
        sender.start()
        protocol = served.protocol()
        until(lambda: protocol._write_paused and not protocol._reading)
        transport = protocol._transport
        assert served.call(transport.get_write_buffer_size) < 200_000
        assert protocol.engine.buffered <= READ_AHEAD + 256 * 1024
        said = read_all(client)
        sender.join()
    assert codes(said) == [214] * count + [221]


def test_memory_is_bounded_while_the_disk_is_slow(
    served: Served, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", gate.before(os.write))
    octets = 20_000_000
    with served.connect() as client:
        client.sendall(ENVELOPE + b"DATA\r\n")
        said = read_until(client, b"<CR><LF>.<CR><LF>\r\n")
        message = b"0123456789abcdef\r\n" * (octets // 18)
        sender = threading.Thread(target=client.sendall, args=(message + b".\r\nQUIT\r\n",))
        sender.start()
        protocol = served.protocol()
        until(lambda: not protocol._reading)
        assert gate.reached.wait(20)
        assert (
            protocol._user._delivery._writer._pending_size <= message_writer.SPOOL_SIZE + 256 * 1024
        )
        assert protocol.engine.buffered <= READ_AHEAD + 256 * 1024
        gate.opened.set()
        said += read_all(client)
        sender.join()
    assert codes(said) == DONE
    assert [body_of(stored) for stored in served.delivered()] == [message]


def test_long_pipeline_is_executed_in_slices(plain: Served) -> None:
    with plain.connect() as client:
        client.sendall(HELLO)
        read_until(client, b"HELP\r\n")
        protocol = plain.protocol()
        plain.call(lambda: protocol.data_received(b"RSET\r\n" * 2000 + b"QUIT\r\n"))
        # Commands are executed in slices of 512, with the loop's other callbacks in between.
        said = read_all(client)
    assert codes(said) == [250] * 2000 + [221]


def test_slice_size(plain: Served) -> None:
    with plain.connect() as client:
        client.sendall(HELLO)
        read_until(client, b"HELP\r\n")
        protocol = plain.protocol()

        def first_slice() -> tuple[bool, int]:
            protocol.data_received(b"RSET\r\n" * 2000)
            return protocol._scheduled, protocol.engine.buffered

        assert plain.call(first_slice) == (True, 6 * (2000 - 512))
        client.shutdown(socket.SHUT_WR)
        assert codes(read_all(client)) == [250] * 2000


def test_busy_from_mail_to_end_of_transaction(plain: Served) -> None:
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
