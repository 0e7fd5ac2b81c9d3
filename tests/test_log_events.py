"""The events of the log: the table in the code, the page, the calls, and the program's output.

Rules of this file: none of the four may have an event or field that the others lack.
"""

from __future__ import annotations

import ast
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from support.program import program, run
from support.waiting import PATIENCE

import fastlisten
from fastlisten.log_events import EVENTS

PACKAGE = Path(fastlisten.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "logging.md").read_text(encoding="utf-8")

#: Fields of every record.
COMMON = {"time", "level", "logger", "event", "message", "exception"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in the package, with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def constants(call: ast.Call) -> list[str]:
    return [
        one.value
        for one in call.args
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    ]


def test_page_has_the_table_of_events() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| \w+ \| ([a-z_, ]*)\|", PAGE, re.MULTILINE)
    assert {name: tuple(fields.replace(",", "").split()) for name, fields in rows} == EVENTS
    assert [name for name, _ in rows] == list(EVENTS)


def test_no_field_has_the_name_of_a_common_field() -> None:
    """One of the two would be lost."""
    assert not [name for name, fields in EVENTS.items() if COMMON & set(fields)]


def test_every_call_logs_a_known_event_with_known_fields() -> None:
    seen = 0
    for place, call in calls():
        if isinstance(call.func, ast.Name) and call.func.id == "log":
            event = call.args[2]
            if isinstance(event, ast.Constant):
                assert event.value in EVENTS, place
        for event_name in EVENTS.keys() & set(constants(call)):
            given = {(one.arg or "").rstrip("_") for one in call.keywords} - {""}
            assert given <= set(EVENTS[event_name]), place
            seen += 1
    assert seen > 20


def test_every_event_is_logged_somewhere() -> None:
    used: set[object] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name != "log_events.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            used |= {one.value for one in ast.walk(tree) if isinstance(one, ast.Constant)}
    assert EVENTS.keys() <= used


# --- the program in JSON ----------------------------------------------------------------------

LISTENERS = """
[log]
level = "debug"
format = "json"
[server.listener.in]
protocol = "smtp"
bind = "127.0.0.1:0"
tls.enable = false
max-connections = 2
[server.listener.local]
protocol = "lmtp"
bind = "127.0.0.1:0"
tls.enable = false
[server.listener.web]
protocol = "http"
bind = "127.0.0.1:0"
tls.enable = false
"""


def talk(port: int, said: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(said)
        heard = b""
        while data := client.recv(65536):
            heard += data
    return heard


def test_every_line_of_the_program_is_json(tmp_path: Path) -> None:
    """From first to last, on both streams, with no fields but those in the table."""
    with program(tmp_path, LISTENERS, listeners=3) as served:
        port = served.port
        mail = b"MAIL FROM:<s@example.com>\r\nRCPT TO:<alice@example.org>\r\n"
        mail += b"RCPT TO:<x@example.org>\r\n"
        message = b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
        taken = talk(port("in"), b"EHLO c\r\n" + mail + message)
        assert b"250 2.0.0 Ok, id" in taken
        assert b"250 2.0.0 Ok, id" in talk(port("local"), b"LHLO c\r\n" + mail + message)
        get = b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert b" 200 " in talk(port("web"), get)
        talk(port("web"), b"nonsense\r\n\r\n")
        address = ("127.0.0.1", port("in"))
        with (
            socket.create_connection(address, PATIENCE),
            socket.create_connection(address, PATIENCE),
        ):
            assert talk(port("in"), b"").startswith(b"421")
        assert served.stop() == 0
        lines = [*served.out.splitlines(), *served.err.splitlines()]
    records = [json.loads(line) for line in lines]
    for record in records:
        assert COMMON - {"exception"} <= set(record)
        fields = set(record) - COMMON
        assert fields <= set(EVENTS.get(record["event"], ())), record
    found = {record["event"] for record in records}
    assert found >= {
        "listening",
        "connection-opened",
        "connection-closed",
        "connections-refused",
        "message-delivered",
        "rejected",
        "session-ended",
        "http-request",
    }
    (delivered,) = [
        one for one in records if one["event"] == "message-delivered" and one["listener"] == "in"
    ]
    assert delivered["to"] == ["alice@example.org"]
    assert delivered["from"] == "s@example.com"
    assert f"Ok, id {delivered['id']}\r\n".encode() in taken
    assert delivered["bytes"] > 0
    assert 0 <= delivered["duration"] < PATIENCE


def test_start_errors_are_json(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = tmp_path / "mail.toml"
        file.write_text(
            f'[log]\nformat = "json"\n[server]\nhostname = "mx"\n'
            f'data-directory = "{tmp_path}"\n[server.listener.it]\nprotocol = "smtp"\n'
            f'bind = "127.0.0.1:{port}"\ntls.enable = false\n'
        )
        done = run("serve", file)
    assert done.returncode == 3, done.stderr
    records = [json.loads(line) for line in done.stderr.splitlines()]
    (failed,) = [one for one in records if one["event"] == "start-failed"]
    assert (failed["listener"], failed["operation"]) == ("it", "bind")
    assert failed["address"] == f"127.0.0.1:{port}"
    assert failed["level"] == "error"


def test_configuration_problems_are_json(tmp_path: Path) -> None:
    file = tmp_path / "mail.toml"
    file.write_text(
        f'[log]\nformat = "json"\n[server]\nhostname = "mx"\ndata-directory = "{tmp_path}"\n'
        '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
        "tls.enable = false\nsocket.linger = 0\n"
        '[server.listener.web]\nprotocol = "http"\napp = "no.such:app"\nbind = "127.0.0.1:0"\n'
    )
    done = run("serve", file)
    assert done.returncode == 2
    records = [json.loads(line) for line in done.stderr.splitlines()]
    events = [one["event"] for one in records]
    assert "configuration-warning" in events
    assert "configuration-error" in events
    assert all(one["error"] and one["line"] for one in records)
