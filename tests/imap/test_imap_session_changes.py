"""Two sessions on one mailbox: what each is told of the other, when, and in which order.

Rules of this file: RFC 3501 5.2, 7.3 and 7.4.1. IDLE is in test_imap_session_idle.py, modification
sequences in test_imap_session_condstore.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imap_server import MESSAGE, ImapServer, serve_imap

from fastlisten.handlers.imap import fetching, selected_mailbox


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImapServer]:
    with serve_imap(tmp_path) as served:
        served.deliver(*[MESSAGE] * 5)
        yield served


def test_select(server: ImapServer) -> None:
    first, second = server.lines(), server.lines()
    answers = first.say("SELECT INBOX")
    assert answers[0] == b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)"
    assert answers[1].startswith(b"* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen")
    assert b"\\*)]" in answers[1]
    assert answers[2:5] == [b"* 5 EXISTS", b"* 5 RECENT", b"* OK [UNSEEN 1] First unseen."]
    assert answers[5].startswith(b"* OK [UIDVALIDITY ")
    assert answers[6] == b"* OK [UIDNEXT 6] Predicted next UID"
    assert answers[7].startswith(b"* OK [HIGHESTMODSEQ ")
    assert answers[8].startswith(b"* OK [MAILBOXID (")
    assert answers[9:] == [b"OK [READ-WRITE] Select completed."]
    # What is recent has been taken by the first.
    answers = second.say("EXAMINE INBOX")
    assert b"* 0 RECENT" in answers
    assert b"* OK [PERMANENTFLAGS ()] No permanent flags permitted." in answers
    assert answers[-1] == b"OK [READ-ONLY] Examine completed."


def test_select_again_closes_the_first(server: ImapServer) -> None:
    client = server.lines("INBOX")
    assert client.say("SELECT INBOX")[0] == b"* OK [CLOSED] Previous mailbox closed."
    assert client.say("SELECT nowhere")[-1].startswith(b"NO [NONEXISTENT] ")
    assert client.say("FETCH 1 FLAGS")[-1].startswith(b"BAD ")


def test_flags_of_others_are_told(server: ImapServer) -> None:
    first, second = server.lines("INBOX"), server.lines("INBOX")
    assert second.ok("STORE 2 +FLAGS (\\Flagged)") == [b"* 2 FETCH (FLAGS (\\Flagged))"]
    assert first.ok("NOOP") == [b"* 2 FETCH (FLAGS (\\Flagged \\Recent))"]
    assert first.ok("NOOP") == []
    assert second.ok("NOOP") == []


def test_new_keyword_is_told_before_its_first_message(server: ImapServer) -> None:
    first, second = server.lines("INBOX"), server.lines("INBOX")
    for client, answers in ((second, second.ok("STORE 2 FLAGS ($New)")), (first, first.ok("NOOP"))):
        assert answers[0] == b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $New)"
        assert answers[1].startswith(b"* OK [PERMANENTFLAGS (")
        assert b"$New \\*)]" in answers[1]
        assert answers[2].startswith(b"* 2 FETCH (FLAGS ($New")
        assert client.ok("STORE 3 +FLAGS ($New)")[0].startswith(b"* 3 FETCH (FLAGS ($New")


def test_arrivals_are_told(server: ImapServer) -> None:
    first, second = server.lines("INBOX"), server.lines("INBOX")
    server.deliver()
    assert first.ok("NOOP") == [b"* 6 EXISTS", b"* 6 RECENT"]
    assert second.ok("CHECK")[0] == b"* 6 EXISTS"


@pytest.mark.parametrize(
    ("command", "lines"),
    [("FETCH 5 UID", 1), ("STORE 5 +FLAGS.SILENT (\\Seen)", 0), ("SEARCH ALL", 1)],
)
def test_numbers_stay_while_they_are_used(server: ImapServer, command: str, lines: int) -> None:
    first, second = server.lines("INBOX"), server.lines("INBOX")
    second.ok("STORE 2,4 +FLAGS.SILENT (\\Deleted)")
    assert second.ok("EXPUNGE") == [b"* 2 EXPUNGE", b"* 3 EXPUNGE"]
    answers = first.ok(command)
    assert len(answers) == lines
    assert not any(b"EXPUNGE" in line or b"EXISTS" in line for line in answers)
    # Arrivals may be told, and count what is not told to be gone.
    server.deliver()
    assert first.ok("FETCH 5 UID") == [b"* 5 FETCH (UID 5)", b"* 6 EXISTS", b"* 6 RECENT"]
    assert first.ok("NOOP") == [b"* 2 EXPUNGE", b"* 3 EXPUNGE", b"* 4 RECENT"]
    assert first.ok("FETCH 1:* UID") == [
        b"* %d FETCH (UID %d)" % pair for pair in ((1, 1), (2, 3), (3, 5), (4, 6))
    ]


@pytest.mark.parametrize("command", ["UID FETCH 5 UID", "UID SEARCH ALL", "UID STORE 5 -FLAGS x"])
def test_uid_commands_tell_what_is_gone(server: ImapServer, command: str) -> None:
    first, second = server.lines("INBOX"), server.lines("INBOX")
    second.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    second.ok("EXPUNGE")
    assert first.ok(command)[-2:] == [b"* 1 EXPUNGE", b"* 4 RECENT"]


def test_messages_that_are_gone_are_left_out(server: ImapServer) -> None:
    first, second = server.lines("INBOX"), server.lines("INBOX")
    second.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    second.ok("EXPUNGE")
    # The session has not been told, so the number is in use.
    answers = first.say("FETCH 1:3 BODY.PEEK[TEXT]")
    assert [line[:9] for line in answers[:-1]] == [b"* 1 FETCH", b"* 3 FETCH"]
    assert answers[-1] == b"OK [EXPUNGEISSUED] Some messages were already expunged."
    assert first.ok("SEARCH ALL") == [b"* SEARCH 1 3 4 5"]
    assert first.ok("STORE 1:3 +FLAGS (\\Seen)") == [
        b"* 1 FETCH (FLAGS (\\Seen \\Recent))",
        b"* 3 FETCH (FLAGS (\\Seen \\Recent))",
    ]


def test_selected_mailbox_is_deleted(server: ImapServer) -> None:
    first, second = server.lines(), server.lines()
    first.ok("CREATE Work")
    first.ok("SELECT Work")
    second.ok("DELETE Work")
    first.send(b"a NOOP\r\n")
    assert first.stream.read() == b"* BYE Selected mailbox was deleted, have to disconnect\r\n"


def test_own_mailbox_is_deleted(server: ImapServer) -> None:
    client = server.lines()
    client.ok("CREATE Work")
    client.ok("SELECT Work")
    client.ok("RENAME Work Play")
    assert client.ok("NOOP") == []
    assert client.ok("DELETE Play") == [b"* OK [CLOSED] Selected mailbox was deleted."]
    assert client.say("CHECK")[-1].startswith(b"BAD ")
    assert client.say("DELETE Play")[-1].startswith(b"NO [NONEXISTENT] ")
    client.ok("SELECT INBOX")


def test_read_only(server: ImapServer) -> None:
    client = server.lines()
    client.ok("EXAMINE INBOX")
    for command in ("STORE 1 +FLAGS (\\Deleted)", "EXPUNGE", "MOVE 1 INBOX"):
        assert client.say(command)[-1].startswith(b"NO [READ-ONLY] ")
    assert b"FLAGS" not in client.ok("FETCH 1 BODY[]")[0]
    client.ok("CLOSE")
    client.ok("EXAMINE INBOX")
    assert client.ok("SEARCH UNSEEN") == [b"* SEARCH 1 2 3 4 5"]


@pytest.mark.parametrize("command", ["FETCH 6 FLAGS", "STORE 1:6 FLAGS x", "COPY 6,1 INBOX"])
def test_numbers_must_be_in_use(server: ImapServer, command: str) -> None:
    client = server.lines("INBOX")
    assert client.say(command)[-1].startswith(b"BAD ")
    assert client.ok(f"UID {command.replace('6', '60')}") is not None


def test_pipelined_commands_are_answered_in_order(server: ImapServer) -> None:
    client = server.lines("INBOX")
    client.send(b"".join(b"p%d UID FETCH %d UID\r\n" % (n, n % 5 + 1) for n in range(200)))
    for number in range(200):
        uid = number % 5 + 1
        answers = client.answers(b"p%d" % number)
        assert answers == [b"* %d FETCH (UID %d)" % (uid, uid), b"OK Fetch completed."]


def test_numbers_stay_while_a_client_reads(
    server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others expunge and deliver while a long answer waits for its client."""
    monkeypatch.setattr(fetching, "FACTS_AT_ONCE", 2)
    long = b"Subject: long\r\n\r\n" + b"0123456789abcd\r\n" * 60_000
    server.deliver(*[long] * 25)
    first, second = server.lines("INBOX"), server.lines("INBOX")
    first.send(b"a FETCH 1:* (UID BODY.PEEK[])\r\n")
    first.response()
    for number in (28, 9, 4, 3, 2, 1):  # alone, because the store changes in place then
        second.ok(f"STORE {number} +FLAGS.SILENT (\\Deleted)")
        second.ok("EXPUNGE")
    server.deliver()
    second.ok("NOOP")
    answers = b"\n".join(answer[:40] for answer in first.answers(b"a"))
    pairs = re.findall(rb"\* (\d+) FETCH \(UID (\d+)", answers)
    assert len(pairs) > 20
    assert all(number == uid for number, uid in pairs)
    assert (b"28", b"28") not in pairs  # it was not too late
    assert b"30" in dict(pairs)


def test_many_changes_are_said_in_pieces(
    server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selected_mailbox, "SAID_AT_ONCE", 2)
    first, second = server.lines("INBOX"), server.lines("INBOX")
    told = [b"* %d FETCH (FLAGS (\\Seen))" % number for number in range(1, 6)]
    assert second.ok("STORE 1:* +FLAGS (\\Seen)") == told
    assert len(first.ok("NOOP")) == 5
    assert not any(b"[UNSEEN " in line for line in second.ok("SELECT INBOX"))
    second.ok("STORE 4 -FLAGS.SILENT (\\Seen)")
    assert b"* OK [UNSEEN 4] First unseen." in second.ok("SELECT INBOX")
