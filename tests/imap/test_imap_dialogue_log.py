"""imap.log-dialogue: what is said is in the log, without passwords and messages.

Rules of this file: real sessions. A secret must not be found anywhere in the log.
"""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import pytest
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, serve_imap
from support.waiting import until

PLAIN = base64.b64encode(f"\0{ADDRESS}\0{PASSWORD}".encode())


def dialogue(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the log, each with its side."""
    found = [it.getMessage() for it in caplog.records if it.name == "fastlisten.dialogue"]
    return [line.partition("]:")[2].partition(" ")[2] for line in found]


def test_a_session(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten.dialogue")
    with serve_imap(tmp_path, options={"log-dialogue": True}) as server:
        server.deliver()
        client = server.connect()
        client.ok("NOOP")
        client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
        client.ok("SELECT INBOX")
        client.ok("FETCH 1 (UID BODY.PEEK[])")
        client.ok(b"APPEND INBOX (\\Seen) {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
        client.send(b"i IDLE\r\n")
        client.response()
        client.send(b"DONE\r\n")
        client.answers(b"i")
        client.ok("LOGOUT")
        until(lambda: "S: t6 OK Logout completed." in dialogue(caplog))
    lines = dialogue(caplog)
    for line in (
        "C: t1 NOOP",
        "S: t1 OK NOOP completed.",
        "C: t2 LOGIN ***",
        "C: t3 SELECT INBOX",
        "S: * 1 EXISTS",
        "C: t4 FETCH 1 (UID BODY.PEEK[])",
        f"S: * 1 FETCH (UID 1 BODY[] {{{len(MESSAGE)}}}",
        f"C: t5 APPEND INBOX (\\Seen) {{{len(MESSAGE)}+}}",
        "C: i IDLE",
        "S: + idling",
        "C: DONE",
        "S: i OK Idle completed.",
        "C: t6 LOGOUT",
        "S: * BYE Logging out",
    ):
        assert line in lines, line
    assert any(line.startswith("C: (") and line.endswith(" of a message)") for line in lines)
    assert PASSWORD not in caplog.text
    assert "body text" not in caplog.text


@pytest.mark.parametrize(
    "said",
    [
        [b"a LOGIN alice@example.org hunter2"],
        [b"a LOGIN alice@example.org hunter2 more"],
        [b'a login "alice@example.org" "hunter2"'],
        [b"a LOGIN alice@example.org {7+}\r\nhunter2"],
        [b"a LOGIN {17+}\r\nalice@example.org {7+}\r\nhunter2"],
        [b"a LOGIN hunter2"],
        [b"a AUTHENTICATE PLAIN hunter2"],
        [b"a AUTHENTICATE hunter2"],
        [b"a AUTHENTICATE CRAM-MD5 hunter2"],
        [b"a AUTHENTICATE PLAIN", b"hunter2"],
        [b"a AUTHENTICATE PLAIN", b"*", b"hunter2"],
        [b"hunter2"],
        [b"hunter2 hunter2"],
        [b"alice@example.org hunter2"],
        [b"a PASS hunter2"],
        [b"hunter2 " + b"x" * 20_000],
        [b"hunter2 LOGIN\n"],
    ],
)
def test_no_password(tmp_path: Path, caplog: pytest.LogCaptureFixture, said: list[bytes]) -> None:
    caplog.set_level(logging.INFO, "fastlisten.dialogue")
    with serve_imap(tmp_path, options={"log-dialogue": True}) as server:
        client = server.connect()
        for line in said:
            client.send(line + b"\r\n")
        client.send(b"z LOGOUT\r\n")
        client.stream.read()
        until(lambda: any("S: z " in line or "BYE" in line for line in dialogue(caplog)))
    assert "hunter2" not in "\n".join(dialogue(caplog))
    assert any(line.startswith("C: ") for line in dialogue(caplog))


def test_nothing_is_logged_by_default(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastlisten.dialogue")
    with serve_imap(tmp_path) as server:
        server.lines("INBOX").ok("LOGOUT")
    assert dialogue(caplog) == []
