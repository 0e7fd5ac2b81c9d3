"""How the program logs: one line of text or one JSON object per record, to standard error.

Rules of this file: the library logs to loggers below ``fastlisten`` and sets nothing up; only the
program does, here. What is said has its form here; log_writer.py writes it.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from typing import Literal, TextIO

from fastlisten.cli.log_writer import QueuedHandler

__all__ = ["JsonFormatter", "ProgramHandler", "log_unraisable", "set_up_logging"]


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time (seconds since the epoch), level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False)
        # JSON lets U+0085 and U+2028 stand as they are, and readers of lines split there.
        return text if text.isprintable() else json.dumps(line)


class _TextFormatter(logging.Formatter):
    """One line per record: control characters in it are escaped, so that no peer writes lines.

    The lines of a traceback, which may quote a peer too, are indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()
        record.asctime = self.formatTime(record, self.datefmt)
        lines = [self.formatMessage(record)]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += [f"  {line}" for line in trace.split("\n")]
        return "\n".join(_escape(line) for line in lines)


def _escape(text: str) -> str:
    """Return a text without characters that move a cursor or end a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log an exception that nobody could catch; for `sys.unraisablehook`, which would print it.

    Python's ssl raises one whenever a client asks for a host name that is not ASCII, on a listener
    with `tls.sni`. The handshake has failed by then and is counted with others: clients shall not
    fill the log with tracebacks.
    """
    if isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(
        unraisable.object, bytes
    ):
        logging.getLogger("fastlisten").debug(
            "a client asked for the host name %r, which is not ASCII", unraisable.object
        )
        return
    logging.getLogger("fastlisten").error(
        "%s: %r",
        unraisable.err_msg or "exception ignored in",
        unraisable.object,
        exc_info=unraisable.exc_value,
    )


class ProgramHandler(QueuedHandler):
    """The handler of all that the program logs; `close` ends what `set_up_logging` began."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream, _lost)
        self._ended = False
        self._hooks = (sys.unraisablehook, threading.excepthook, logging.lastResort)
        sys.unraisablehook = log_unraisable
        threading.excepthook = _log_thread
        logging.lastResort = _LastResort(self)
        logging.captureWarnings(True)

    def close(self) -> None:
        """Write what waits, and give back the hooks."""
        if not self._ended:
            self._ended = True
            sys.unraisablehook, threading.excepthook, logging.lastResort = self._hooks
            logging.captureWarnings(False)
        super().close()


class _LastResort(logging.Handler):
    """Takes the warnings and errors of loggers that nobody has given a handler.

    They are those of the modules that a configuration names (applications, handlers). The one
    that Python has for them writes to standard error at once, and would wait for its reader.
    """

    def __init__(self, target: logging.Handler) -> None:
        super().__init__(logging.WARNING)
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        self._target.handle(record)


def _lost(count: int) -> logging.LogRecord:
    """Return the record that says how many were lost."""
    text = "%d log records lost: they could not be written"
    return logging.LogRecord("fastlisten", logging.WARNING, __file__, 0, text, (count,), None)


def _log_thread(failure: threading.ExceptHookArgs) -> None:
    """Log what ended a thread; for `threading.excepthook`, which would print it."""
    if failure.exc_type is not SystemExit:
        name = failure.thread.name if failure.thread is not None else "unknown"
        logging.getLogger("fastlisten").error("thread %s failed", name, exc_info=failure.exc_value)


def set_up_logging(level: str, form: Literal["text", "json"], stream: TextIO) -> ProgramHandler:
    """Send the package's and asyncio's records to a stream, and all that Python itself would print.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        form: as `log.format`.
        stream: usually standard error.

    Returns:
        What writes them; to be closed at the end of the program.
    """
    handler = ProgramHandler(stream)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(
            _TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
        )
    for name in ("fastlisten", "asyncio", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    return handler
