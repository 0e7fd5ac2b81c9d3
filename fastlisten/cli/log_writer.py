"""A logging handler that never blocks: lines go through a queue to a thread that writes them.

Rules of this file: queueing a record neither blocks nor fails, whatever the state of the stream.
Standard error may be a full disk, or a pipe that is not read or whose reader has quit: the server
continues, and logs how many records were lost as soon as lines can be written again.

    emit() --full?--> counted     queue --thread--> os.write --fails--> counted
             |
             +------> formatted -> queue

A record that follows a pause is written at once; those that come within `GATHER` seconds of a write
are written together.

Each counter is changed by one side only: by loggers, under the handler's lock, or by the thread. So
the thread never needs that lock, which `logging.shutdown` holds while it waits for the thread.
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

__all__ = ["EXIT_TIMEOUT", "MAX_QUEUED", "QueuedHandler"]

#: Characters that may be queued before records are dropped: about 30,000 lines, enough for a disk
#: or a journal that hangs for some seconds, and at most 16 MiB of memory.
MAX_QUEUED = 4 * 1024 * 1024

#: Records are queued again when this little is left: half, so that a slow reader causes a few long
#: gaps, each reported by a line, rather than a gap after every line.
_RESUME_AT = MAX_QUEUED // 2

#: Characters joined for one write(2): the capacity of a pipe.
_BATCH = 64 * 1024

#: Seconds for which records gather after a write before the next one. Waking the thread costs more
#: than formatting a record: without this, a busy server wakes it for every line.
GATHER = 0.01

#: Seconds that the program waits at its end for the rest to be written. A working disk needs less,
#: and service managers wait longer before they kill (systemd 90 s, Docker 10 s).
EXIT_TIMEOUT = 1.0

#: All handlers. In a forked child their threads don't exist.
_handlers: weakref.WeakSet[QueuedHandler] = weakref.WeakSet()


class QueuedHandler(logging.Handler):
    """Formats records in the thread that logs them and writes them in another.

    Args:
        stream: where to write. If it has a descriptor, that is used, bypassing the buffer.
        lost: makes the record that says how many records were lost.
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
        self._queued = 0  # total characters; changed under the lock
        self._lost = 0  # total records; changed under the lock
        self._begin()
        _handlers.add(self)

    def _begin(self) -> None:
        """Start with an empty queue and no thread, which the first record starts."""
        # Items: a line; an Event to set when everything before it is written; the total of lost
        # records at the end of a gap; None at the end.
        self._queue: queue.SimpleQueue[str | threading.Event | int | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()  # set when somebody waits for the thread
        self._dropping = False
        # Changed by the thread:
        self._written = self._queued  # total characters
        self._reported = self._lost  # total lost records that have been reported
        self._unwritten = 0  # records that could not be written, not reported yet

    # --- in threads that log --------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, or count it as lost if the queue is full."""
        if self._closed:
            return
        if self._queued - self._written > (_RESUME_AT if self._dropping else MAX_QUEUED):
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
        """Log that a record cannot be formatted; `logging` would print to standard error."""
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
        """Start the thread; return False if that is not possible."""
        thread = threading.Thread(target=self._write_all, name="fastlisten-log", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # out of threads, or the interpreter is shutting down
            return False
        self._thread = thread
        return True

    def _write_here(self) -> None:
        """Write what is queued in this thread, through the stream, which has a timeout.

        A process that cannot start a thread has something worth logging.
        """
        fd, self._fd = self._fd, -1
        self._queue.put(None)
        self._write_all()
        self._fd = fd

    def flush(self) -> None:
        """Wait until everything logged so far is written, for at most `EXIT_TIMEOUT`."""
        if self._thread is not None and self._thread.is_alive():
            done = threading.Event()
            self._queue.put(done)
            self._hurry.set()
            done.wait(EXIT_TIMEOUT)

    def close(self) -> None:
        """Write what is queued, for at most `EXIT_TIMEOUT`; drop what is logged later."""
        self._closed = True
        self.rest()
        super().close()

    def rest(self) -> None:
        """Write what is queued, for at most `EXIT_TIMEOUT`, and end the thread.

        The next record starts another one, which has the signal mask of the thread that logs.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            self._hurry.set()
            thread.join(EXIT_TIMEOUT)
            self._hurry.clear()

    # --- in the writing thread ------------------------------------------------------------------

    def _write_all(self) -> None:
        items = self._queue
        lines: list[str] = []
        size = 0
        while True:
            try:
                # Don't wait if there is something to write, or lost records to report.
                wait = not lines and self._lost <= self._reported
                item = items.get() if wait else items.get_nowait()
                drained = False
            except queue.Empty:
                item = self._lost
                drained = True
            if isinstance(item, str):
                lines.append(item)
                size += len(item)
                if size < _BATCH:
                    continue
            # At the end, report records lost in a gap that is not over.
            lost = self._lost if item is None else item if isinstance(item, int) else 0
            if lost > self._reported:
                lines.append(self.format(self._make_lost(lost - self._reported)))
                self._reported = lost
            self._write_batch(lines)
            self._written += size
            lines, size = [], 0
            if isinstance(item, threading.Event):
                self._hurry.clear()
                item.set()
            elif item is None:
                return
            elif drained:
                self._hurry.wait(GATHER)

    def _write_batch(self, lines: list[str]) -> None:
        """Write lines, or count them as unwritten if that fails."""
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
            except BlockingIOError:  # another process made our standard error non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()


def _after_fork() -> None:
    for handler in _handlers:
        handler._begin()


os.register_at_fork(after_in_child=_after_fork)
