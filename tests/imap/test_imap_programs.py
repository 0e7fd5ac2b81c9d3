"""What Thunderbird, Apple Mail, Outlook and other mail programs say is answered as they need it.

Rules of this file: the dialogues are in support/imap_dialogues.py, from logs that users have
published; test_imap_session_dovecot.py compares the answers with Dovecot's. That each mail program
shows is what its pattern looks for: a log has no more.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.dovecot_session import fill
from support.imap_dialogues import PROGRAMS, spelled
from support.imap_server import ADDRESS, serve_imap


@pytest.mark.parametrize("program", PROGRAMS)
def test_dialogue(tmp_path: Path, program: str) -> None:
    fill(tmp_path / "mail" / ADDRESS)
    with serve_imap(tmp_path) as server:
        client = server.lines()
        for command, pattern in PROGRAMS[program]:
            answers = b"\r\n".join(client.say(spelled(command))) + b"\r\n"
            found = re.search(pattern.encode("latin-1"), answers, re.DOTALL | re.MULTILINE)
            assert found, (command, pattern, answers[:2000])
        assert client.ok("LOGOUT")
