"""Log lines: each is one line, names its listener, and cannot be forged with data from a peer."""

from __future__ import annotations

import datetime
import io
import json
import logging
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.program import program
from support.waiting import PATIENCE, until

from fastlisten.cli import logging_setup
from fastlisten.cli.logging_setup import ProgramHandler
from fastlisten.log_events import log
from fastlisten.loop.log_records import log_records

LINE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} "
    r"(DEBUG|INFO|WARNING|ERROR) (fastlisten|asyncio)[a-z.]*: .*"
)

#: Everything that some reader takes for a line end, and what moves a terminal's cursor.
CONTROLS = "\n\r\v\f\x00\x08\x1b\x1c\x1d\x1e\x7f\x85\x9b\u2028\u2029"

FORGED = "2026-01-01 00:00:00 ERROR fastlisten: all is lost"


open_handlers: list[ProgramHandler] = []


def set_up_logging(level: str, form: str, stream: io.StringIO) -> None:
    """Log to a stream until the end of the test."""
    open_handlers.append(logging_setup.set_up_logging(level, form, stream))  # type: ignore[arg-type]


def written(stream: io.StringIO) -> str:
    """Return what has been logged."""
    for handler in open_handlers:
        handler.flush()
    return stream.getvalue()


@pytest.fixture(autouse=True)
def loggers_back() -> Iterator[None]:
    """Undo what `set_up_logging` does to the loggers of this process."""
    loggers = [logging.getLogger(name) for name in ("fastlisten", "asyncio", "py.warnings")]
    before = [(one.handlers[:], one.propagate, one.level) for one in loggers]
    yield
    for handler in open_handlers:
        handler.close()
    open_handlers.clear()
    for one, (handlers, propagate, level) in zip(loggers, before, strict=True):
        one.handlers[:] = handlers
        one.propagate = propagate
        one.setLevel(level)


def smtp(log: str, *lines: str) -> str:
    """Return a configuration for `program`, which adds the table [server]."""
    return (
        f'[log]\n{log}\n[server.listener."in.coming"]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
        "tls.enable = false\n" + "".join(f"{line}\n" for line in lines)
    )


# --- forms ------------------------------------------------------------------------------------


def test_text_lines() -> None:
    stream = io.StringIO()
    set_up_logging("info", "text", stream)
    logging.getLogger("fastlisten").info("hello %s", "world")
    logging.getLogger("fastlisten.smtp").warning("careful: ä")
    logging.getLogger("asyncio").error("slow")
    logging.getLogger("fastlisten").debug("unheard")
    lines = written(stream).splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert [line.partition(" ")[2].partition(" ")[2] for line in lines] == [
        "INFO fastlisten: hello world",
        "WARNING fastlisten.smtp: careful: ä",
        "ERROR asyncio: slow",
    ]


def test_json_lines() -> None:
    stream = io.StringIO()
    set_up_logging("debug", "json", stream)
    logger = logging.getLogger("fastlisten")
    logger.debug("hello %s", "wörld")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed")
    first, second = map(json.loads, written(stream).splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    moment = datetime.datetime.fromisoformat(first.pop("time"))
    assert abs(moment - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(seconds=60)
    assert first == {
        "level": "debug",
        "logger": "fastlisten",
        "event": "note",
        "message": "hello wörld",
    }
    assert "wörld" in written(stream)
    assert (second["level"], second["message"]) == ("error", "failed")
    assert second["exception"].startswith("Traceback (most recent call last):\n")
    assert second["exception"].endswith("ValueError: two\nlines")


def test_session_lines_have_the_session_id() -> None:
    stream = io.StringIO()
    set_up_logging("info", "text", stream)
    logger = logging.getLogger("fastlisten.smtp")
    log(logger, logging.INFO, "session-ended", "%s ended", "x", session="5f2c1a-1b", peer="y")
    log(logger, logging.INFO, "session-ended", "%s ended", "x", session="")
    lines = [line.partition("smtp: ")[2] for line in written(stream).splitlines()]
    assert lines == ["x ended session=5f2c1a-1b", "x ended"]


def test_empty_fields_are_left_out() -> None:
    stream = io.StringIO()
    set_up_logging("info", "json", stream)
    logger = logging.getLogger("fastlisten.smtp")
    log(logger, logging.INFO, "rejected", "x", from_="a", to=[], helo="", tls=None, port=0)
    record = json.loads(written(stream))
    assert set(record) == {"time", "level", "logger", "event", "message", "from", "port"}


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_records_below_the_level_are_dropped(level: str) -> None:
    stream = io.StringIO()
    set_up_logging(level, "text", stream)
    for name in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("fastlisten"), name)("said with %s", name)
    said = re.findall(r"said with (\w+)", written(stream))
    assert said == ["debug", "info", "warning", "error"][-len(said) :]
    assert said[0] == level


def test_other_loggers_are_left_alone() -> None:
    before = logging.getLogger().handlers[:]
    set_up_logging("info", "text", io.StringIO())
    set_up_logging("info", "text", io.StringIO())
    assert logging.getLogger().handlers == before
    assert len(logging.getLogger("fastlisten").handlers) == 1


# --- forging ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json"])
def test_control_characters_do_not_reach_the_stream(form: str) -> None:
    stream = io.StringIO()
    set_up_logging("info", form, stream)
    logging.getLogger("fastlisten").info("from <%s>", f"a{CONTROLS}{FORGED}")
    line = written(stream)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    # In JSON DEL is not a control character, and moves nothing.
    assert not set(line[:-1]) & (set(CONTROLS) - ({"\x7f"} if form == "json" else set()))
    if form == "json":
        assert json.loads(line)["message"] == f"from <a{CONTROLS}{FORGED}>"
    else:
        assert r"\n\r\x0b\x0c\x00\x08\x1b" in line
        assert r"\x85\x9b\u2028\u2029" in line


def test_traceback_cannot_forge_lines() -> None:
    """Neither with the message nor with the text of the exception."""
    stream = io.StringIO()
    set_up_logging("info", "text", stream)
    try:
        raise ValueError(f"bad input: \r\n{FORGED}\x1b[2J")
    except ValueError:
        logging.getLogger("fastlisten").exception("told\n%s", FORGED)
    first, *rest = written(stream).splitlines()
    assert LINE.fullmatch(first)
    assert first.endswith(rf"ERROR fastlisten: told\n{FORGED}")
    assert len(rest) >= 4
    assert all(line.startswith("  ") for line in rest)
    assert not any(LINE.fullmatch(line) for line in rest)
    assert "\x1b" not in written(stream)


@pytest.mark.parametrize("form", ["text", "json"])
def test_clients_cannot_forge_lines(tmp_path: Path, form: str) -> None:
    """Neither with anything an SMTP client can send nor with what makes a handler fail."""
    nasty = b'\x1b[2J\x00\x9b\xc2\x85\xe2\x80\xa8"}\r'
    text = smtp(f'level = "debug"\nformat = "{form}"')
    text += '[server.listener.fails]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
    text += 'handler = "support.serving_handlers:fail"\n'
    with program(tmp_path, text, listeners=2) as started:
        with socket.create_connection(("127.0.0.1", started.port("in.coming")), PATIENCE) as client:
            lines = client.makefile("rb")
            lines.readline()
            for said in (
                b"EHLO " + nasty,
                b"MAIL FROM:<" + nasty + b"@example.com>",
                nasty + FORGED.encode(),
                b"EHLO c.example.com",
                b"MAIL FROM:<s@example.com> SMTPUTF8",
                'RCPT TO:<"\\\x01\u2028"@example.org>'.encode(),
                b"RCPT TO:<alice@example.org>",
                b"DATA",
                nasty + b"\r\n.",
                b"QUIT",
            ):
                client.sendall(said + b"\r\n")
                while lines.readline()[3:4] == b"-":
                    pass
            assert lines.read() is not None
            lines.close()
        with socket.create_connection(("127.0.0.1", started.port("fails")), PATIENCE) as client:
            client.sendall(b"x\x1b[2J\r" + FORGED.encode() + b"\n")
            assert client.recv(10) == b""
        assert started.stop() == 0
        output = (tmp_path / "err").read_bytes().decode()
    assert "fail failed" in output
    assert not set(output) & (set(CONTROLS) - {"\n"})
    records = output.splitlines()
    if form == "json":
        assert [json.loads(line)["message"] == "" for line in records] == [False] * len(records)
    else:
        assert all(LINE.fullmatch(line) or line.startswith("  ") for line in records)
    # Only the formatter begins a line.
    assert not any(line.startswith(("2026-01-01", FORGED)) for line in records)


# --- unraisable exceptions --------------------------------------------------------------------


class _Fails:
    def __del__(self) -> None:
        raise ValueError("too late")


@pytest.fixture
def hook() -> io.StringIO:
    stream = io.StringIO()
    set_up_logging("info", "text", stream)
    return stream


def test_unraisable_exceptions_are_logged(hook: io.StringIO) -> None:
    _Fails()
    first, *rest = written(hook).splitlines()
    # "Exception ignored in", in the words of the Python version.
    assert "ERROR fastlisten: " in first
    assert "exception ignored " in first.lower()
    assert "<function _Fails.__del__" in first
    assert rest[-1] == "  ValueError: too late"


def test_unraisable_exceptions_caused_by_clients_are_not_logged(hook: io.StringIO) -> None:
    """A host name in a TLS handshake that is not ASCII."""
    server, client = (
        ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
    )
    server.sni_callback = lambda *_: None
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    bios = [ssl.MemoryBIO() for _ in range(2)]
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(bios[1], bios[0], server_hostname="name.example").do_handshake()
    hello = bios[0].read()
    bios[0].write(hello.replace(b"name.example", b"n\xff\xff\xff.example"))
    with pytest.raises(ssl.SSLError):
        server.wrap_bio(bios[0], bios[1], server_side=True).do_handshake()
    assert written(hook) == ""
    logging.getLogger("fastlisten").setLevel("DEBUG")
    bios[0].write(hello.replace(b"name.example", b"n\xff\xff\xff.example"))
    with pytest.raises(ssl.SSLError):
        server.wrap_bio(bios[0], bios[1], server_side=True).do_handshake()
    assert "DEBUG fastlisten: a client asked for the host name" in written(hook)
    assert "which is not ASCII" in written(hook)


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json"])
def test_connection_lines_name_the_listener(tmp_path: Path, form: str) -> None:
    log = f'level = "debug"\nformat = "{form}"'
    with program(tmp_path, smtp(log, "max-connections = 1")) as started:
        address = ("127.0.0.1", started.port("in.coming"))
        with socket.create_connection(address, PATIENCE) as client:
            client.recv(100)
            port = client.getsockname()[1]
            with socket.create_connection(address, PATIENCE) as refused:
                refused_port = refused.getsockname()[1]
                assert refused.recv(100).startswith(b"421 ")
        until(lambda: "closed" in started.err, "the line of the end")
        assert started.stop() == 0
        lines = started.err.splitlines()
    if form == "json":
        records = [json.loads(line) for line in lines]
        events = [(one["event"], one.get("port")) for one in records if "listener" in one]
        assert events == [
            ("connection-opened", port),
            ("connections-refused", refused_port),
            ("connection-closed", port),
        ]
        messages = [f"{one['level'].upper()} {one['logger']}: {one['message']}" for one in records]
    else:
        messages = [line.partition(" ")[2].partition(" ")[2] for line in lines]
    name = 'fastlisten: listener "in.coming": '
    assert [one for one in messages if "listener" in one] == [
        f"DEBUG {name}connection from [127.0.0.1]:{port}",
        f"WARNING {name}refused 1 connection, the first from [127.0.0.1]:{refused_port}: "
        "max-connections = 1 reached",
        f"DEBUG {name}connection from [127.0.0.1]:{port} closed",
    ]


def test_connections_are_not_logged_at_the_default_level(tmp_path: Path) -> None:
    with program(tmp_path, smtp('level = "info"')) as started:
        with socket.create_connection(("127.0.0.1", started.port("in.coming")), PATIENCE) as client:
            client.recv(100)
        assert started.stop() == 0
        assert "connection from" not in started.err


def test_lost_records_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="fastlisten"):
        log_records([], 17)
        log_records([], 0)
    assert caplog.messages == ["17 log records lost"]


@pytest.mark.parametrize(
    ("kind", "value", "number", "line"),
    [
        (0, 0, 0, "server: connection from [2001:db8::1]:25"),
        (1, 0, 0, "server: connection from [2001:db8::1]:25 closed"),
        (3, 2, 0, "server: 2 connections timed out, the first from [2001:db8::1]:25"),
        (
            4,
            3,
            24,
            "listeners: accept failed 3 times (EMFILE: Too many open files); "
            "pausing between attempts until descriptors and memory are free again",
        ),
        (
            5,
            100,
            0,
            "listeners: 100 connections are open, as many as the limit of open files "
            "(RLIMIT_NOFILE) allows; new clients wait in the backlog",
        ),
        (
            6,
            0,
            22,
            "listeners: accept failed permanently (EINVAL: Invalid argument); no longer listening",
        ),
    ],
)
def test_message_for_each_kind_of_record(
    kind: int, value: int, number: int, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Nameless:
        listener = None
        places = None

    acceptor = None if line.startswith("listeners") else Nameless()
    with caplog.at_level(logging.DEBUG, logger="fastlisten"):
        log_records([(kind, 0.0, acceptor, "2001:db8::1", 25, value, number)], 0)  # type: ignore[list-item]
    assert caplog.messages == [line]
