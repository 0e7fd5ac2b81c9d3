"""RFC 7162, section 3.2: QRESYNC.

Rules of this file: a heading names a section, and a test its rule. Caches of clients are compared
with mailboxes in tests/imap/test_imap_session_qresync.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from support import imap_fixtures
from support.imap_expect import expect, fill, fits
from support.imap_server import MESSAGE, ImapServer, Lines

server, client, box, other = imap_fixtures.EVERY


@pytest.fixture
def reader(server: ImapServer, box: str) -> Iterator[Lines]:
    """A session that has enabled QRESYNC and selected the mailbox."""
    reader = server.lines(box, enable="QRESYNC")
    yield reader
    reader.close()


def state(client: Lines, box: str) -> tuple[int, int]:
    """Return UIDVALIDITY and HIGHESTMODSEQ."""
    answers = client.ok(f"STATUS {box} (UIDVALIDITY HIGHESTMODSEQ)")
    match = re.search(rb"UIDVALIDITY (\d+) HIGHESTMODSEQ (\d+)", answers[-1])
    assert match is not None
    return int(match[1]), int(match[2])


def expunge(client: Lines, messages: str) -> None:
    client.ok(f"STORE {messages} +FLAGS.SILENT (\\Deleted)")
    client.ok("EXPUNGE")


# --- 3.2.3 ENABLE ---------------------------------------------------------------------------------


def test_3_2_3_enable(client: Lines, box: str) -> None:
    assert b" QRESYNC" in client.ok("CAPABILITY")[0]
    expect(client, f"SELECT {box} (QRESYNC (1 1))", "BAD ...")
    expect(client, "UID FETCH 1 (FLAGS) (CHANGEDSINCE 1 VANISHED)", "BAD ...")
    expect(client, "ENABLE QRESYNC", "*...", "* ENABLED QRESYNC", "OK ...")
    expect(client, "STORE 1 +FLAGS (\\Seen)", "* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (#))",
           "OK ...")  # fmt: skip


# --- 3.2.4 UID in every FETCH ---------------------------------------------------------------------


def test_3_2_4_changes_of_others_have_uids(reader: Lines, client: Lines) -> None:
    client.ok("STORE 2 +FLAGS.SILENT (\\Seen)")
    expect(reader, "NOOP", "* 2 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (#))", "OK ...")


# --- 3.2.5 SELECT parameter -----------------------------------------------------------------------


def test_3_2_5_what_has_happened(reader: Lines, client: Lines, box: str) -> None:
    valid, modseq = state(client, box)
    expunge(client, "2")
    client.ok("STORE 2 +FLAGS.SILENT (\\Flagged)")
    fill(client, box, MESSAGE)
    answers = reader.ok(f"SELECT {box} (QRESYNC ({valid} {modseq}))")
    assert b"* VANISHED (EARLIER) 2" in answers
    told = [one for one in answers if b" FETCH " in one]
    assert fits(told[0], "* 2 FETCH (UID 3 FLAGS (\\Flagged) MODSEQ (#))")
    assert fits(told[1], "* 4 FETCH (UID 5 FLAGS (\\Recent) MODSEQ (#))") or fits(
        told[1], "* 4 FETCH (UID 5 FLAGS () MODSEQ (#))"
    )
    assert answers.index(b"* VANISHED (EARLIER) 2") < answers.index(told[0])


def test_3_2_5_nothing_has(reader: Lines, client: Lines, box: str) -> None:
    valid, modseq = state(client, box)
    answers = reader.ok(f"SELECT {box} (QRESYNC ({valid} {modseq}))")
    assert not [one for one in answers if b" FETCH " in one or b"VANISHED" in one]


def test_3_2_5_other_uidvalidity(reader: Lines, client: Lines, box: str) -> None:
    valid, _ = state(client, box)
    expunge(client, "2")
    answers = reader.ok(f"SELECT {box} (QRESYNC ({valid + 1} 1))")
    assert not [one for one in answers if b" FETCH " in one or b"VANISHED" in one]


def test_3_2_5_1_known_uids(reader: Lines, client: Lines, box: str) -> None:
    valid, modseq = state(client, box)
    expunge(client, "1:2")
    client.ok("STORE 1:2 +FLAGS.SILENT (\\Flagged)")
    answers = reader.ok(f"SELECT {box} (QRESYNC ({valid} {modseq} 2:3))")
    assert b"* VANISHED (EARLIER) 2" in answers
    assert [one.split()[1] for one in answers if b" FETCH " in one] == [b"1"]


def test_3_2_5_2_sequence_match_data(reader: Lines, client: Lines, box: str) -> None:
    valid, modseq = state(client, box)
    expunge(client, "2")
    answers = reader.ok(f"SELECT {box} (QRESYNC ({valid} {modseq} 1:4 (1,3 1,3)))")
    assert b"* VANISHED (EARLIER) 2" in answers


@pytest.mark.parametrize(
    "wrong", ["(QRESYNC ())", "(QRESYNC (1))", "(QRESYNC (0 1))", "(QRESYNC (1 1 * (1 1)))",
              "(QRESYNC 1 1)"]
)  # fmt: skip
def test_3_2_5_syntax(reader: Lines, box: str, wrong: str) -> None:
    expect(reader, f"SELECT {box} {wrong}", "BAD ...")
    reader.ok("FETCH 1 UID")  # it stays selected


# --- 3.2.6 UID FETCH with VANISHED ----------------------------------------------------------------


def test_3_2_6_vanished(reader: Lines, client: Lines, box: str) -> None:
    _, modseq = state(client, box)
    expunge(client, "2:3")
    client.ok("STORE 2 +FLAGS.SILENT (\\Flagged)")
    reader.ok("NOOP")
    expect(reader, f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq} VANISHED)",
           "* VANISHED (EARLIER) 2:3", "* 2 FETCH (UID 4 FLAGS (\\Flagged) MODSEQ (#))",
           "OK ...")  # fmt: skip
    expect(reader, f"UID FETCH 3 (FLAGS) (CHANGEDSINCE {modseq} VANISHED)",
           "* VANISHED (EARLIER) 3", "OK ...")  # fmt: skip
    expect(reader, "UID FETCH 1:* (FLAGS) (VANISHED)", "BAD ...")
    expect(reader, f"FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq} VANISHED)", "BAD ...")


# --- 3.2.7 EXPUNGE, 3.2.8 CLOSE, 3.2.9 UID EXPUNGE ------------------------------------------------


def test_3_2_7_expunge(reader: Lines) -> None:
    reader.ok("STORE 2:3 +FLAGS.SILENT (\\Deleted)")
    expect(reader, "EXPUNGE", "* VANISHED 2:3", "OK [HIGHESTMODSEQ #] ...")


def test_3_2_8_close(reader: Lines, client: Lines, box: str) -> None:
    reader.ok("STORE 2:3 +FLAGS.SILENT (\\Deleted)")
    expect(reader, "CLOSE", "OK [HIGHESTMODSEQ #] ...")
    client.ok("NOOP")
    expect(client, "UID SEARCH ALL", "* SEARCH 1 4", "OK ...")


def test_3_2_9_uid_expunge(reader: Lines, box: str) -> None:
    reader.ok("STORE 2:3 +FLAGS.SILENT (\\Deleted)")
    responses = expect(reader, "UID EXPUNGE 3", "* VANISHED 3", "OK [HIGHESTMODSEQ #] ...")
    match = re.search(rb"HIGHESTMODSEQ (\d+)", responses[-1])
    assert match is not None
    assert int(match[1]) == state(reader, box)[1]


# --- 3.2.10 VANISHED ------------------------------------------------------------------------------


def test_3_2_10_1_never_expunge(reader: Lines, client: Lines) -> None:
    expunge(client, "1,3")
    answers = reader.ok("NOOP")
    assert answers[0] == b"* VANISHED 1,3"
    assert not any(b"EXPUNGE" in one for one in answers)


def test_3_2_10_2_not_while_numbers_are_used(reader: Lines, client: Lines) -> None:
    expunge(client, "1")
    assert not any(b"VANISHED" in one for one in reader.ok("FETCH 2 UID"))
    assert not any(b"VANISHED" in one for one in reader.ok("STORE 2 +FLAGS (\\Seen)"))
    assert b"* VANISHED 1" in reader.ok("UID FETCH 2 UID")


# --- 3.2.11 CLOSED --------------------------------------------------------------------------------


def test_3_2_11_closed(reader: Lines, box: str) -> None:
    expect(reader, f"SELECT {box}", "* OK [CLOSED] ...", "*...", "OK ...")
    expect(reader, "SELECT nowhere", "* OK [CLOSED] ...", "NO ...")
    reader.ok(f"EXAMINE {box}")
    expect(reader, "UNSELECT", "OK ...")
    assert not fits(reader.ok(f"SELECT {box}")[0], "* OK [CLOSED] ...")
