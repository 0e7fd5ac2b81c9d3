"""RFC 5182: SEARCHRES, a search result that later commands call ``$``."""

from __future__ import annotations

import pytest
from support import imap_fixtures
from support.imap_expect import expect, fill, new_mailbox
from support.imap_server import MESSAGE, Lines

server, client, box, other = imap_fixtures.EVERY

# --- 2.1 Extended SEARCH --------------------------------------------------------------------------


def test_2_1_save_alone_says_nothing(client: Lines, box: str) -> None:
    assert b" SEARCHRES" in client.ok("CAPABILITY")[0]
    expect(client, "SEARCH RETURN (SAVE) 2:3", "OK ...")
    expect(client, "FETCH $ UID", "* 2 FETCH (UID 2)", "* 3 FETCH (UID 3)", "OK ...")


def test_2_1_empty_at_first_and_after_select(client: Lines, box: str) -> None:
    expect(client, "FETCH $ UID", "OK ...")
    client.ok("SEARCH RETURN (SAVE) ALL")
    client.ok(f"SELECT {box}")
    expect(client, "FETCH $ UID", "OK ...")
    expect(client, "SEARCH $", "* SEARCH", "OK ...")


def test_2_1_a_search_that_fails_empties_it(client: Lines, box: str) -> None:
    client.ok("SEARCH RETURN (SAVE) 2")
    expect(client, "SEARCH RETURN (SAVE) CHARSET X-NONE TEXT x", "NO [BADCHARSET ...] ...")
    expect(client, "SEARCH $", "* SEARCH", "OK ...")


@pytest.mark.parametrize(
    "command",
    ["SEARCH RETURN (SAVE) NONSENSE", "SEARCH 1", "SEARCH RETURN (COUNT) 1", "UID SEARCH 4"],
)
def test_2_1_other_searches_leave_it(client: Lines, box: str, command: str) -> None:
    client.ok("SEARCH RETURN (SAVE) 2")
    client.say(command)
    expect(client, "SEARCH $", "* SEARCH 2", "OK ...")


@pytest.mark.parametrize(
    ("returns", "saved"),
    [
        ("SAVE MIN", "2"), ("SAVE MAX", "4"), ("SAVE MIN MAX", "2 4"), ("SAVE ALL", "2 3 4"),
        ("SAVE COUNT", "2 3 4"), ("SAVE MIN COUNT", "2 3 4"), ("SAVE MAX ALL", "2 3 4"),
    ],
)  # fmt: skip
def test_2_4_what_is_saved_with_other_options(
    client: Lines, box: str, returns: str, saved: str
) -> None:
    client.ok(f"SEARCH RETURN ({returns}) 2:4")
    expect(client, "SEARCH $", f"* SEARCH {saved}", "OK ...")


# --- 2.1 Commands that take it --------------------------------------------------------------------


def test_2_1_every_command_with_a_set(client: Lines, box: str) -> None:
    target = new_mailbox(client)
    client.ok("UID SEARCH RETURN (SAVE) 2:3")
    expect(client, "STORE $ +FLAGS (\\Seen)", "* 2 FETCH (FLAGS (\\Seen))",
           "* 3 FETCH (FLAGS (\\Seen))", "OK ...")  # fmt: skip
    expect(client, "UID FETCH $ FLAGS", "* 2 FETCH (UID 2 FLAGS (\\Seen))",
           "* 3 FETCH (UID 3 FLAGS (\\Seen))", "OK ...")  # fmt: skip
    expect(client, f"COPY $ {target}", "OK [COPYUID # 2:3 1:2] ...")
    expect(client, f"UID COPY $ {target}", "OK [COPYUID # 2:3 3:4] ...")
    expect(client, "SEARCH UID $ SEEN", "* SEARCH 2 3", "OK ...")
    expect(client, "SEARCH OR $ 1", "* SEARCH 1 2 3", "OK ...")
    expect(client, "SEARCH NOT $", "* SEARCH 1 4", "OK ...")
    client.ok("UID STORE $ +FLAGS.SILENT (\\Deleted)")
    expect(client, "UID EXPUNGE $", "* ...EXPUNGE", "* ...EXPUNGE", "OK ...")
    client.ok("SEARCH RETURN (SAVE) 1")
    expect(client, f"MOVE $ {target}", "* OK [COPYUID # 1 5] ...", "* 1 EXPUNGE", "OK ...")


def test_2_1_the_result_of_itself(client: Lines, box: str) -> None:
    client.ok("SEARCH RETURN (SAVE) 2:4")
    client.ok("SEARCH RETURN (SAVE) $ NOT 3")
    expect(client, "SEARCH $", "* SEARCH 2 4", "OK ...")


# --- 2.1 It stands for messages, not for numbers --------------------------------------------------


def test_2_1_it_shrinks_with_expunges(client: Lines, box: str, other: Lines) -> None:
    client.ok("SEARCH RETURN (SAVE) 2:4")
    other.ok("STORE 1,3 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    client.ok("NOOP")
    expect(client, "UID FETCH $ UID", "* 1 FETCH (UID 2)", "* 2 FETCH (UID 4)", "OK ...")


def test_2_1_it_does_not_grow(client: Lines, box: str) -> None:
    client.ok("SEARCH RETURN (SAVE) ALL")
    fill(client, box, MESSAGE)
    client.ok("NOOP")
    expect(client, "SEARCH RETURN (COUNT) $", '* ESEARCH (TAG "...") COUNT 4', "OK ...")


# --- 2.2 Pipelined commands -----------------------------------------------------------------------


def test_2_2_pipelined(client: Lines, box: str) -> None:
    client.send(b"a SEARCH RETURN (SAVE) 3\r\nb STORE $ +FLAGS (\\Seen)\r\nc SEARCH SEEN\r\n")
    assert client.answers(b"c")[-2] == b"* SEARCH 3"
