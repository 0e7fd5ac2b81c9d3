"""The same dialogues with Dovecot and with us, on copies of one Maildir: the answers are the same.

Rules of this file: two sessions of each server, so that what they tell each other is compared too.
Numbers that servers choose, texts for people and the order of what the RFCs leave unordered are
normalised (`normal`). Commands that are answered otherwise on purpose are left out here:
docs/imap-differences.md has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.dovecot_imap import DOVECOT_IMAP, ROOT
from support.dovecot_session import Dovecot, dovecot_sessions, fill, normal
from support.imap_dialogues import PROGRAMS, spelled
from support.imap_server import ADDRESS, serve_imap
from support.marks import external

dovecot = dovecot_sessions

#: Dovecot 2.4.5 sends the CR before it again, when a chunk begins with the LF of a line's end.
WRONG_IN_2_4 = ("UID fetch 7 (UID RFC822.SIZE BODY.PEEK[]<65536.131072>)",)

DIALOGUES: dict[str, Sequence[tuple[int, str | bytes]]] = {
    "fetch": [
        (0, f"FETCH 1:* {items}")
        for items in (
            "(FLAGS UID)", "(RFC822.SIZE INTERNALDATE)", "ENVELOPE", "BODY", "BODYSTRUCTURE",
            "ALL", "FAST", "FULL", "BODY.PEEK[]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]",
            "BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]", "BODY.PEEK[HEADER.FIELDS.NOT (SUBJECT)]",
            "BODY.PEEK[1]", "RFC822.HEADER", "BODY.PEEK[]<3.10>", "BODY.PEEK[TEXT]<5000000.10>",
        )
    ] + [
        (0, f"FETCH 2 BODY.PEEK[{section}]")
        for section in (
            "1", "2", "1.MIME", "2.MIME", "2.HEADER", "2.TEXT", "2.1", "2.HEADER.FIELDS (SUBJECT)",
        )
    ] + [
        (0, "FETCH 99 FLAGS"), (0, "FETCH 1:99 FLAGS"), (0, "UID FETCH 99 FLAGS"),
        (0, "UID FETCH 99:* FLAGS"), (0, "FETCH * UID"), (0, "FETCH 0 UID"), (0, "FETCH 1 NONE"),
    ],
    "flags": [
        (0, "FETCH 2 BODY[TEXT]"), (1, "NOOP"), (0, "FETCH 3 (FLAGS RFC822)"), (1, "NOOP"),
        (0, "STORE 1 +FLAGS (\\Seen $Foo)"), (1, "NOOP"), (0, "STORE 1 FLAGS.SILENT (\\Draft)"),
        (1, "NOOP"), (0, "UID STORE 1 -FLAGS (\\Draft)"), (1, "NOOP"),
        (0, "STORE 99 +FLAGS (\\Seen)"), (0, "UID STORE 99 +FLAGS (\\Seen)"), (0, "SEARCH SEEN"),
        (0, "STORE 1 +FLAGS (\\Recent)"), (0, "STORE 1 +FLAGS (\\Nonsense)"),
    ],
    "search": [
        (0, f"SEARCH {keys}")
        for keys in (
            "ALL", "UNSEEN", "SUBJECT x", "FROM a@b", "FROM foo", "BODY body", "TEXT from",
            "NOT 1:3", "99", "3:99", "UID 99", "UID 99:*", "SENTSINCE 1-Jan-2026",
            "SENTON 3-Feb-2026", "SINCE 20-Nov-2023", "BEFORE 20-Nov-2023", "ON 16-Nov-2023",
            'HEADER Message-ID ""', 'HEADER Subject ""', "LARGER 100", "SMALLER 50", "OLD",
            "RECENT", "NEW", "OR SEEN SUBJECT x", "NOT (SUBJECT x OR 1 2)", "BODY inner",
            "TEXT inner", "CHARSET UTF-8 SUBJECT gr", "CHARSET NONE SUBJECT x", "NONSENSE",
            "RETURN (MIN MAX COUNT ALL) UNSEEN", "RETURN () ALL", "RETURN (SAVE) 2:4", "$",
            "RETURN (COUNT) SUBJECT nononono",
        )
    ] + [(0, b"SEARCH CHARSET UTF-8 BODY {8+}\r\nm\xc3\xa4rchen"), (0, "UID SEARCH RETURN () 2:3")],
    "mailboxes": [
        (0, "CREATE Work"), (0, "CREATE Work"), (0, "CREATE a/b/c"), (0, 'LIST "" *'),
        (0, 'LIST "" %'), (0, 'LIST "" ""'), (0, 'LIST a/ %'), (0, 'LIST "" a/%'),
        (0, "SUBSCRIBE Work"), (0, "SUBSCRIBE a/b/c"), (0, 'LSUB "" *'), (0, 'LSUB "" %'),
        (0, 'LIST "" * RETURN (SUBSCRIBED CHILDREN)'),
        (0, "STATUS Work (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ)"),
        (0, "STATUS nowhere (MESSAGES)"), (0, "RENAME Work Play"), (0, 'LIST "" P*'),
        (0, "RENAME nowhere x"), (0, "DELETE nowhere"), (0, "DELETE INBOX"), (0, "DELETE a/b/c"),
        (0, 'LIST "" *'), (0, "SELECT nowhere"), (0, "FETCH 1 FLAGS"), (0, "NAMESPACE"),
    ],
    "moving": [
        (0, "CREATE Work"), (0, "COPY 1:3 Work"), (0, "COPY 1 nowhere"), (0, "UID COPY 99 Work"),
        (0, "MOVE 5 Work"), (1, "NOOP"), (0, "UID MOVE 99 Work"),
        (0, "STATUS Work (MESSAGES UNSEEN)"), (0, "STORE 2,4 +FLAGS (\\Deleted)"), (1, "NOOP"),
        (0, "UID EXPUNGE 2"), (1, "UID FETCH 1 UID"), (0, "EXPUNGE"), (1, "NOOP"), (0, "EXPUNGE"),
        (0, b'APPEND INBOX (\\Seen) "01-Feb-2026 10:00:00 +0100" {14+}\r\nSubject: x\r\n\r\n'),
        (0, "UID FETCH 9 (FLAGS INTERNALDATE)"), (0, b"APPEND nowhere {3+}\r\nabc"),
        (0, "CLOSE"), (0, "CLOSE"), (0, "EXAMINE Work"), (0, "UNSELECT"),
    ],
    "condstore": [
        (0, "ENABLE CONDSTORE"), (0, "FETCH 1:3 (FLAGS MODSEQ)"),
        (0, "STORE 1 +FLAGS (\\Flagged)"), (0, "STORE 1 +FLAGS.SILENT (\\Seen)"),
        (0, "STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\\Draft)"), (0, "FETCH 1 (FLAGS MODSEQ)"),
        (0, "UID STORE 2 +FLAGS.SILENT (\\Seen)"), (0, "SEARCH MODSEQ 1"), (1, "NOOP"),
    ],
    "qresync": [
        (0, "ENABLE QRESYNC"), (0, "SELECT INBOX"), (0, "STORE 2:3 +FLAGS.SILENT (\\Deleted)"),
        (0, "EXPUNGE"), (0, "UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)"),
        (1, "NOOP"), (1, "STORE 1 +FLAGS (\\Deleted)"), (0, "NOOP"),
        (0, "SELECT INBOX (QRESYNC (1 1))"),
    ],
    "lists": [
        (0, command)
        for command in (
            "LIST", 'LIST "" "*" RETURN ()', 'LIST (SUBSCRIBED RECURSIVEMATCH) "" *',
            'LIST (RECURSIVEMATCH) "" *', 'LIST (REMOTE) "" *', 'LIST "" (a b) RETURN (CHILDREN)',
            'LIST "" ("a*" "INB%")', "CREATE a/", "CREATE /a", "CREATE a//b", "CREATE INBOX",
            'CREATE ""', "CREATE &", 'CREATE "&AGE-"', 'DELETE ""', 'SUBSCRIBE ""', "RENAME a a",
            'RENAME a ""', "UNSUBSCRIBE nowhere", 'STATUS "" (MESSAGES)', "STATUS INBOX ()",
            "STATUS INBOX MESSAGES", "STATUS INBOX (MESSAGES MESSAGES)", "STATUS INBOX (SIZE)",
        )
    ],
    "odd fetches": [
        (0, f"FETCH {rest}")
        for rest in (
            "1 ()", "1", "1:0 UID", "0:1 UID", "1,1,1 UID", "*:* UID", "8:1 UID", "1: UID", "a UID",
            "1 BODY[HEADER.FIELDS ()]", "1 BODY.PEEK[HEADER.FIELDS (a b c)]", "1 BODY[MIME]",
            "1 BODY[TEXT", "1 (FLAGS FLAGS)", "1 FLAGS UID", "2 BODY.PEEK[1.MIME]",
        )
    ] + [(0, f"FETCH {rest}") for rest in (
        "3 (RFC822.TEXT)", "3 RFC822", "1 MODSEQ", "1:2 (FLAGS) (CHANGEDSINCE 1)", "1 X-NONSENSE",
        "1 (UID (FLAGS))",
    )],
    "odd stores": [
        (0, f"STORE 1{rest}")
        for rest in (
            " FLAGS \\Seen \\Draft", " FLAGS.SILENT ()", " +FLAGS (a b c)", " FLAGS (a)",
            " +FLAGS (\\*)", " NONSENSE (\\Seen)", ":* +FLAGS (\\Answered)",
            " (UNCHANGEDSINCE 0) +FLAGS (\\Seen)", ' +FLAGS ("a")', " +FLAGS.SILENT (A)",
        )
    ] + [(0, "FETCH 1 FLAGS")],
    "odd copies": [
        (0, command)
        for command in (
            "COPY 1", "COPY 1 INBOX", "COPY 0 INBOX", "COPY 1:* nowhere", 'UID COPY 1:* ""',
            "COPY 99 INBOX", "MOVE 1 INBOX", "UID MOVE 5:6 INBOX", "UID EXPUNGE", "UID EXPUNGE 1:*",
            "UID NOOP", "UID", "NONSENSE", "UID FETCH 1",
        )
    ],
    "odd searches": [
        (0, f"SEARCH {rest}")
        for rest in (
            "()", "NOT", "OR ALL", "(ALL", "ALL ALL", "1:2 3", "UID", "SMALLER a",
            "SINCE 1-Foo-2020", 'SINCE "1-Jan-2020"', "HEADER a", "YOUNGER 10", "OLDER 0",
        )
    ],
    "more searches": [
        (0, f"SEARCH {rest}")
        for rest in (
            "YOUNGER 1000000000", "MODSEQ 0", "RETURN ALL", "RETURN (NONE) ALL",
            "RETURN (MIN) NOT ALL", "RETURN (MIN MAX) NOT ALL", "RETURN (SAVE COUNT) SEEN",
            "RETURN (COUNT) $", "CHARSET", "CHARSET US-ASCII ALL", "CHARSET ISO-8859-1 SUBJECT x",
            'TO ""', 'SUBJECT ""', 'BODY ""', 'NOT BODY ""', "BCC x", "CC x", "ANSWERED FLAGGED",
            "DRAFT", "UNDRAFT UNFLAGGED UNDELETED UNANSWERED", "LARGER 0", "LARGER -1",
        )
    ] + [(0, "UID SEARCH $"), (0, "FETCH $ UID")],
    "states": [
        (0, command)
        for command in (
            "NOOP", "CHECK", "IDLE\r\nDONE", "ENABLE CONDSTORE", "SELECT INBOX (CONDSTORE)",
            "EXAMINE INBOX (CONDSTORE)", "CLOSE", "FETCH 1 UID", "UNSELECT", "CHECK",
            "SELECT nowhere", "LOGIN a b", "AUTHENTICATE PLAIN", "STARTTLS",
        )
    ],
    "appends": [
        (0, "APPEND"), (0, "APPEND INBOX"), (0, "APPEND INBOX ()"),
        (0, b"APPEND INBOX {1+}\r\na {1+}\r\nb"),
        (0, b'APPEND "" {1+}\r\na'), (1, "NOOP"), (0, b"APPEND INBOX {0+}\r\n"),
    ],
}  # fmt: skip


@external(DOVECOT_IMAP)
@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogue(tmp_path: Path, dovecot: Callable[[], Dovecot], name: str) -> None:
    fill(tmp_path / "mail" / ADDRESS)
    with serve_imap(tmp_path) as server:
        ours, theirs = [server.lines(), server.lines()], [dovecot(), dovecot()]
        for one, other in zip(ours, theirs, strict=True):
            one.ok("SELECT INBOX")
            other.ok("SELECT INBOX")
        for who, command in DIALOGUES[name]:
            answer, right = ours[who].say(command), theirs[who].say(command)
            assert normal(answer) == normal(right), (command, answer, right)


@external(DOVECOT_IMAP)
@pytest.mark.parametrize("program", PROGRAMS)
def test_mail_program(tmp_path: Path, dovecot: Callable[[], Dovecot], program: str) -> None:
    fill(tmp_path / "mail" / ADDRESS)
    with serve_imap(tmp_path) as server:
        ours, theirs = server.lines(), dovecot()
        for step, _ in PROGRAMS[program]:
            answer, right = ours.say(spelled(step)), theirs.say(spelled(step))
            if ROOT and step in WRONG_IN_2_4:
                continue
            assert normal(answer) == normal(right), (step, answer, right)
