"""A logging handler that never waits: lines go through a queue to a thread that writes them.

Rules of this file: nothing on a record's way into the queue blocks, or fails because of the state
of the stream. Standard error may be a pipe that nobody reads, a full disk, a pipe whose reader has
gone: the server goes on, and logs how many records were lost as soon as lines can be written again.

    emit() --full?--> counted     queue --thread--> os.write --fails--> counted
             |
             +------> formatted -> queue

Each count is changed by one side only (loggers, under the handler's lock, or the thread), so that
the thread never waits for that lock, which `logging.shutdown` holds while it waits for the thread.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TextIO

__all__ = ["EXIT_PATIENCE", "MOST_WAITING", "QueuedHandler"]

#: Characters that wait to be written before records are dropped: some 30,000 lines, which a disk
#: or a journal that hangs for some seconds does not fill, and at most 16 MiB of memory.
MOST_WAITING = 4 * 1024 * 1024

#: What may still wait when records are taken again: half of it, so that a reader that is merely
#: slow makes a few long gaps, each with its line, and not one gap a line.
_RESUME_AT = MOST_WAITING // 2

#: Characters joined for one write(2): what a pipe holds.
_BATCH = 64 * 1024

#: Seconds that the end of the program waits for the rest to be written. Whoever stops a service
#: waits longer (systemd 90 s, Docker 10 s); a disk that works needs less.
EXIT_PATIENCE = 1.0

#: Handlers whose thread does not exist in the child of a fork.
_handlers: weakref.WeakSet[QueuedHandler] = weakref.WeakSet()


class QueuedHandler(logging.Handler):
    """Formats records where they are logged and writes them elsewhere.

    Args:
        stream: where to. One with a descriptor is written by its descriptor, past its buffer.
        lost: makes the record that says how many were lost.
    """

    def __init__(self, stream: TextIO, lost: Callable[[int], logging.LogRecord]) -> None:
        super().__init__()
        self._stream = stream
        try:
            self._fd = stream.fileno()
        except (OSError, ValueError, AttributeError):  # a StringIO; a closed stream
            self._fd = -1
        self._make_lost = lost
        self._closed = False
        self._queued = 0  # characters, ever; changed under the lock
        self._lost = 0  # records, ever; changed under the lock
        self._begin()
        _handlers.add(self)

    def _begin(self) -> None:
        """Begin with nothing in the queue and no thread: it is started for the first record."""
        # A line; an Event to be set when all before it is written; how many records had been lost
        # when records were taken again; None at the end.
        self._queue: queue.SimpleQueue[str | threading.Event | int | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._dropping = False
        self._written = self._queued  # characters, ever; the thread's
        self._told = self._lost  # records lost that a line has told of; the thread's
        self._unwritten = 0  # records that could not be written; the thread's

    # --- those that log -------------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, or count it where the queue is full."""
        if self._closed:
            return
        if self._queued - self._written > (_RESUME_AT if self._dropping else MOST_WAITING):
            self._lost += 1
            self._dropping = True
            return
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if self._dropping:
            self._dropping = False
            self._queue.put(self._lost)
        self._queued += len(line)
        self._queue.put(line)
        if self._thread is None and not self._start():
            self._write_here()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Log that a record cannot be formatted; the library would print to standard error."""
        if getattr(record, "unformatted", False):
            return
        text = "cannot format a record of %s:%d: %r"
        values = (record.pathname, record.lineno, str(record.msg)[:200])
        instead = logging.LogRecord(
            record.name, logging.ERROR, record.pathname, record.lineno, text, values, sys.exc_info()
        )
        instead.unformatted = True
        self.emit(instead)

    def _start(self) -> bool:
        """Start the thread; return whether that was possible."""
        thread = threading.Thread(target=self._write_all, name="fastlisten-log", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no more threads, or the interpreter ends
            return False
        self._thread = thread
        return True

    def _write_here(self) -> None:
        """Write what waits without a thread, by the stream, which knows how long it may wait.

        A process that cannot start a thread has something worth logging.
        """
        fd, self._fd = self._fd, -1
        self._queue.put(None)
        self._write_all()
        self._fd = fd

    def flush(self) -> None:
        """Wait until what has been logged is written, at most `EXIT_PATIENCE`."""
        if self._thread is not None and self._thread.is_alive():
            done = threading.Event()
            self._queue.put(done)
            done.wait(EXIT_PATIENCE)

    def close(self) -> None:
        """Write what waits, for at most `EXIT_PATIENCE`; what is logged later is dropped."""
        self._closed = True
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(EXIT_PATIENCE)
        super().close()

    # --- the thread -----------------------------------------------------------------------------

    def _write_all(self) -> None:
        waiting = self._queue
        lines: list[str] = []
        size = 0
        while True:
            try:
                # What was lost is told at once, if nothing more is logged.
                wait = not lines and self._lost <= self._told
                item = waiting.get() if wait else waiting.get_nowait()
            except queue.Empty:
                item = self._lost
            if isinstance(item, str):
                lines.append(item)
                size += len(item)
                if size < _BATCH:
                    continue
            # At the end there will be no room again for a record that is taken.
            lost = self._lost if item is None else item if isinstance(item, int) else 0
            if lost > self._told:
                lines.append(self.format(self._make_lost(lost - self._told)))
                self._told = lost
            self._write_batch(lines)
            self._written += size
            lines, size = [], 0
            if isinstance(item, threading.Event):
                item.set()
            elif item is None:
                return

    def _write_batch(self, lines: list[str]) -> None:
        """Write lines, or count them."""
        if not lines:
            return
        if self._unwritten:
            lines.insert(0, self.format(self._make_lost(self._unwritten)))
        try:
            self._write("".join(f"{line}\n" for line in lines))
        except (OSError, ValueError):  # ValueError: the stream has been closed
            self._unwritten += len(lines) - (self._unwritten > 0)
        else:
            self._unwritten = 0

    def _write(self, text: str) -> None:
        if self._fd < 0:
            self._stream.write(text)
            self._stream.flush()
            return
        rest = memoryview(text.encode("utf-8", "backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # another process has made our standard error non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()


def _after_fork() -> None:
    for handler in _handlers:
        handler._begin()


os.register_at_fork(after_in_child=_after_fork)
