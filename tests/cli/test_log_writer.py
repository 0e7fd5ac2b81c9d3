"""Logging never blocks the server: neither on an unread pipe nor a full disk or a closed stream.

Rules of this file: the tests check that clients are served and what the lines say, never how long
something took.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.environment import clean_environment
from support.waiting import PATIENCE, until

from fastlisten.cli import log_writer
from fastlisten.cli.log_writer import QueuedHandler
from fastlisten.cli.logging_setup import set_up_logging

CONFIG = """
[log]
level = "debug"
format = "{form}"
[server]
hostname = "mx.example.org"
data-directory = "{directory}"
shutdown-timeout = "5s"
[server.listener.it]
protocol = "smtp"
bind = "127.0.0.1:0"
tls.enable = false
"""


def lost(count: int) -> logging.LogRecord:
    return logging.LogRecord("t", logging.WARNING, "", 0, "%d lost", (count,), None)


class Pipe:
    """A pipe of minimum size, and a handler that writes to it."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        self.file = os.fdopen(writer, "w")
        self.handler = QueuedHandler(self.file, lost)
        self._rest = ""

    def log(self, text: str, *values: object) -> None:
        """Log a line."""
        self.handler.handle(logging.LogRecord("t", logging.INFO, "f", 1, text, values, None))

    def read(self) -> list[str]:
        """Return the next lines, at least one."""
        lines: list[str] = []
        while not lines:
            self._rest += os.read(self.reader, 65536).decode()
            *lines, self._rest = self._rest.split("\n")
        return lines

    def close(self) -> None:
        """Let queued lines be written, and close."""
        os.set_blocking(self.reader, False)
        closing = threading.Thread(target=self.handler.close)
        closing.start()
        while closing.is_alive():
            with contextlib.suppress(BlockingIOError):
                os.read(self.reader, 65536)
        self.file.close()
        os.close(self.reader)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    one = Pipe()
    yield one
    one.close()


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the queue hold 1,000 characters, and accept records again at 500."""
    monkeypatch.setattr(log_writer, "MAX_QUEUED", 1000)
    monkeypatch.setattr(log_writer, "_RESUME_AT", 500)


def walk(pipe: Pipe, whole: int) -> tuple[int, int]:
    """Read numbered lines, and the reports about missing ones in their place.

    Returns:
        How many lines there were, and how many were lost.
    """
    number = gaps = 0
    while number < whole:
        for line in pipe.read():
            if match := re.fullmatch(r"(\d+) lost", line):
                number += int(match[1])
                gaps += int(match[1])
            else:
                assert line.split()[0] == str(number)
                number += 1
    assert number == whole
    return number - gaps, gaps


# --- the handler ------------------------------------------------------------------------------


def test_records_that_do_not_fit_are_counted(pipe: Pipe, little_room: None) -> None:
    """The count is where they are missing, without an extra record; all else comes in order."""
    for number in range(500):
        pipe.log("%d %s", number, "x" * 95)  # 50,000 characters for 4,096 and 1,000
    there, gaps = walk(pipe, 500)
    assert there >= 10
    assert gaps >= 300
    pipe.log("afterwards")
    assert pipe.read() == ["afterwards"]


def test_dropped_record_is_not_formatted(pipe: Pipe, little_room: None) -> None:
    class Counted:
        formatted = 0

        def __str__(self) -> str:
            Counted.formatted += 1
            return "x" * 95

    for number in range(500):
        pipe.log("%d %s", number, Counted())
    assert Counted.formatted == walk(pipe, 500)[0]


def test_slow_reader_loses_nothing_while_the_queue_has_room(pipe: Pipe) -> None:
    for number in range(5000):
        pipe.log("%d %s", number, "x" * 95)
    assert walk(pipe, 5000) == (5000, 0)


def test_many_threads_log_concurrently(pipe: Pipe, little_room: None) -> None:
    """Every record is written or counted."""

    def log() -> None:
        for _ in range(200):
            pipe.log("line %s", "x" * 95)

    threads = [threading.Thread(target=log) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = 0
    while seen < 800:
        for line in pipe.read():
            match = re.fullmatch(r"(\d+) lost", line)
            seen += int(match[1]) if match else 1
    assert seen == 800
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("broken", ["full", "reader gone"])
def test_records_that_cannot_be_written_are_counted(pipe: Pipe, broken: str) -> None:
    kept = os.dup(pipe.file.fileno())
    if broken == "full":
        bad = os.open("/dev/full", os.O_WRONLY)
    else:
        gone, bad = os.pipe()
        os.close(gone)
    os.dup2(bad, pipe.file.fileno())
    os.close(bad)
    for number in range(3):
        pipe.log("%d", number)
        pipe.handler.flush()
    os.dup2(kept, pipe.file.fileno())
    os.close(kept)
    pipe.log("%d", 3)
    assert pipe.read() == ["3 lost", "3"]


def test_non_blocking_stream_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.file.fileno(), False)
    for number in range(500):
        pipe.log("%d %s", number, "x" * 95)
    assert walk(pipe, 500) == (500, 0)


def test_record_that_cannot_be_formatted_is_reported(
    pipe: Pipe, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe.log("%d connections", "no number")
    line = pipe.read()[0]
    assert line == "cannot format a record of f:1: '%d connections'"
    assert capfd.readouterr().err == ""


def test_forked_child_starts_with_an_empty_queue(pipe: Pipe, tmp_path: Path) -> None:
    """Only the parent writes what is queued; the child has its own thread."""
    for number in range(200):
        pipe.log("%d %s", number, "x" * 95)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about a fork with threads
        child = os.fork()
    if child == 0:
        fd = os.open(tmp_path / "child", os.O_WRONLY | os.O_CREAT)
        os.dup2(fd, pipe.file.fileno())
        pipe.log("from the child")
        pipe.handler.close()
        os._exit(0)
    assert walk(pipe, 200) == (200, 0)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "child").read_text() == "from the child\n"


def test_close_does_not_wait_for_ever(pipe: Pipe) -> None:
    for number in range(200):
        pipe.log("%d %s", number, "x" * 95)
    pipe.handler.close()
    pipe.log("dropped")
    assert walk(pipe, 200) == (200, 0)  # its thread lives as long as the process


# --- what Python itself would print -----------------------------------------------------------


def test_lost_records_are_reported_at_close(little_room: None) -> None:
    """The server stops while its log is behind, and no further record will be accepted."""

    class Held(io.StringIO):
        def write(self, text: str, /) -> int:
            assert go.wait(PATIENCE)
            return super().write(text)

    go, stream = threading.Event(), Held()
    handler = QueuedHandler(stream, lost)
    for number in range(50):
        handler.handle(
            logging.LogRecord("t", logging.INFO, "f", 1, f"{number} {'x' * 95}", (), None)
        )
    thread = handler._thread
    assert thread is not None
    handler._queue.put(None)  # as `close` does
    go.set()
    thread.join(PATIENCE)
    *written, last = stream.getvalue().splitlines()
    assert 0 < len(written) < 50
    assert last == f"{50 - len(written)} lost"
    handler.close()


def test_warnings_and_exceptions_go_to_the_log() -> None:
    """From modules without a handler, warnings, and exceptions of threads, in JSON."""
    names = ("fastlisten", "asyncio", "py.warnings")
    before = [(one.handlers[:], one.propagate, one.level) for one in map(logging.getLogger, names)]
    hooks = (sys.unraisablehook, threading.excepthook, logging.lastResort, warnings.showwarning)
    root = logging.getLogger()
    of_root, root.handlers[:] = root.handlers[:], []
    stream = io.StringIO()
    handler = set_up_logging("info", "json", stream)
    try:
        logging.getLogger("someones.application").warning("careful")
        logging.getLogger("someones.application").info("not heard by Python's rules either")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning("old", DeprecationWarning, "file.py", 7)
        thread = threading.Thread(target=lambda: 1 // 0, name="worker")
        thread.start()
        thread.join()
    finally:
        handler.close()
        root.handlers[:] = of_root
        for name, (handlers, propagate, level) in zip(names, before, strict=True):
            one = logging.getLogger(name)
            one.handlers[:], one.propagate = handlers, propagate
            one.setLevel(level)
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(one["logger"], one["message"].split("\n")[0]) for one in records] == [
        ("someones.application", "careful"),
        ("py.warnings", "file.py:7: DeprecationWarning: old"),
        ("fastlisten", "thread worker failed"),
    ]
    assert "ZeroDivisionError" in records[-1]["exception"]
    after = (sys.unraisablehook, threading.excepthook, logging.lastResort, warnings.showwarning)
    assert after == hooks


# --- the program ------------------------------------------------------------------------------


@contextlib.contextmanager
def started(
    directory: Path, form: str, stderr: int | None
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run `fastlisten serve`; give its port and process. Without a descriptor stderr is closed."""
    file = directory / "mail.toml"
    file.write_text(CONFIG.format(form=form, directory=directory))
    (directory / "accounts.toml").write_text('[account."alice@example.org"]\n')
    command = [sys.executable, "-m", "fastlisten", "serve", str(file)]
    if stderr is None:
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    with (directory / "out").open("wb") as out:
        process = subprocess.Popen(
            command, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=stderr
        )
    try:

        def port() -> re.Match[str] | None:
            return re.search(r"127\.0\.0\.1:(\d+)", (directory / "out").read_text())

        until(lambda: port() or process.poll() is not None, "the port")
        found = port()
        assert found is not None
        yield int(found[1]), process
    finally:
        process.kill()
        process.wait()


def session(port: int) -> bytes:
    """Return everything that a client receives when it sends little."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"NOOP\r\nQUIT\r\n")
        heard = b""
        while data := client.recv(4096):
            heard += data
    return heard


@pytest.mark.parametrize("form", ["text", "json"])
def test_server_works_when_its_log_is_not_read(tmp_path: Path, form: str) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with started(tmp_path, form, writer) as (port, process):
        os.close(writer)
        for _ in range(300):  # two lines each: ten times what the pipe holds
            assert session(port).endswith(b"221 2.0.0 mx.example.org Goodbye\r\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    os.close(reader)


@pytest.mark.parametrize("stream", ["full", "reader gone", "closed"])
def test_server_works_when_its_log_cannot_be_written(tmp_path: Path, stream: str) -> None:
    writer: int | None = None
    if stream == "full":
        writer = os.open("/dev/full", os.O_WRONLY)
    elif stream == "reader gone":
        reader, writer = os.pipe()
        os.close(reader)
    with started(tmp_path, "text", writer) as (port, process):
        if writer is not None:
            os.close(writer)
        else:  # nothing else got the descriptor
            assert os.readlink(f"/proc/{process.pid}/fd/2") == os.devnull
        for _ in range(5):
            assert session(port).endswith(b"221 2.0.0 mx.example.org Goodbye\r\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert "Traceback" not in (tmp_path / "out").read_text()
