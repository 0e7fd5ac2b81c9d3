"""LIST in all its forms, LSUB, STATUS, CREATE, DELETE, RENAME, SUBSCRIBE (RFC 3501, 5258, 6154).

Rules of this file: an account with some mailboxes, and what a client is told of them. How names
become directories is a matter of the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import MESSAGE, ImapServer, Lines, serve_imap


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        yield served


@pytest.fixture
def client(server: ImapServer) -> Lines:
    client = server.lines()
    for name in ("Work", "Work/2026", "Deep/Down/Under", "Sent"):
        client.ok(f"CREATE {name}" + (" (USE (\\Sent))" if name == "Sent" else ""))
    client.ok("UNSUBSCRIBE Work")
    client.ok("SUBSCRIBE Gone/Long")
    return client


def names(answers: list[bytes]) -> list[str]:
    """Return names with their attributes, sorted, as ``name(attributes)``."""
    found = []
    for answer in answers:
        match = re.fullmatch(rb'\* (?:LIST|LSUB) \((.*?)\) "/" (\S+|".*?")( \(.*\))?', answer)
        assert match is not None, answer
        attributes = match[1].replace(b"\\", b"").decode()
        child = "+" if match[3] == b' ("CHILDINFO" ("SUBSCRIBED"))' else ""
        found.append(f"{match[2].decode().strip(chr(34))}({attributes}){child}")
    return found


DEEP = ["Deep(Noselect HasChildren)", "Deep/Down(Noselect HasChildren)"]
UNDER = "Deep/Down/Under(HasNoChildren)"
INBOX, SENT = "INBOX(HasNoChildren)", "Sent(HasNoChildren Sent)"
WORK, YEAR = "Work(HasChildren)", "Work/2026(HasNoChildren)"
SUB_DEEP = "Deep/Down/Under(Subscribed HasNoChildren)"
SUB_GONE = "Gone/Long(NonExistent Subscribed HasNoChildren)"
SUB_SENT, SUB_YEAR = "Sent(Subscribed HasNoChildren Sent)", "Work/2026(Subscribed HasNoChildren)"


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ('LIST "" *', [*DEEP, UNDER, INBOX, SENT, WORK, YEAR]),
        ('LIST "" %', [DEEP[0], INBOX, SENT, WORK]),
        ('LIST "" %/%', [DEEP[1], YEAR]),
        ('LIST Work/ %', [YEAR]),
        ('LIST "" Work', [WORK]),
        ('LIST "" work', []),
        ('LIST "" inbox', [INBOX]),
        ('LIST "" InB*', [INBOX]),
        ('LIST "" *e*e*', [*DEEP, UNDER]),
        ('LIST "" ""', ["(Noselect)"]),
        ('LIST "" (Sent Work/*)', [SENT, YEAR]),
        ('LIST (SUBSCRIBED) "" *', [SUB_DEEP, SUB_GONE, SUB_SENT, SUB_YEAR]),
        ('LIST (SUBSCRIBED) "" %', [SUB_SENT]),
        ('LIST (SUBSCRIBED RECURSIVEMATCH) "" %', [
            "Deep(NonExistent HasChildren)+", "Gone(NonExistent HasNoChildren)+", SUB_SENT,
            "Work(HasChildren)+",
        ]),
        ('LIST (SUBSCRIBED RECURSIVEMATCH) "" *', [SUB_DEEP, SUB_GONE, SUB_SENT, SUB_YEAR]),
        ('LIST (SPECIAL-USE) "" *', [SENT]),
        ('LIST "" % RETURN (SUBSCRIBED CHILDREN)', [
            "Deep(NonExistent HasChildren)", INBOX, SUB_SENT, WORK,
        ]),
        ('LSUB "" *', ["Deep/Down/Under()", "Gone/Long()", "Sent()", "Work/2026()"]),
        ('LSUB "" %', ["Deep(Noselect)", "Gone(Noselect)", "Sent()", "Work(Noselect)"]),
        ('LSUB "" Work*', ["Work/2026()"]),
    ],
)  # fmt: skip
def test_listing(client: Lines, command: str, found: list[str]) -> None:
    assert names(client.ok(command)) == found


def test_recursive_match_alone(client: Lines) -> None:
    assert client.say('LIST (RECURSIVEMATCH) "" *')[-1].startswith(b"BAD ")


def test_list_with_status(client: Lines) -> None:
    answers = client.ok('LIST "" (Deep Work) RETURN (STATUS (MESSAGES UIDNEXT))')
    assert answers == [
        b'* LIST (\\NonExistent \\HasChildren) "/" Deep',
        b'* LIST (\\HasChildren) "/" Work',
        b"* STATUS Work (MESSAGES 0 UIDNEXT 1)",
    ]


def test_status(server: ImapServer, client: Lines) -> None:
    server.deliver(MESSAGE, MESSAGE)
    (answer,) = client.ok(
        "STATUS inbox (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ SIZE MAILBOXID"
        " APPENDLIMIT DELETED)"
    )
    size = 2 * len(MESSAGE)
    assert re.fullmatch(
        rb"\* STATUS INBOX \(MESSAGES 2 RECENT 2 UIDNEXT 3 UIDVALIDITY [0-9]+ UNSEEN 2"
        rb" HIGHESTMODSEQ [0-9]+ SIZE %d MAILBOXID \(F[0-9]+\) APPENDLIMIT 52428800"
        rb" DELETED 0\)" % size,
        answer,
    ), answer
    assert client.say("STATUS nowhere (MESSAGES)")[-1].startswith(b"NO [NONEXISTENT] ")


def test_create(client: Lines) -> None:
    assert re.match(rb"OK \[MAILBOXID \(F[0-9]+\)\] ", client.say("CREATE New/")[-1])
    assert client.say("CREATE New")[-1].startswith(b"NO [ALREADYEXISTS] ")
    assert client.say("CREATE inbox")[-1].startswith(b"NO [ALREADYEXISTS] ")
    assert client.say('CREATE "a//b"')[-1].startswith(b"NO [CANNOT] ")
    assert client.say("CREATE /")[-1].startswith(b"NO [CANNOT] ")
    assert client.say("CREATE Every (USE (\\All))")[-1].startswith(b"NO [USEATTR] ")
    assert client.say("CREATE Two (USE (\\Junk \\Trash))")[-1].startswith(b"NO [USEATTR] ")
    assert names(client.ok('LIST "" New')) == ["New(HasNoChildren)"]
    assert names(client.ok('LIST "" T*')) == []
    client.ok('CREATE "Entw&APw-rfe"')
    assert names(client.ok('LIST "" Entw*')) == ["Entw&APw-rfe(HasNoChildren)"]


def test_delete_and_rename(client: Lines) -> None:
    client.ok("DELETE Work")
    assert names(client.ok('LIST "" Work*')) == ["Work(Noselect HasChildren)", YEAR]
    assert client.say("DELETE Work")[-1].startswith(b"NO [NONEXISTENT] ")
    assert client.say("DELETE INBOX")[-1].startswith(b"NO [CANNOT] ")
    client.ok("RENAME Deep/Down/Under Up")
    assert names(client.ok('LIST "" Up')) == ["Up(HasNoChildren)"]
    assert client.say("RENAME Up Sent")[-1].startswith(b"NO [ALREADYEXISTS] ")
    assert client.say("RENAME Nothing There")[-1].startswith(b"NO [NONEXISTENT] ")


def test_rename_inbox_moves_its_messages(server: ImapServer, client: Lines) -> None:
    server.deliver(MESSAGE)
    client.ok("RENAME INBOX Old")
    assert client.ok("STATUS Old (MESSAGES)") == [b"* STATUS Old (MESSAGES 1)"]
    assert client.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 0)"]


def test_small_commands(client: Lines) -> None:
    assert client.ok("NAMESPACE") == [b'* NAMESPACE (("" "/")) NIL NIL']
    assert client.ok('ID ("name" "test")') == [b'* ID ("name" "fastlisten")']
    assert client.ok("ENABLE CONDSTORE X-NONE") == [b"* ENABLED CONDSTORE"]
    assert client.ok("ENABLE X-NONE") == [b"* ENABLED"]
    assert client.ok("NOOP") == []
    for command in ("CHECK", "FETCH 1 FLAGS"):
        assert client.say(command)[-1].startswith(b"BAD ")
