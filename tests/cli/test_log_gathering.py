"""The thread that writes the log gathers records after each write, unless somebody waits for it.

Rules of this file: the thread's pauses are held by the test, or as long as a test may last, so that
nothing depends on time.
"""

from __future__ import annotations

import io
import logging
import threading

import pytest

from fastlisten.cli import log_writer
from fastlisten.cli.log_writer import QueuedHandler

#: Longer than any test: what waits for its end fails.
FOREVER = 3600.0


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("t", logging.INFO, "", 0, text, (), None)


class HeldPause(threading.Event):
    """A pause of the writing thread that the test ends."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.over = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout == log_writer.GATHER
        self.begun.release()
        self.over.acquire()
        return self.is_set()


class Writes(io.StringIO):
    """A stream that remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, text: str) -> int:
        self.calls.append(text)
        return len(text)


def make_handler(stream: Writes) -> QueuedHandler:
    return QueuedHandler(stream, lambda count: record(f"{count} lost"))


def test_records_after_a_write_are_written_together() -> None:
    stream = Writes()
    handler = make_handler(stream)
    pause = handler._hurry = HeldPause()
    handler.emit(record("first"))
    pause.begun.acquire()
    assert stream.calls == ["first\n"]  # at once
    for number in range(100):
        handler.emit(record(str(number)))
    pause.over.release()
    pause.begun.acquire()
    assert stream.calls[1:] == ["".join(f"{number}\n" for number in range(100))]
    pause.over.release()
    handler.close()


@pytest.mark.parametrize("end", [QueuedHandler.flush, QueuedHandler.close])
def test_flush_and_close_end_the_pause(end: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "GATHER", FOREVER)
    monkeypatch.setattr(log_writer, "EXIT_TIMEOUT", 30.0)
    stream = Writes()
    handler = make_handler(stream)
    for number in range(3):
        handler.emit(record(str(number)))
        handler.flush()
        assert "".join(stream.calls) == "".join(f"{one}\n" for one in range(number + 1))
    handler.emit(record("last"))
    assert callable(end)
    end(handler)
    assert stream.calls[-1] == "last\n"
    handler.close()
