"""The log when the process lacks something, and records from other packages.

Rules of this file: every line that is written can be parsed like the others, and nothing is dropped
silently.
"""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.environment import clean_environment

from fastlisten.cli import logging_setup
from fastlisten.cli.log_writer import QueuedHandler


@pytest.fixture(params=["text", "json"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def handler(form: str, stream: io.StringIO) -> Iterator[logging_setup.ProgramHandler]:
    """A handler of the program's, attached to no logger."""
    made = logging_setup.ProgramHandler(stream)
    made.setFormatter(
        logging_setup.JsonFormatter() if form == "json" else logging_setup._TextFormatter()
    )
    yield made
    made.close()


def record(
    text: str, *values: object, name: str = "fastlisten", **extra: object
) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.INFO, "f", 1, text, values, None)
    vars(made).update(extra)
    return made


# --- no threads -------------------------------------------------------------------------------


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_lines_are_written_without_a_thread(
    handler: QueuedHandler, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        handler.handle(record("first"))
        handler.handle(record("second"))
        assert [line.count("first") for line in stream.getvalue().splitlines()] == [1, 0]
        assert "second" in stream.getvalue()
    handler.handle(record("third"))
    handler.flush()
    assert len(stream.getvalue().splitlines()) == 3
    assert "lost" not in stream.getvalue()


def test_program_that_cannot_start_a_thread_says_why_it_ends(tmp_path: Path) -> None:
    """For root the number of processes is not limited, so memory has to be the limit."""
    file = tmp_path / "mail.toml"
    file.write_text(
        f'[server]\nhostname = "mx"\ndata-directory = "{tmp_path}"\n[server.listener.it]\n'
        'protocol = "smtp"\nbind = "127.0.0.1:0"\ntls.enable = false\n'
    )
    code = (
        "import sys, threading\n"
        'def refuse(thread): raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = refuse\n"
        "from fastlisten.cli.main import main\n"
        f"sys.argv = ['fastlisten', 'serve', {str(file)!r}]\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 3)
    assert "can't start new thread" in done.stderr


def test_program_out_of_memory_says_so() -> None:
    code = (
        "import sys, types\n"
        "from fastlisten.cli import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'fastlisten.cli.serve': raise MemoryError\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['fastlisten', 'serve']\n"
        "sys.exit(main.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (3, "error: cannot start: not enough memory\n")


# --- lines and records ------------------------------------------------------------------------


def test_lost_records_have_an_event() -> None:
    line = json.loads(logging_setup.JsonFormatter().format(logging_setup._lost(3)))
    assert (line["event"], line["count"], line["level"]) == ("records-lost", 3, "warning")


def test_lone_surrogates_are_escaped(
    form: str, handler: QueuedHandler, stream: io.StringIO
) -> None:
    """File names that are not UTF-8 contain them; not every JSON parser accepts them."""
    handler.handle(record("%s", 'a\udc80b\u2028c\U0001f600\x85"\\d'))
    handler.flush()
    (line,) = stream.getvalue().splitlines()
    line.encode("utf-8")
    if form == "json":
        assert "\\ud" not in line
        assert json.loads(line)["message"] == 'a\ufffdb\u2028c\U0001f600\x85"\\d'
    else:
        assert "a\\udc80b\\u2028c" in line


@pytest.mark.parametrize(
    "extra",
    [
        {"event": object()},
        {"fields": ["no", "table"]},
        {"fields": {("no", "text"): 1}},
        {"fields": {"time": "forged", "session": "forged"}},
        {"event": {"nested": object()}, "fields": None},
    ],
)
def test_foreign_attributes_of_records_are_ignored(
    form: str, handler: QueuedHandler, stream: io.StringIO, extra: dict[str, object]
) -> None:
    """An application or library sets them with `extra`; its records reach the log."""
    handler.handle(record("said %s", "so", name="theirs", **extra))
    handler.flush()
    (line,) = stream.getvalue().splitlines()
    assert "said so" in line
    assert "forged" not in line
    if form == "json":
        assert set(json.loads(line)) == {"time", "level", "logger", "event", "message"}
        assert json.loads(line)["event"] == "note"
