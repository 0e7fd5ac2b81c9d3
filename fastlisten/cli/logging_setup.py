"""The program's log: one line of text or one JSON object per record, on standard error.

Rules of this file: only the program sets up logging; used as a library, the package just logs to
loggers below ``fastlisten``. Records are formatted here and written by log_writer.py; in the
journal their lines have a level (journal.py).
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from typing import Literal, TextIO

from fastlisten.cli.journal import is_journal, with_level
from fastlisten.cli.log_writer import QueuedHandler
from fastlisten.log_events import event_record

__all__ = [
    "JsonFormatter",
    "ProgramHandler",
    "log_unraisable",
    "set_level",
    "set_up_logging",
    "set_worker",
]


#: The event of records that have no other.
NOTE = "note"

_NO_FIELDS: dict[str, object] = {}

#: Values of fields that are left out; 0 is not one of them.
_EMPTY: tuple[object, ...] = (None, "", [])


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, event, its fields, message, exception.

    The time is ISO 8601 in UTC with milliseconds. docs/logging.md names events and fields.

    Attributes:
        worker: the number of the worker that this process is, None if it is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.worker: int | None = None
        self._second: tuple[int, str] = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        fields = _fields(record)
        line: dict[str, object] = {
            "time": self._time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": NOTE if fields is _NO_FIELDS else getattr(record, "event", NOTE),
        }
        if self.worker is not None:
            line["worker"] = self.worker
        line.update((name, value) for name, value in fields.items() if value not in _EMPTY)
        line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False)
        # JSON allows U+0085 and U+2028 in strings, but programs that read lines may split there.
        return text if text.isprintable() else "".join(map(_json_escape, text))

    def _time(self, created: float) -> str:
        """Return a time in ISO 8601; the text is cached for each second."""
        whole = int(created)
        if self._second[0] != whole:
            self._second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
        return f"{self._second[1]}.{int(created % 1 * 1000):03}Z"


class _TextFormatter(logging.Formatter):
    """One line per record; control characters are escaped, so that a peer cannot forge lines.

    The line of a session ends with its id, so that a client can be followed. The lines of a
    traceback, which may quote a peer too, are indented.

    Attributes:
        worker: the number of the worker that this process is, None if it is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.worker: int | None = None
        self._minute: tuple[int, str] = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, followed by the lines of its traceback."""
        line = f"{self._time(record.created)} {record.levelname} {record.name}: "
        line += record.getMessage()
        session = _fields(record).get("session")
        if session:
            line = f"{line} session={session}"
        if self.worker is not None:
            line = f"{line} worker={self.worker}"
        if not record.exc_info:
            return _escape(line)
        trace = self.formatException(record.exc_info).split("\n")
        return "\n".join(_escape(each) for each in (line, *(f"  {it}" for it in trace)))

    def _time(self, created: float) -> str:
        """Return date and local time; the text is cached for each minute."""
        minute, second = divmod(int(created), 60)
        if self._minute[0] != minute:
            text = time.strftime("%Y-%m-%d %H:%M", time.localtime(minute * 60))
            self._minute = (minute, text)
        return f"{self._minute[1]}:{second:02}"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of an event; `_NO_FIELDS` itself if the record is not an event.

    Records of other packages (asyncio, applications) may have attributes of any name by `extra`.
    """
    fields = getattr(record, "fields", None)
    if isinstance(fields, dict) and record.name.partition(".")[0] == "fastlisten":
        return fields
    return _NO_FIELDS


def _json_escape(char: str) -> str:
    """Return a character of a JSON text, escaped if it is not printable.

    A lone surrogate is not a character and is replaced by U+FFFD, as in UTF-8.
    """
    if char.isprintable():
        return char
    return "\\ufffd" if "\ud800" <= char <= "\udfff" else json.dumps(char)[1:-1]


def _escape(text: str) -> str:
    """Return a text in which characters that are not printable are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log an exception that cannot be raised; a replacement for `sys.unraisablehook`.

    Python's ssl has one whenever a client asks for a host name that is not ASCII, on a listener
    with `tls.sni`. The handshake has already failed and been counted, and clients must not be able
    to fill the log with tracebacks.
    """
    what, exc = unraisable.err_msg or "exception ignored in", unraisable.exc_value
    # Since Python 3.14 the object is None, and the message names it.
    if isinstance(exc, UnicodeDecodeError) and (
        isinstance(unraisable.object, bytes) or "ssl servername callback" in what
    ):
        logging.getLogger("fastlisten").debug(
            "a client asked for the host name %r, which is not ASCII", exc.object
        )
        return
    if unraisable.object is not None:
        what = f"{what}: {unraisable.object!r}"
    logging.getLogger("fastlisten").error("%s", what, exc_info=exc)


class ProgramHandler(QueuedHandler):
    """The handler of everything that the program logs; `close` undoes `set_up_logging`."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream, _lost)
        self._journal = is_journal(stream)
        self._ended = False
        self._hooks = (sys.unraisablehook, threading.excepthook, logging.lastResort)
        sys.unraisablehook = log_unraisable
        threading.excepthook = _log_thread
        logging.lastResort = _LastResort(self)
        logging.captureWarnings(True)

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record, in the journal with their level."""
        text = super().format(record)
        return with_level(text, record.levelno) if self._journal else text

    def close(self) -> None:
        """Write what is queued and restore the hooks."""
        if not self._ended:
            self._ended = True
            sys.unraisablehook, threading.excepthook, logging.lastResort = self._hooks
            logging.captureWarnings(False)
        super().close()


class _LastResort(logging.Handler):
    """Handles warnings and errors of loggers that have no handler.

    These are loggers of modules that a configuration names (applications, handlers). Python's own
    handler of last resort writes to standard error directly, and so may block.
    """

    def __init__(self, target: logging.Handler) -> None:
        super().__init__(logging.WARNING)
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        self._target.handle(record)


#: The loggers whose records are written.
_LOGGERS = ("fastlisten", "asyncio", "py.warnings")


def _lost(count: int) -> logging.LogRecord:
    """Return a record that says how many records were lost."""
    text = "%d log records lost: they could not be written"
    fields: dict[str, object] = {"count": count}
    return event_record("fastlisten", logging.WARNING, "records-lost", text, (count,), fields)


def _log_thread(failure: threading.ExceptHookArgs) -> None:
    """Log an exception that ended a thread; a replacement for `threading.excepthook`."""
    if failure.exc_type is not SystemExit:
        name = failure.thread.name if failure.thread is not None else "unknown"
        logging.getLogger("fastlisten").error("thread %s failed", name, exc_info=failure.exc_value)


def set_up_logging(level: str, form: Literal["text", "json"], stream: TextIO) -> ProgramHandler:
    """Log records of the package and of asyncio, and what Python itself would print, to a stream.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        form: as `log.format`.
        stream: usually standard error.

    Returns:
        The handler, to be closed at the end of the program.
    """
    handler = ProgramHandler(stream)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
    set_level(level)
    return handler


def set_level(level: str) -> None:
    """Change the lowest level that is logged; `level` as for `set_up_logging`."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(level.upper())


def set_worker(handler: ProgramHandler, number: int) -> None:
    """Let every record say which worker has logged it."""
    if isinstance(handler.formatter, JsonFormatter | _TextFormatter):
        handler.formatter.worker = number
