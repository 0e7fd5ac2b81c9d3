"""The log's writer and streams that block, fail, or cannot take a text.

Rules of this file: a stream of our own stands for standard error. It blocks or fails when a test
says so, so that nothing depends on time: the writer is waited for as long as it takes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator

import pytest
from support.waiting import PATIENCE, until

from fastlisten.cli import log_writer
from fastlisten.cli.log_writer import QueuedHandler


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("t", logging.INFO, "", 0, text, (), None)


class Stream(io.StringIO):
    """A stream that a test controls.

    Attributes:
        written: each write.
        failures: raised by the next writes, one by one.
        allowed: how many writes may be made; None for all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []
        self.failures: list[Exception] = []
        self.allowed: threading.Semaphore | None = None
        self.waits = threading.Event()  # a write has begun that is not allowed yet

    def write(self, text: str) -> int:
        if self.allowed is not None:
            self.waits.set()
            self.allowed.acquire()
        if self.failures:
            raise self.failures.pop(0)
        self.written.append(text)
        return len(text)

    @property
    def lines(self) -> list[str]:
        return "".join(self.written).split("\n")[:-1]


@contextlib.contextmanager
def handling(stream: Stream, timeout: float = PATIENCE) -> Iterator[QueuedHandler]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_writer, "EXIT_TIMEOUT", timeout)
        handler = QueuedHandler(stream, lambda count: record(f"{count} lost"))
        try:
            yield handler
        finally:
            if stream.allowed is not None:
                stream.allowed.release(10_000)
            handler.close()


def test_records_are_dropped_until_the_queue_is_half_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a slow stream has one long gap, not one after every line."""
    monkeypatch.setattr(log_writer, "MAX_QUEUED", 1000)
    monkeypatch.setattr(log_writer, "_RESUME_AT", 500)
    monkeypatch.setattr(log_writer, "_BATCH", 1)  # each line is a write
    stream = Stream()
    stream.allowed = threading.Semaphore(0)
    with handling(stream) as handler:
        for _ in range(20):
            handler.emit(record("x" * 100))
        assert handler._lost > 0
        while (queued := handler._queued - handler._written) > 500:
            lost, before = handler._lost, handler._written
            handler.emit(record("y"))
            assert handler._lost == lost + 1, queued
            stream.allowed.release()
            until(lambda: handler._written > before, "a write")  # noqa: B023
        handler.emit(record("z"))
        assert handler._lost == lost + 1
    assert [line for line in stream.lines if "lost" in line] == [f"{lost + 1} lost"]
    assert stream.lines[-1] == "z"


@pytest.mark.parametrize("error", [OSError("no space left"), ValueError("I/O on closed file")])
def test_unwritten_records_are_reported_once(error: Exception) -> None:
    stream = Stream()
    stream.failures = [error, error]
    with handling(stream) as handler:
        for text in ("a", "b", "c", "d"):
            handler.emit(record(text))
            handler.flush()
    assert stream.written == ["2 lost\nc\n", "d\n"]


def test_formatter_that_always_fails_is_asked_twice() -> None:
    """Once for the record, once for the one that says so."""
    asked = []

    class Fails(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            asked.append(record.getMessage())
            raise ValueError("on purpose")

    with handling(Stream()) as handler:
        handler.setFormatter(Fails())
        handler.emit(record("first"))
        handler.emit(record("second"))
        handler.setFormatter(None)
    assert len(asked) == 4


def test_writes_have_a_bound() -> None:
    stream = Stream()
    stream.allowed = threading.Semaphore(0)
    with handling(stream) as handler:
        handler.emit(record("first"))
        stream.waits.wait()
        for _ in range(5_000):
            handler.emit(record("x" * 99))
    assert len(stream.lines) == 5_001
    assert max(map(len, stream.written)) <= log_writer._BATCH * 100 / 99 + 100


def test_flush_is_bounded() -> None:
    stream = Stream()
    stream.allowed = threading.Semaphore(0)
    with handling(stream, 0.01) as handler:
        handler.emit(record("first"))
        handler.flush()
        assert stream.written == []


def test_records_gather_again_after_a_flush() -> None:
    with handling(Stream()) as handler:
        handler.emit(record("first"))
        handler.flush()
        assert not handler._hurry.is_set()


def test_text_that_is_not_unicode_is_escaped() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as read:
        with os.fdopen(writer, "w") as file:
            handler = QueuedHandler(file, lambda count: record(f"{count} lost"))
            handler.emit(record("caf\udce9"))
            handler.close()
        assert read.read() == "caf\\udce9\n"


def test_forked_child_begins_with_an_empty_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its parent has queued takes no room: the child cannot write it."""
    monkeypatch.setattr(log_writer, "MAX_QUEUED", 1000)
    stream = Stream()
    stream.allowed = threading.Semaphore(0)
    with handling(stream) as handler:
        for _ in range(9):
            handler.emit(record("x" * 100))
        stream.waits.wait()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads
            child = os.fork()
        if child == 0:
            # Nothing but the decision: this process has no thread and no pytest.
            for _ in range(9):
                handler.emit(record("y" * 100))
            os._exit(handler._lost)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
