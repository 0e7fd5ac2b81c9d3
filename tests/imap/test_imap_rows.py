"""The rows of `[imap]` on the wire: bounds of commands, what is announced, and ID.

Rules of this file: each row is set to a value that differs from its default, and a client notices.
Rows about logins are in test_imap_rows_login.py.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, serve_imap

from fastlisten.handlers.imap.capabilities import CAN_BE_DISABLED, COMMANDS, after_login
from fastlisten.handlers.imap.settings import IMAP


def served(tmp_path: Path, options: Mapping[str, Any], **more: Any) -> Any:
    return serve_imap(tmp_path, options=options, **more)


def names(line: bytes) -> list[str]:
    return line.decode().partition("CAPABILITY ")[2].partition("]")[0].split()


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [8192, 300_000])
def test_max_line(tmp_path: Path, most: int) -> None:
    with served(tmp_path, {"max-line": most}) as server:
        client = server.lines()
        name = b"a" * (most - len(b"x STATUS  (MESSAGES)\r\n"))
        # In pieces, so that a command longer than what is read ahead has to be waited for.
        whole = b"x STATUS %b (MESSAGES)\r\n" % name
        for start in range(0, most, 20_000):
            client.send(whole[start : start + 20_000])
        assert b"TOOBIG" not in client.response()
        client.send(b"x STATUS a%b (MESSAGES)\r\n" % name)
        assert client.response() == (b"x BAD [TOOBIG] Error in IMAP command: Command line too long")
        client.ok("NOOP")


def test_max_line_before_login(tmp_path: Path) -> None:
    with served(tmp_path, {"max-line-before-login": 20_000}) as server:
        client = server.connect()
        client.send(b"x LOGIN {16000+}\r\n" + b"a" * 16000 + b" b\r\n")
        assert client.response().startswith(b"x NO [AUTHENTICATIONFAILED]")
        client.send(b"x LOGIN {19990}\r\n")
        assert b"TOOBIG" in client.response()


def test_max_literal(tmp_path: Path) -> None:
    with served(tmp_path, {"max-literal": 1024}) as server:
        client = server.lines()
        client.send(b"x STATUS {1024}\r\n")
        assert client.response().startswith(b"+ ")
        client.send(b"a" * 1024 + b" (MESSAGES)\r\n")
        assert client.response().startswith(b"x NO ")
        client.send(b"x STATUS {1025}\r\n")
        assert client.response().startswith(b"x BAD [TOOBIG] ")
        # A message is no such literal.
        client.send(b"x APPEND INBOX {%d+}\r\n" % 2000 + b"a" * 2000 + b"\r\n")
        assert client.response().startswith(b"x OK [APPENDUID ")


def test_append_limit(tmp_path: Path) -> None:
    with served(tmp_path, {"append-limit": 65_536}) as server:
        client = server.connect()
        (logged_in,) = client.say(f"LOGIN {ADDRESS} {PASSWORD}")
        assert "APPENDLIMIT=65536" in names(logged_in)
        client.send(b"x APPEND INBOX {65537}\r\n")
        assert client.response().startswith(b"x NO [TOOBIG] ")
        client.send(b"x APPEND INBOX {65536}\r\n")
        assert client.response().startswith(b"+ ")
        client.send(MESSAGE + b"a" * (65_536 - len(MESSAGE)) + b"\r\n")
        assert client.response().startswith(b"x OK ")


@pytest.mark.parametrize(
    ("key", "most", "log_in"), [("max-errors", 7, True), ("max-errors-before-login", 5, False)]
)
def test_max_errors(tmp_path: Path, key: str, most: int, log_in: bool) -> None:
    with served(tmp_path, {key: most}) as server:
        client = server.lines() if log_in else server.connect()
        wrong = b"x NONSENSE\r\n"
        # An error less, then a command that is right: the count begins again.
        client.send(wrong * (most - 1) + b"y CAPABILITY\r\n" + wrong * (most + 5))
        lines = client.stream.readlines()
        assert [line[:5] for line in lines] == [
            *[b"x BAD"] * (most - 1),
            b"* CAP",
            b"y OK ",
            *[b"x BAD"] * most,
            b"* BYE",
        ]


# --- what is announced ----------------------------------------------------------------------------


def test_every_capability_but_the_protocol_can_be_disabled() -> None:
    announced = {name.removesuffix("=1") for name in after_login(1)}
    assert announced - set(CAN_BE_DISABLED) == {"IMAP4rev1"}
    assert set(CAN_BE_DISABLED) <= announced
    (row,) = [row for row in IMAP.options if row.key == "disabled-capabilities"]
    assert row.choices == CAN_BE_DISABLED


def test_disabled_capabilities_are_not_announced(tmp_path: Path) -> None:
    with served(tmp_path, {"disabled-capabilities": CAN_BE_DISABLED}) as server:
        client = server.connect()
        assert names(client.greeting) == ["IMAP4rev1", "AUTH=PLAIN", "AUTH=LOGIN"]
        (logged_in,) = client.say(f"LOGIN {ADDRESS} {PASSWORD}")
        assert names(logged_in) == ["IMAP4rev1"]
        assert client.ok("CAPABILITY") == [b"* CAPABILITY IMAP4rev1"]


ARGUMENTS = {
    "ID": "NIL",
    "ENABLE": "CONDSTORE",
    "UID EXPUNGE": "1",
    "MOVE": "1 a",
    "UID MOVE": "1 a",
    "GETQUOTA": '""',
    "GETQUOTAROOT": "INBOX",
    "SETQUOTA": '"" (STORAGE 1)',
}


@pytest.mark.parametrize("capability", list(COMMANDS))
def test_commands_of_disabled_capabilities_are_unknown(tmp_path: Path, capability: str) -> None:
    with served(tmp_path, {"disabled-capabilities": (capability,)}) as server:
        client = server.lines("INBOX")
        for name in COMMANDS[capability]:
            (answer,) = client.say(f"{name} {ARGUMENTS.get(name, '')}".strip())
            assert answer == b"BAD Error in IMAP command: Unknown command"
        others = {name for each, its in COMMANDS.items() if each != capability for name in its}
        for name in sorted(others - {"IDLE"}):
            said = client.say(f"{name} {ARGUMENTS.get(name, '')}".strip())
            assert b"Unknown command" not in said[-1]
            if name == "UNSELECT":
                client.ok("SELECT INBOX")


def test_disabled_extensions_are_not_enabled(tmp_path: Path) -> None:
    with served(tmp_path, {"disabled-capabilities": ("QRESYNC",)}) as server:
        client = server.lines()
        assert client.ok("ENABLE QRESYNC CONDSTORE") == [b"* ENABLED CONDSTORE"]


# --- ID -------------------------------------------------------------------------------------------


def test_id_send(tmp_path: Path) -> None:
    sent = ("name", "version", "os", "os-version")
    with served(tmp_path, {"id-send": sent}) as server:
        values = ("fastlisten", version("fastlisten"), platform.system(), platform.release())
        pairs = " ".join(f'"{name}" "{value}"' for name, value in zip(sent, values, strict=True))
        assert server.connect().ok("ID NIL") == [f"* ID ({pairs})".encode()]
    with served(tmp_path, {"id-send": ()}) as server:
        assert server.connect().ok("ID NIL") == [b"* ID NIL"]


def test_id_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten.imap")
    with served(tmp_path, {"id-log": ("name", "os")}) as server:
        client = server.lines()
        client.ok('ID ("name" "Thunderbird" "version" "128.1" "os" NIL)')
        client.ok('ID ("version" "128.1")')
    (record,) = [it for it in caplog.records if getattr(it, "event", "") == "client-id"]
    assert record.getMessage().endswith(": ID sent: name=Thunderbird, os=")


def test_id_is_not_logged_by_default(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten.imap")
    with served(tmp_path, {}) as server:
        server.connect().ok('ID ("name" "Thunderbird")')
    assert "Thunderbird" not in caplog.text
