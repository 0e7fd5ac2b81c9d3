"""Lines that go to systemd's journal have a level, by which `journalctl -p` finds them.

Rules of this file: a file stands for the journal, named to the program as the manager would, by
device and inode in JOURNAL_STREAM. `.ci/full systemd` asks a real journal.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path
from urllib.request import urlopen

import pytest
from support.program import program
from support.waiting import PATIENCE, until

from fastlisten.cli.journal import at_level, is_journal
from fastlisten.cli.logging_setup import ProgramHandler

HTTP = """
[log]
format = "{form}"
[server.listener.it]
protocol = "http"
bind = "127.0.0.1:0"
{line}
"""


def journal_at(directory: Path, name: str = "err") -> dict[str, str]:
    """Return the environment of a service whose stream is the file of that name."""
    (directory / name).touch()
    found = (directory / name).stat()
    return {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


def test_log_has_levels_and_other_output_has_none(tmp_path: Path) -> None:
    text = HTTP.format(form="text", line="")
    with program(tmp_path, text, environ=journal_at(tmp_path)) as started:
        (tmp_path / "mail.toml").write_text("[server")
        started.signal(signal.SIGHUP)
        until(lambda: "nothing has changed" in started.err, "the failed reload")
        assert started.stop() == 0
    lines = (tmp_path / "err").read_text().splitlines()
    assert {line[:4] for line in lines} == {"<3>2", "<6>2"}
    assert all((" ERROR " in line) == line.startswith("<3>") for line in lines)
    # Standard output is another file here, so it is not the journal.
    assert (tmp_path / "out").read_text().startswith('listener "it": ')


def test_supervisor_and_workers_log_with_levels(tmp_path: Path) -> None:
    text = "workers = 2\n" + HTTP.format(form="text", line="")
    with program(tmp_path, text, environ=journal_at(tmp_path)) as started:
        until(lambda: started.err.count(" serves\n") == 2, "both workers")
        with urlopen(f"http://127.0.0.1:{started.port()}/healthz/live", timeout=PATIENCE) as answer:
            assert answer.status == 200
        started.process.terminate()
        assert started.ended() == 0
    lines = (tmp_path / "err").read_text().splitlines()
    assert {line[:4] for line in lines} == {"<6>2"}
    (request,) = [line for line in lines if "/healthz/live" in line]
    assert request.rpartition(" ")[2] in ("worker=0", "worker=1")


def test_json_has_levels(tmp_path: Path) -> None:
    text = HTTP.format(form="json", line="")
    with program(tmp_path, text, environ=journal_at(tmp_path)) as started:
        assert started.stop() == 0
    lines = (tmp_path / "err").read_text().splitlines()
    assert {line[:3] for line in lines} == {"<6>"}
    assert json.loads(lines[-1][3:])["message"] == "stopped"


def test_mistakes_and_failures_at_the_start_are_errors(tmp_path: Path) -> None:
    text = HTTP.format(form="text", line="max-connectoins = 1")
    with program(tmp_path, text, listeners=0, environ=journal_at(tmp_path)) as started:
        assert started.ended() == 2
    first, second = started.err.splitlines()
    assert (first[:10], second) == ("<3>error: ", "<3>1 error")
    text = HTTP.format(form="json", line="").replace("127.0.0.1:0", "192.0.2.1:9")
    with program(tmp_path, text, listeners=0, environ=journal_at(tmp_path)) as started:
        assert started.ended() == 3
    assert started.err[:4] == "<3>{"


def test_warnings_about_the_configuration_are_warnings(tmp_path: Path) -> None:
    text = "nonsense.key = 1\n" + HTTP.format(form="text", line="")
    with program(tmp_path, text, environ=journal_at(tmp_path)) as started:
        assert started.stop() == 0
    assert started.err.splitlines()[0].startswith("<4>warning: ")


def test_every_line_of_a_traceback_has_the_level(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, (tmp_path / "err").open("w") as stream:
        patch.setenv("JOURNAL_STREAM", journal_at(tmp_path)["JOURNAL_STREAM"])
        handler = ProgramHandler(stream)
        try:
            raise ValueError("two\nlines")
        except ValueError as error:
            info = (ValueError, error, error.__traceback__)
            handler.emit(logging.LogRecord("x", logging.CRITICAL, "", 0, "failed", (), info))
        finally:
            handler.close()
    lines = (tmp_path / "err").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("<3>failed", "<3>lines")
    assert {line[:3] for line in lines} == {"<3>"}


def test_levels_are_those_of_syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", journal_at(tmp_path)["JOURNAL_STREAM"])
    with (tmp_path / "err").open("w") as stream:
        levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
        marked = [at_level("x", level, stream) for level in levels]
    assert marked == ["<7>x", "<6>x", "<4>x", "<3>x", "<3>x"]


def test_stream_of_the_journal_must_be_the_one_that_is_written(tmp_path: Path) -> None:
    """Programs that a service starts inherit the variable, but may have another stream."""
    environ = journal_at(tmp_path)
    with (tmp_path / "err").open("w") as stream, (tmp_path / "other").open("w") as other:
        assert is_journal(stream, environ)
        assert not is_journal(other, environ)
        assert not is_journal(stream, {})
        assert not is_journal(stream, {"JOURNAL_STREAM": "nonsense"})
        os.close(other.fileno())
        assert not is_journal(other, environ)
        # For the end of the block, which closes it.
        os.dup2(stream.fileno(), other.fileno())
    assert not is_journal(stream, environ)
