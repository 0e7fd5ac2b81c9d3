"""Where this server and Dovecot answer differently, and what settles it: docs/imap-differences.md.

Rules of this file: each command of the page is given to both, on copies of one Maildir. Both
answers are looked at, so that a difference that is no more has to come off the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.dovecot_imap import DOVECOT_IMAP, ROOT
from support.dovecot_session import Dovecot, dovecot_sessions, fill
from support.imap_server import ADDRESS, serve_imap
from support.marks import external

dovecot = dovecot_sessions

PAGE = Path(__file__).parents[2] / "docs" / "imap-differences.md"


class Difference(NamedTuple):
    """A command, after those that go before it, and what is in each answer.

    Attributes:
        agreed: Dovecot 2.4 answers as this server.
    """

    command: str
    ours: str
    theirs: str
    before: tuple[str, ...] = ("SELECT INBOX",)
    agreed: bool = False


DIFFERENCES = (
    Difference("FETCH 1 BODY[1.HEADER]", r"BODY\[1.HEADER\] NIL", r"BODY\[1.HEADER\] \{0\}"),
    Difference("FETCH 1 BODY[0]", r"\ABAD ", r"BODY\[0\] \{0\}"),
    Difference("FETCH 1 BODY.PEEK[]<0>", r"\ABAD ", r"BODY\[\]<0> "),
    Difference("FETCH 1 BODY.PEEK[]<0.0>", r"\ABAD ", r"BODY\[\]<0> \{0\}"),
    Difference(
        "FETCH 1 BODY.PEEK[HEADER.FIELDS (Subject)]", r"FIELDS \(Subject\)", r"FIELDS \(SUBJECT\)"
    ),
    Difference("FETCH 1 RFC822.PEEK", r"RFC822 \{", r"\ABAD "),
    Difference("FETCH 1 EMAILID", r"EMAILID \(", r"\ABAD "),
    Difference("STORE 1 -FLAGS (\\Seen)", r"\* 1 FETCH \(FLAGS ", r"\AOK "),
    Difference("STORE 1 -FLAGS (unknown)", r"\A\* 1 FETCH ", r"\* FLAGS \([^)]*unknown"),
    Difference("STORE 1 +FLAGS", r"\ABAD ", r"\AOK "),
    Difference("STORE 1 +FLAGS (\\Seen)", r"\ANO \[READ-ONLY\]", r"\AOK ", ("EXAMINE INBOX",)),
    Difference("MOVE 1 INBOX", r"\ANO \[READ-ONLY\]", r"EXPUNGE", ("EXAMINE INBOX",)),
    Difference("EXPUNGE", r"\ANO \[READ-ONLY\]", r"\AOK ", ("EXAMINE INBOX",)),
    Difference("EXPUNGE 1", r"\ABAD ", r"\AOK "),
    Difference("SEARCH SENTBEFORE 1-Jan-2025", r"\A\* SEARCH 1\r", r"\A\* SEARCH 1 2 5 6 7 8\r"),
    Difference("SEARCH SINCE 31-Feb-2020", r"\ABAD ", r"\A\* SEARCH\r", agreed=True),
    Difference("SEARCH KEYWORD \\Seen", r"\ABAD ", r"\A\* SEARCH\r", agreed=True),
    Difference("SEARCH KEYWORD unknown", r"\A\* SEARCH\r\nOK", r"\* FLAGS \([^)]*unknown"),
    Difference("UID SEARCH UID 1:9223372036854775807", r"\ABAD ", r"\A\* SEARCH 1 2", agreed=True),
    Difference("SUBSCRIBE nowhere", r"\AOK ", r"\ANO "),
    Difference(
        'LIST "" INBOX RETURN (SUBSCRIBED)', r"HasNoChildren", r"LIST \((?:\\Subscribed)?\)"
    ),
    Difference('LSUB "" new', r"\A\* LSUB ", r"\AOK ", ("CREATE new",)),
    Difference("RENAME INBOX old", r"\AOK ", r"\ANO \[CANNOT\]", ()),
    Difference("ENABLE nonsense", r"\A\* ENABLED\r", r"\AOK "),
    Difference("ENABLE", r"\ABAD ", r"\AOK "),
    Difference('ID ("name")', r"\ABAD ", r"\A\* ID "),
    Difference("SELECT", r"\ABAD ", r"\A\* OK \[CLOSED\]"),
)


@external(DOVECOT_IMAP)
@pytest.mark.parametrize("difference", DIFFERENCES, ids=[one.command for one in DIFFERENCES])
def test_difference(tmp_path: Path, dovecot: Callable[[], Dovecot], difference: Difference) -> None:
    fill(tmp_path / "mail" / ADDRESS)
    theirs = difference.ours if ROOT and difference.agreed else difference.theirs
    with serve_imap(tmp_path) as server:
        for client, pattern in ((server.lines(), difference.ours), (dovecot(), theirs)):
            for command in difference.before:
                client.ok(command)
            answers = b"\r\n".join(client.say(difference.command)) + b"\r\n"
            assert re.search(pattern.encode(), answers, re.MULTILINE), (client, pattern, answers)


@pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside these tests")
def test_page_lists_them_all() -> None:
    rows = re.findall(r"^\| `(.+?)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [one.command for one in DIFFERENCES]
