"""What the IMAP engine makes of commands of extensions, RFC by RFC.

Rules of this file: one table of lines that are taken, one of lines that are refused; those of
RFC 3501 itself are in test_imap_engine_rfc3501.py.
"""

from __future__ import annotations

import pytest
from support.imap_driver import command, refused

from fastlisten.handlers.imap.engine.commands import (
    Authenticate,
    Close,
    Create,
    Enable,
    Event,
    Expunge,
    Fetch,
    GetQuota,
    GetQuotaRoot,
    Id,
    Idle,
    List,
    Move,
    Namespace,
    Qresync,
    Search,
    Select,
    SetQuota,
    Status,
    Store,
)
from fastlisten.handlers.imap.engine.search_keys import And, Identified, ModSeq, Not, Numbered
from fastlisten.handlers.imap.engine.search_keys import Within as Interval
from fastlisten.handlers.imap.engine.sequence_sets import SAVED, STAR, SequenceSet
from fastlisten.handlers.imap.engine.session_states import State

BEFORE = State.NOT_AUTHENTICATED


def numbers(*ranges: tuple[int, int]) -> SequenceSet:
    return SequenceSet(ranges)


ALL = numbers((1, STAR))


@pytest.mark.parametrize(
    ("line", "event"),
    [
        # RFC 4959 SASL-IR
        (b"AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==", Authenticate("PLAIN", b"\0alice\0secret")),
        (b"AUTHENTICATE PLAIN =", Authenticate("PLAIN", b"")),
        # RFC 2971 ID
        (b"ID NIL", Id({})),
        (b"ID ()", Id({})),
        (
            b'ID ("name" "sodr" "Version" {5+}\r\n19.34 "vendor" NIL)',
            Id({"name": "sodr", "version": "19.34", "vendor": None}),
        ),
    ],
)
def test_before_login(line: bytes, event: Event) -> None:
    assert command(line, BEFORE) == event


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"IDLE", Idle()),  # RFC 2177
        (b"NAMESPACE", Namespace()),  # RFC 2342
        (b"UNSELECT", Close(expunge=False)),  # RFC 3691
        (b"UID EXPUNGE 3000:3002", Expunge(numbers((3000, 3002)))),  # RFC 4315
        (b"UID EXPUNGE $", Expunge(SAVED)),  # RFC 5182
        (b"ENABLE condstore X-GOOD-IDEA", Enable(("CONDSTORE", "X-GOOD-IDEA"))),  # RFC 5161
        # RFC 6851 MOVE
        (b"MOVE 42:69 foo", Move(False, numbers((42, 69)), "foo")),
        (b"UID MOVE $ foo", Move(True, SAVED, "foo")),
        # RFC 6154 CREATE-SPECIAL-USE
        (b"CREATE MySpecial (USE (\\drafts \\Sent))", Create("MySpecial", ("Drafts", "Sent"))),
        (b"CREATE x (USE ())", Create("x")),
        (b"CREATE x ()", Create("x")),
        # RFC 8438, 8474, 7889, 9208, 7162
        (
            b"STATUS frop (SIZE MAILBOXID APPENDLIMIT DELETED DELETED-STORAGE HIGHESTMODSEQ)",
            Status(
                "frop",
                (
                    "SIZE",
                    "MAILBOXID",
                    "APPENDLIMIT",
                    "DELETED",
                    "DELETED-STORAGE",
                    "HIGHESTMODSEQ",
                ),
            ),
        ),
        # RFC 9208 QUOTA
        (b'GETQUOTA ""', GetQuota("")),
        (b'GETQUOTA "\xc3\xa4"', GetQuota("ä")),
        (b"GETQUOTAROOT inbox", GetQuotaRoot("INBOX")),
        (b'SETQUOTA "" (storage 512)', SetQuota("", (("STORAGE", 512),))),
        (b"SETQUOTA x ()", SetQuota("x", ())),
        (
            b"SETQUOTA x (STORAGE 9223372036854775807 MESSAGE 0)",
            SetQuota("x", (("STORAGE", (1 << 63) - 1), ("MESSAGE", 0))),
        ),
    ],
)
def test_small_extensions(line: bytes, event: Event) -> None:
    assert command(line) == event


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b'LIST (SUBSCRIBED) "" "*"', {"select": {"SUBSCRIBED"}}),
        (b'LIST () "" "*"', {}),
        (b'LIST "" "*" RETURN ()', {}),
        (b'LIST "" "*" RETURN (CHILDREN)', {"returns": {"CHILDREN"}}),
        (
            b'LIST (REMOTE recursivematch Subscribed) "" "*"',
            {"select": {"REMOTE", "RECURSIVEMATCH", "SUBSCRIBED"}},
        ),
        (
            b'LIST (SPECIAL-USE) "" * return (special-use subscribed)',
            {"select": {"SPECIAL-USE"}, "returns": {"SPECIAL-USE", "SUBSCRIBED"}},
        ),
        (
            b'LIST "" "*" RETURN (STATUS (MESSAGES UNSEEN) CHILDREN)',
            {"returns": {"STATUS", "CHILDREN"}, "status": ("MESSAGES", "UNSEEN")},
        ),
    ],
)
def test_extended_list(line: bytes, event: dict[str, object]) -> None:
    """RFC 5258, 5819, 6154."""
    assert command(line) == List("", ("*",), extended=True, **event)  # type: ignore[arg-type]


def test_list_of_several_patterns() -> None:
    expected = List("ref", ("INBOX", "Drafts", "a b/%", "Ä*"), extended=True)
    assert command(b'LIST "ref" (INBOX Drafts "a b/%" &AMQ-*)') == expected


@pytest.mark.parametrize(
    ("text", "returns"),
    [
        (b"()", {"ALL"}),
        (b"(MIN COUNT)", {"MIN", "COUNT"}),
        (b"(save all max)", {"SAVE", "ALL", "MAX"}),
    ],
)
def test_return_options_of_search(text: bytes, returns: set[str]) -> None:
    """RFC 4731, 5182."""
    expected = Search(True, And(()), frozenset(returns))
    assert command(b"UID SEARCH RETURN " + text + b" ALL") == expected
    assert command(b"UID SEARCH RETURN " + text + b" CHARSET UTF-8 ALL") == expected


@pytest.mark.parametrize(
    ("text", "search"),
    [
        (b"$", Search(False, Numbered(False, SAVED))),  # RFC 5182
        (b"UID $", Search(False, Numbered(True, SAVED))),
        (b"NOT OLDER 259200", Search(False, Not(Interval(False, 259200)))),  # RFC 5032
        (b"YOUNGER 1", Search(False, Interval(True, 1))),
        # RFC 7162 3.1.5
        (b"MODSEQ 620162338", Search(False, ModSeq(620162338), modseq=True)),
        (b"NOT MODSEQ 0", Search(False, Not(ModSeq(0)), modseq=True)),
        (
            b'MODSEQ "/flags/\\\\draft" all 9223372036854775807',
            Search(False, ModSeq((1 << 63) - 1, "\\Draft"), modseq=True),
        ),
        (b'MODSEQ "/flags/$Junk" priv 1', Search(False, ModSeq(1, "$Junk"), modseq=True)),
        # RFC 8474
        (b"EMAILID M6d99ac3275bb4e", Search(False, Identified(False, "M6d99ac3275bb4e"))),
        (b"THREADID T64b478a75b7ea9", Search(False, Identified(True, "T64b478a75b7ea9"))),
    ],
)
def test_search_keys(text: bytes, search: Search) -> None:
    assert command(b"SEARCH " + text) == search


@pytest.mark.parametrize(
    ("line", "event"),
    [
        # 3.1.8
        (b"SELECT INBOX (CONDSTORE)", Select("INBOX", condstore=True, closed=True)),
        # 3.2.5
        (
            b"SELECT INBOX (QRESYNC (67890007 20050715194045000))",
            Select("INBOX", False, True, Qresync(67890007, 20050715194045000), closed=True),
        ),
        (
            b"EXAMINE INBOX (QRESYNC (67890007 90060115194045000 41,43:211,214:541) CONDSTORE)",
            Select(
                "INBOX",
                True,
                True,
                Qresync(67890007, 90060115194045000, numbers((41, 41), (43, 211), (214, 541))),
                closed=True,
            ),
        ),
        (
            b"SELECT x (QRESYNC (7 9 1:29997 (5000,7500,9000 15000,22500,27000)))",
            Select(
                "x",
                False,
                True,
                Qresync(
                    7,
                    9,
                    numbers((1, 29997)),
                    (
                        numbers((5000, 5000), (7500, 7500), (9000, 9000)),
                        numbers((15000, 15000), (22500, 22500), (27000, 27000)),
                    ),
                ),
                closed=True,
            ),
        ),
        (
            b"SELECT x (QRESYNC (7 9 (1 2)))",
            Select(
                "x",
                False,
                True,
                Qresync(7, 9, None, (numbers((1, 1)), numbers((2, 2)))),
                closed=True,
            ),
        ),
        # 3.1.4.1, 3.2.6
        (
            b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE 12345)",
            Fetch(True, ALL, ("UID", "FLAGS", "MODSEQ"), 12345),
        ),
        (
            b"FETCH 1:* (FLAGS MODSEQ) (CHANGEDSINCE 0)",
            Fetch(False, ALL, ("FLAGS", "MODSEQ"), 0),
        ),
        (
            b"UID FETCH 1:* (UID) (VANISHED CHANGEDSINCE 12345)",
            Fetch(True, ALL, ("UID", "MODSEQ"), 12345, vanished=True),
        ),
        (b"FETCH 1 (MODSEQ)", Fetch(False, numbers((1, 1)), ("MODSEQ",))),
        (b"FETCH 1 (EMAILID THREADID)", Fetch(False, numbers((1, 1)), ("EMAILID", "THREADID"))),
        # 3.1.3
        (
            b"STORE 7,5,9 (UNCHANGEDSINCE 320162338) +FLAGS.SILENT (\\Deleted)",
            Store(
                False, numbers((7, 7), (5, 5), (9, 9)), "+", ("\\Deleted",), True, 320162338
            ),
        ),
    ],
)  # fmt: skip
def test_condstore_and_qresync(line: bytes, event: Event) -> None:
    """RFC 7162."""
    assert command(line, enabled=["QRESYNC"]) == event


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'ID "x"', "Expected a list or NIL"),
        (b'ID ("a")', "Invalid arguments"),
        (b"ID", "Missing arguments"),
        (b'ID ("' + b"n" * 31 + b'" NIL)', "ID field too long"),
        (b'ID ("n" "' + b"v" * 1025 + b'")', "ID field too long"),
        (
            b"ID (" + b" ".join(b'"%d" NIL' % number for number in range(31)) + b")",
            "Too many ID fields",
        ),
        (b"ENABLE", "Missing arguments"),
        (b"IDLE 1", "Too many arguments"),
        (b"SELECT x (FOO)", "Unknown parameter FOO"),
        (b"SELECT x (QRESYNC)", "Invalid arguments"),
        (b"SELECT x (QRESYNC ())", "Invalid QRESYNC parameters"),
        (b"SELECT x (QRESYNC (0 1))", "Invalid QRESYNC parameters"),
        (b"SELECT x (QRESYNC (1 0))", "Invalid QRESYNC parameters"),
        (b"SELECT x (QRESYNC (1 9223372036854775808))", "Number too large"),
        (b"SELECT x (QRESYNC (1 2 1:*))", "Expected a set of numbers without * and $"),
        (b"SELECT x (QRESYNC (1 2 $))", "Expected a set of numbers without * and $"),
        (b"SELECT x (QRESYNC (1 2 1 (1)))", "Invalid arguments"),
        (b"SELECT x (QRESYNC (1 2 1 (1 1) 5))", "Invalid QRESYNC parameters"),
        (b"UID FETCH 1 (FLAGS) (VANISHED)", "Too many arguments"),
        (b"UID FETCH 1 (FLAGS) (FOO)", "Too many arguments"),
        (b"UID FETCH 1 (FLAGS) (SINCE 5)", "Unknown FETCH modifier SINCE"),
        (b"FETCH 1 (FLAGS) (CHANGEDSINCE 1 VANISHED)", "VANISHED needs UID FETCH"),
        (b"FETCH 1 (FLAGS) (CHANGEDSINCE 9223372036854775808)", "Number too large"),
        (b"STORE 1 (UNCHANGEDSINCE) FLAGS ()", "Invalid arguments"),
        (b"STORE 1 () FLAGS ()", "Empty list of modifiers"),
        (b"STORE 1 (FOO 1) FLAGS ()", "Unknown STORE modifier"),
        (b"STORE $,1 FLAGS ()", "Invalid arguments"),
        (b"STORE 1:$ FLAGS ()", "Invalid messageset"),
        (b"SEARCH RETURN (FOO) ALL", "Unknown return option FOO"),
        (b"SEARCH RETURN (ALL)", "Missing arguments"),
        (b"SEARCH YOUNGER 0", "Invalid search interval parameter"),
        (b'SEARCH MODSEQ "/foo" all 1', "Invalid entry name"),
        (b'SEARCH MODSEQ "/flags/x" foo 1', "Invalid entry type"),
        (b'SEARCH MODSEQ "/flags/x y" all 1', "Too many arguments"),
        (b"SEARCH EMAILID", "Missing arguments"),
        (b'LIST (FOO) "" *', "Unknown select option FOO"),
        (b'LIST (RECURSIVEMATCH) "" *', "RECURSIVEMATCH must not be the only selection option"),
        (b'LIST (RECURSIVEMATCH REMOTE) "" *', None),
        (b'LIST "" ()', "Empty list of patterns"),
        (b'LIST "" * RETURN (FOO)', "Unknown return option FOO"),
        (b'LIST "" * RETURN (STATUS)', "Invalid arguments"),
        (b'LIST "" * RETURN (STATUS ())', "Empty status list"),
        (b'LIST "" * FOO', "Unknown argument"),
        (b"CREATE x (USE (\\Foo))", "Special use is not supported"),
        (b"CREATE x (FOO)", "Unknown parameter"),
        (b"GETQUOTA", "Missing arguments"),
        (b'GETQUOTA "\xff"', "Invalid quota root"),
        (b"SETQUOTA x (STORAGE)", "Invalid arguments"),
        (b"SETQUOTA x (STORAGE -1)", "Expected a number"),
    ],
)
def test_what_is_refused(line: bytes, text: str | None) -> None:
    found = refused(line, enabled=["QRESYNC"])
    assert found == (text or "RECURSIVEMATCH must not be the only selection option")


@pytest.mark.parametrize(
    "line",
    [
        b"SELECT x (QRESYNC (1 2))",
        b"UID FETCH 1 (FLAGS) (CHANGEDSINCE 1 VANISHED)",
    ],
)
def test_qresync_needs_enable(line: bytes) -> None:
    """RFC 7162 3.2.3."""
    assert refused(line, enabled=["CONDSTORE"]) == "QRESYNC not enabled"


@pytest.mark.parametrize("text", [b"a", b"AA=", b"AA==x"])
def test_initial_response_that_is_no_base64(text: bytes) -> None:
    assert refused(b"AUTHENTICATE PLAIN " + text, BEFORE) == "Invalid base64 data"


def test_unknown_mechanism() -> None:
    assert refused(b"AUTHENTICATE FOO", BEFORE) == "Unsupported authentication mechanism"
