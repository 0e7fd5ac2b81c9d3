"""SMTP clients that disconnect early, and failing disks: nothing is delivered or left behind."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from support import smtp_fixtures
from support.raw_client import reset
from support.smtp_harness import (
    DIALOGUE,
    DONE,
    ENVELOPE,
    HELLO,
    Served,
    codes,
    read_all,
    read_until,
    serve,
)
from support.waiting import until

from fastlisten.handlers.smtp.mail_session import MailSession
from fastlisten.mail.delivery import staged_message
from fastlisten.mail.maildir import maildir
from fastlisten.private_files import write_all

served, plain = smtp_fixtures.on_all_transports, smtp_fixtures.as_in_production


# --- ends -----------------------------------------------------------------------------------------


def sessions() -> list[MailSession]:
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, MailSession)]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_disconnect_at_every_octet_leaves_nothing(served: Served, how: str) -> None:
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
    until(lambda: not served.protocols)
    assert served.delivered() == []
    until(lambda: served.left_over() == [])
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    until(lambda: not sessions(), "the end of all sessions")


def test_disconnect_during_spooled_message_leaves_no_files(served: Served) -> None:
    for octets in (200_000, 300_000, 1_000_000):
        with served.connect() as client:
            client.sendall(ENVELOPE + b"DATA\r\n" + b"x" * octets)
            until(lambda: served.left_over() != [])
    until(lambda: not served.protocols)
    until(lambda: served.left_over() == [])
    assert served.delivered() == []


def test_unfinished_messages_hold_no_open_files(plain: Served) -> None:
    clients = [plain.connect() for _ in range(20)]
    descriptors = len(os.listdir("/proc/self/fd"))
    for client in clients:
        client.sendall(ENVELOPE + b"DATA\r\n" + b"x" * 300_000)
    until(lambda: len(plain.left_over()) == 20)
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    for client in clients:
        client.close()
    until(lambda: plain.left_over() == [])


@pytest.mark.parametrize("command", [b"RSET\r\n", HELLO])
def test_reset_transaction_delivers_nothing(served: Served, command: bytes) -> None:
    assert codes(served.say(ENVELOPE + command + b"DATA\r\nQUIT\r\n")) == [250] * 4 + [503, 221]
    assert served.delivered() == []


def test_invalid_spooled_message_leaves_no_files(served: Served) -> None:
    with served.connect() as client:
        client.sendall(ENVELOPE + b"DATA\r\n" + b"x" * 300_000)
        until(lambda: served.left_over() != [])
        client.sendall(b"\n.\r\n.\r\nx\r\n.\r\n")
        said = read_until(client, b"Command not recognized\r\n")
        assert codes(said)[:5] == [250, 250, 250, 354, 550]
    until(lambda: served.left_over() == [])
    assert served.delivered() == []


@pytest.mark.parametrize(
    ("error", "code"), [(28, b"452 4.3.1 "), (122, b"452 4.3.1 "), (5, b"451 4.3.0 ")]
)
def test_disk_error_is_a_temporary_failure(
    plain: Served, monkeypatch: pytest.MonkeyPatch, error: int, code: bytes
) -> None:
    def fail(fd: int) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
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


def test_internal_error_is_a_temporary_failure(
    plain: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: object) -> list[str]:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(staged_message.StagedMessage, "move", fail)
        assert codes(plain.say(DIALOGUE)) == [250, 250, 250, 354, 451, 221]
    assert plain.left_over() == []
    assert "ZeroDivisionError" in caplog.text


def test_spooling_error_is_reported_at_end_of_data(
    plain: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write_all
    calls = []

    def fail(fd: int, data: bytes) -> None:
        calls.append(len(data))
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(fd, data)

    monkeypatch.setattr(staged_message, "write_all", fail)
    with plain.connect() as client:
        client.sendall(ENVELOPE + b"DATA\r\n")
        for _ in range(40):
            client.sendall(b"x" * 65_534 + b"\r\n")
        client.sendall(b".\r\nQUIT\r\n")
        said = read_all(client)
    assert codes(said) == [250, 250, 250, 354, 452, 221]
    assert len(calls) == 3
    until(lambda: plain.left_over() == [])
    assert plain.delivered() == []


def test_internal_error_after_delivery_closes_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise the client would wait for its reply for ever, and keep its place."""

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(MailSession, "_answer_message", fail)
    with serve(tmp_path) as served:
        assert codes(served.say(DIALOGUE)) == [250, 250, 250, 354]
        until(lambda: served.protocols == [])
    assert "ZeroDivisionError: oops" in caplog.text
