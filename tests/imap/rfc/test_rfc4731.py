"""RFC 4731: ESEARCH."""

from __future__ import annotations

import pytest
from support import imap_fixtures
from support.imap_expect import expect
from support.imap_server import Lines

server, client, box, other = imap_fixtures.EVERY

# --- 3.1 Extended SEARCH --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returns", "result"),
    [
        ("", "ALL 1,3:4"), ("ALL", "ALL 1,3:4"), ("MIN", "MIN 1"), ("MAX", "MAX 4"),
        ("COUNT", "COUNT 3"), ("MIN MAX", "MIN 1 MAX 4"), ("count max min all", None),
    ],
)  # fmt: skip
def test_3_1_results(client: Lines, box: str, returns: str, result: str | None) -> None:
    client.ok("STORE 2 +FLAGS.SILENT (\\Seen)")
    answer = client.ok(f"SEARCH RETURN ({returns}) UNSEEN")
    tag = f"t{client.count}"
    if result is None:
        (line,) = answer
        head = f'* ESEARCH (TAG "{tag}") '.encode()
        assert line.startswith(head)
        words = line[len(head) :].split()
        pairs = dict(zip(words[::2], words[1::2], strict=True))
        assert pairs == {b"MIN": b"1", b"MAX": b"4", b"COUNT": b"3", b"ALL": b"1,3:4"}
    else:
        assert answer == [f'* ESEARCH (TAG "{tag}") {result}'.encode()]


def test_3_1_uids(client: Lines, box: str) -> None:
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    client.ok("EXPUNGE")
    expect(client, "UID SEARCH RETURN (ALL) ALL", '* ESEARCH (TAG "...") UID ALL 2:4', "OK ...")
    expect(client, "SEARCH RETURN (ALL) ALL", '* ESEARCH (TAG "...") ALL 1:3', "OK ...")


def test_3_1_nothing_found(client: Lines, box: str) -> None:
    expect(client, "SEARCH RETURN (MIN MAX ALL) SEEN", '* ESEARCH (TAG "...")', "OK ...")
    expect(client, "SEARCH RETURN (COUNT) SEEN", '* ESEARCH (TAG "...") COUNT 0', "OK ...")
    expect(client, "UID SEARCH RETURN () SEEN", '* ESEARCH (TAG "...") UID', "OK ...")


def test_3_1_unknown_options(client: Lines, box: str) -> None:
    expect(client, "SEARCH RETURN (NONE) ALL", "BAD ...")
    expect(client, "SEARCH RETURN MIN ALL", "BAD ...")


def test_3_1_with_a_charset(client: Lines, box: str) -> None:
    expect(client, "SEARCH RETURN (COUNT) CHARSET UTF-8 SUBJECT hello",
           '* ESEARCH (TAG "...") COUNT 4', "OK ...")  # fmt: skip


# --- 3.2 Interaction with CONDSTORE ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("returns", "last"),
    [("MIN", 1), ("MAX", 4), ("MIN MAX", 4), ("ALL", 2), ("COUNT", 2), ("MIN COUNT", 2)],
)
def test_3_2_modseq(client: Lines, box: str, returns: str, last: int) -> None:
    """The MODSEQ is that of the messages that are returned, the greatest of them."""
    for number in (3, 1, 4, 2):
        client.ok(f"STORE {number} +FLAGS.SILENT (\\Seen)")
    answers = client.ok("FETCH 1:* MODSEQ")
    modseqs = {
        int(one.split()[1]): one.rpartition(b"(")[2].rstrip(b")")
        for one in answers
        if b" FETCH " in one
    }
    (line,) = client.ok(f"SEARCH RETURN ({returns}) MODSEQ 1")
    assert line.endswith(b" MODSEQ " + modseqs[last])
