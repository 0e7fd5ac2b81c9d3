"""RFC 7162, section 3.1: CONDSTORE.

Rules of this file: a heading names a section, and a test its rule. More of it is in
tests/imap/test_imap_session_condstore.py.
"""

from __future__ import annotations

import re

import pytest
from support import imap_fixtures
from support.imap_expect import expect, fill, fits
from support.imap_server import MESSAGE, Lines

server, client, box, other = imap_fixtures.EVERY


def modseqs(client: Lines, messages: str = "1:*") -> list[int]:
    answers = client.ok(f"FETCH {messages} MODSEQ")
    return [int(one) for one in re.findall(rb"MODSEQ \(([0-9]+)\)", b"\n".join(answers))]


def highest(client: Lines, box: str) -> int:
    (answer,) = [one for one in client.ok(f"STATUS {box} (HIGHESTMODSEQ)") if b"STATUS" in one]
    return int(answer.rpartition(b" ")[2][:-1])


# --- 3.1 MODSEQ in general ------------------------------------------------------------------------


def test_3_1_every_change_of_flags_raises_it(client: Lines, box: str) -> None:
    for command in ("+FLAGS.SILENT (\\Seen)", "+FLAGS (word)", "FLAGS ()"):
        before, top = modseqs(client), highest(client, box)
        client.ok(f"STORE 2 {command}")
        after = modseqs(client)
        assert after[1] > top
        assert after[:1] + after[2:] == before[:1] + before[2:]
        assert highest(client, box) >= after[1]


def test_3_1_no_change_none(client: Lines, box: str) -> None:
    client.ok("STORE 1 +FLAGS (\\Seen)")
    before = modseqs(client)
    client.ok("STORE 1 +FLAGS (\\Seen)")
    assert modseqs(client) == before


def test_3_1_arrivals_and_expunges_raise_the_highest(client: Lines, box: str) -> None:
    first = highest(client, box)
    fill(client, box, MESSAGE)
    second = highest(client, box)
    assert second > first
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    third = highest(client, box)
    client.ok("EXPUNGE")
    assert highest(client, box) > third


# --- 3.1.1, 3.1.2 Capability, and response codes of SELECT ----------------------------------------


def test_3_1_2_1_highestmodseq(client: Lines, box: str) -> None:
    assert b" CONDSTORE" in client.ok("CAPABILITY")[0]
    (code,) = [one for one in client.ok(f"SELECT {box}") if b"HIGHESTMODSEQ" in one]
    assert fits(code, f"* OK [HIGHESTMODSEQ {highest(client, box)}] ...")


# --- 3.1.3 STORE with UNCHANGEDSINCE --------------------------------------------------------------


def test_3_1_3_all_that_are_unchanged(client: Lines, box: str) -> None:
    client.ok("ENABLE CONDSTORE")
    top = max(modseqs(client))
    expect(client, f"STORE 1:2 (UNCHANGEDSINCE {top}) +FLAGS.SILENT (\\Deleted)",
           "* 1 FETCH (MODSEQ (#))", "* 2 FETCH (MODSEQ (#))", "OK ...")  # fmt: skip


def test_3_1_3_those_that_have_changed_are_named(client: Lines, box: str, other: Lines) -> None:
    top = max(modseqs(client))
    other.ok("STORE 2,4 +FLAGS.SILENT (\\Flagged)")
    responses = client.say(f"STORE 1:4 (UNCHANGEDSINCE {top}) +FLAGS (\\Seen)")
    assert fits(responses[-1], "OK [MODIFIED 2,4] ...")
    seen = client.ok("SEARCH SEEN")
    assert seen[-1] == b"* SEARCH 1 3"
    responses = client.say(f"UID STORE 1:4 (UNCHANGEDSINCE {top}) +FLAGS (\\Draft)")
    assert fits(responses[-1], "OK [MODIFIED 1:4] ...")


def test_3_1_3_the_client_is_told_what_they_have_now(client: Lines, box: str, other: Lines) -> None:
    """RFC 7162: otherwise it would have to ask before it tries again."""
    top = max(modseqs(client))
    other.ok("STORE 2 +FLAGS.SILENT (\\Flagged)")
    responses = client.say(f"STORE 2 (UNCHANGEDSINCE {top}) +FLAGS (\\Seen)")
    assert any(fits(one, "* 2 FETCH (FLAGS (\\Flagged) MODSEQ (#))") for one in responses)


def test_3_1_3_zero_never_stores(client: Lines, box: str) -> None:
    expect(client, "STORE 1:2 (UNCHANGEDSINCE 0) +FLAGS.SILENT (\\Seen)", "*...",
           "OK [MODIFIED 1:2] ...")  # fmt: skip


def test_3_1_3_each_fetch_has_modseq(client: Lines, box: str) -> None:
    client.ok("ENABLE CONDSTORE")
    expect(client, "STORE 1 +FLAGS (\\Seen)", "* 1 FETCH (FLAGS (\\Seen) MODSEQ (#))", "OK ...")
    expect(client, "UID STORE 1 +FLAGS.SILENT (\\Draft)", "* 1 FETCH (UID 1 MODSEQ (#))", "OK ...")


@pytest.mark.parametrize("wrong", ["(UNCHANGEDSINCE)", "(UNCHANGEDSINCE x)", "(SINCE 1)", "()"])
def test_3_1_3_syntax(client: Lines, box: str, wrong: str) -> None:
    expect(client, f"STORE 1 {wrong} +FLAGS (\\Seen)", "BAD ...")


# --- 3.1.4 FETCH ----------------------------------------------------------------------------------


def test_3_1_4_1_changedsince(client: Lines, box: str) -> None:
    top = highest(client, box)
    client.ok("STORE 3 +FLAGS.SILENT (\\Seen)")
    expect(client, f"FETCH 1:* (FLAGS) (CHANGEDSINCE {top})",
           "* 3 FETCH (FLAGS (\\Seen) MODSEQ (#))", "OK ...")  # fmt: skip
    expect(client, f"UID FETCH 1:* (BODY.PEEK[TEXT]<0.1>) (CHANGEDSINCE {top})",
           "* 3 FETCH (UID 3 BODY[TEXT]<0> {1}\r\nb MODSEQ (#))", "OK ...")  # fmt: skip
    expect(client, f"FETCH 1:* (FLAGS) (CHANGEDSINCE {highest(client, box)})", "OK ...")


def test_3_1_4_2_modseq_item(client: Lines, box: str) -> None:
    client.ok("ENABLE CONDSTORE")
    expect(client, "FETCH 1 (UID MODSEQ)", "* 1 FETCH (UID 1 MODSEQ (#))", "OK ...")


def test_3_1_4_changes_of_others_have_it(client: Lines, box: str, other: Lines) -> None:
    client.ok("ENABLE CONDSTORE")
    other.ok("STORE 2 +FLAGS.SILENT (\\Seen)")
    expect(client, "NOOP", "* 2 FETCH (FLAGS (\\Seen) MODSEQ (#))", "OK ...")


# --- 3.1.5, 3.1.6 SEARCH --------------------------------------------------------------------------


def test_3_1_5_search(client: Lines, box: str) -> None:
    client.ok("STORE 2 +FLAGS.SILENT (\\Seen)")
    client.ok("STORE 4 +FLAGS.SILENT (\\Seen)")
    before = modseqs(client)
    expect(client, f"SEARCH MODSEQ {before[1]}", f"* SEARCH 2 4 (MODSEQ {before[3]})", "OK ...")
    expect(client, f'SEARCH MODSEQ "/flags/\\\\Seen" all {before[3]}',
           f"* SEARCH 4 (MODSEQ {before[3]})", "OK ...")  # fmt: skip
    expect(client, f"SEARCH MODSEQ {before[3] + 1}", "* SEARCH", "OK ...")
    expect(client, f"SEARCH NOT MODSEQ {before[1]}", f"* SEARCH 1 3 (MODSEQ {before[2]})",
           "OK ...")  # fmt: skip


# --- 3.1.8, 3.1.9 SELECT parameter, STATUS --------------------------------------------------------


def test_3_1_8_parameter(client: Lines, box: str) -> None:
    for command in ("SELECT", "EXAMINE"):
        expect(client, f"{command} {box} (CONDSTORE)", "*...", "OK ...")
    expect(client, f"SELECT {box}", "*...", "OK ...")
    expect(client, "STORE 1 +FLAGS (\\Seen)", "* 1 FETCH (FLAGS (\\Seen) MODSEQ (#))", "OK ...")
    expect(client, f"SELECT {box} (NONSENSE)", "BAD ...")
