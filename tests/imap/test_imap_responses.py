"""What the IMAP engine's responses look like, RFC by RFC.

Rules of this file: values in, octets out; whether any value can break a response is in
test_imap_responses_properties.py.
"""

from __future__ import annotations

import pytest

from fastlisten.handlers.imap.engine import mailbox_responses as about_mailboxes
from fastlisten.handlers.imap.engine import message_responses as about_messages
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.status_responses import challenge, status
from fastlisten.handlers.imap.engine.strings import write_flags, write_mailbox


@pytest.mark.parametrize(
    ("said", "octets"),
    [
        (status(b"A1", b"OK", "LOGIN completed"), b"A1 OK LOGIN completed\r\n"),
        (status(b"*", b"BYE", "Bye"), b"* BYE Bye\r\n"),
        (
            status(b"A1", b"NO", "No such mailbox", codes.TRYCREATE),
            b"A1 NO [TRYCREATE] No such mailbox\r\n",
        ),
        (status(b"A1", b"OK", ""), b"A1 OK - \r\n"),
        (status(b"A1", b"OK", "", codes.CLOSED), b"A1 OK [CLOSED] -\r\n"),
        (status(b"A1", b"OK", "[ALERT] x"), b"A1 OK - [ALERT] x\r\n"),
        (status(b"A1", b"NO", "x\r\n* BYE"), b"A1 NO x??* BYE\r\n"),
        (status(b"A1", b"NO", "ä\r\n* BYE\0"), b"A1 NO ???* BYE?\r\n"),
        (challenge(b""), b"+ \r\n"),
        (challenge(b"x" * 100), b"+ " + b"eHh4" * 33 + b"eA==\r\n"),
    ],
)
def test_status_responses(said: bytes, octets: bytes) -> None:
    """RFC 3501 7.1, 7.5."""
    assert said == octets


@pytest.mark.parametrize(
    ("code", "octets"),
    [
        (codes.capability(["IMAP4rev1", "AUTH=PLAIN"]), b"CAPABILITY IMAP4rev1 AUTH=PLAIN"),
        (
            codes.permanent_flags(["\\Seen", "$Junk", "a b"], new=True),
            b"PERMANENTFLAGS (\\Seen $Junk \\*)",
        ),
        (codes.permanent_flags([], new=True), b"PERMANENTFLAGS (\\*)"),
        (codes.permanent_flags([], new=False), b"PERMANENTFLAGS ()"),
        (codes.uid_next(4392), b"UIDNEXT 4392"),
        (codes.uid_validity(3857529045), b"UIDVALIDITY 3857529045"),
        (codes.unseen(12), b"UNSEEN 12"),
        (codes.highest_modseq(715194045007), b"HIGHESTMODSEQ 715194045007"),
        (codes.modified([7, 9, 10, 11]), b"MODIFIED 7,9:11"),
        (codes.append_uid(38505, [3955]), b"APPENDUID 38505 3955"),
        (codes.append_uid(38505, [3955, 3956]), b"APPENDUID 38505 3955:3956"),
        (
            codes.copy_uid(38505, [304, 319, 320], [3956, 3957, 3958]),
            b"COPYUID 38505 304,319:320 3956:3958",
        ),
        (codes.mailbox_id("F2212ea87-6097-4256-9d51"), b"MAILBOXID (F2212ea87-6097-4256-9d51)"),
    ],
)
def test_response_codes(code: bytes, octets: bytes) -> None:
    assert code == octets


@pytest.mark.parametrize(
    ("response", "octets"),
    [
        (about_mailboxes.capability_response(["IMAP4rev1", "IDLE"]), b"CAPABILITY IMAP4rev1 IDLE"),
        (about_mailboxes.enabled_response(["CONDSTORE"]), b"ENABLED CONDSTORE"),
        (about_mailboxes.enabled_response([]), b"ENABLED"),
        (about_mailboxes.id_response({}), b"ID NIL"),
        (
            about_mailboxes.id_response({"name": "fastlisten", "os": None}),
            b'ID ("name" "fastlisten" "os" NIL)',
        ),
        (about_mailboxes.NAMESPACE[2:-2], b'NAMESPACE (("" "/")) NIL NIL'),
        (about_mailboxes.list_response("", ["\\Noselect"]), b'LIST (\\Noselect) "/" ""'),
        (
            about_mailboxes.list_response("a b", ["\\HasNoChildren", "\\Sent"]),
            b'LIST (\\HasNoChildren \\Sent) "/" "a b"',
        ),
        (about_mailboxes.list_response("Entwürfe", []), b'LIST () "/" Entw&APw-rfe'),
        (
            about_mailboxes.list_response("Foo", [], subscribed_children=True),
            b'LIST () "/" Foo ("CHILDINFO" ("SUBSCRIBED"))',
        ),
        (about_mailboxes.lsub_response("x", ["\\Noselect"]), b'LSUB (\\Noselect) "/" x'),
        (
            about_mailboxes.status_response(
                "blurdybloop", {"MESSAGES": 231, "MAILBOXID": "F1", "APPENDLIMIT": None}
            ),
            b"STATUS blurdybloop (MESSAGES 231 MAILBOXID (F1) APPENDLIMIT NIL)",
        ),
        (
            about_mailboxes.quota_response("", [("STORAGE", 10, 512), ("MESSAGE", 1, 2)]),
            b'QUOTA "" (STORAGE 10 512 MESSAGE 1 2)',
        ),
        (about_mailboxes.quota_root_response("INBOX", [""]), b'QUOTAROOT INBOX ""'),
        (about_mailboxes.quota_root_response("x", []), b"QUOTAROOT x"),
    ],
)
def test_responses_about_mailboxes(response: bytes, octets: bytes) -> None:
    assert response.removeprefix(b"* ").removesuffix(b"\r\n") == octets


@pytest.mark.parametrize(
    ("response", "octets"),
    [
        (about_messages.exists_response(23), b"23 EXISTS"),
        (about_messages.recent_response(5), b"5 RECENT"),
        (about_messages.flags_response(b"\\Seen x"), b"FLAGS (\\Seen x)"),
        (about_messages.vanished_response([41, 43, 44, 45]), b"VANISHED 41,43:45"),
        (about_messages.vanished_response([300, 301], earlier=True), b"VANISHED (EARLIER) 300:301"),
        (about_messages.vanished_response([]), b""),
        (about_messages.search_response([]), b"SEARCH"),
        (about_messages.search_response([2, 84, 882]), b"SEARCH 2 84 882"),
        (about_messages.search_response([2, 5], 917162500), b"SEARCH 2 5 (MODSEQ 917162500)"),
        (about_messages.search_response([], 917162500), b"SEARCH"),
    ],
)
def test_responses_about_messages(response: bytes, octets: bytes) -> None:
    assert response.removeprefix(b"* ").removesuffix(b"\r\n") == octets


def test_several_expunges() -> None:
    assert about_messages.expunge_responses([3, 3, 5]) == (
        b"* 3 EXPUNGE\r\n* 3 EXPUNGE\r\n* 5 EXPUNGE\r\n"
    )
    assert about_messages.expunge_responses([]) == b""


@pytest.mark.parametrize(
    ("returns", "found", "octets"),
    [
        ({"MIN", "COUNT"}, [2, 3, 5], b"UID MIN 2 COUNT 3 MODSEQ 9"),
        ({"ALL"}, [2, 3, 5], b"UID ALL 2:3,5 MODSEQ 9"),
        ({"MIN", "MAX", "ALL", "COUNT"}, [7], b"UID MIN 7 MAX 7 ALL 7 COUNT 1 MODSEQ 9"),
        ({"MIN", "ALL", "COUNT"}, [], b"UID COUNT 0"),
        ({"ALL"}, [], b"UID"),
        ({"SAVE", "COUNT"}, [1], b"UID COUNT 1 MODSEQ 9"),
    ],
)
def test_extended_search(returns: set[str], found: list[int], octets: bytes) -> None:
    """RFC 4731 3.1: what found nothing is left out."""
    said = about_messages.esearch_response(b"A1", found, frozenset(returns), uid=True, modseq=9)
    assert said == b'* ESEARCH (TAG "A1") %b\r\n' % octets


def test_result_that_is_only_saved() -> None:
    """RFC 5182 2.1."""
    said = about_messages.esearch_response(b"A1", [1], frozenset({"SAVE"}), uid=False)
    assert said == b""


def test_fetch() -> None:
    items = [
        about_messages.item_uid(4827313),
        about_messages.item_flags(b"\\Seen $Junk"),
        about_messages.item_internal_date(837596665),
        about_messages.item_size(4286),
        about_messages.item_modseq(624140003),
        about_messages.item_email_id("M6d99"),
        about_messages.item_thread_id("T64b4"),
        about_messages.item_thread_id(None),
        about_messages.item_section(b"BODY[1]<0>", b"a\r\n"),
        about_messages.item_section(b"BODY[2]", None),
        about_messages.item_literal_head(b"BODY[]", 3) + b"abc",
    ]
    assert about_messages.fetch_response(12, items) == (
        b"* 12 FETCH (UID 4827313 FLAGS (\\Seen $Junk)"
        b' INTERNALDATE "17-Jul-1996 09:44:25 +0000" RFC822.SIZE 4286 MODSEQ (624140003)'
        b" EMAILID (M6d99) THREADID (T64b4) THREADID NIL BODY[1]<0> {3}\r\na\r\n"
        b" BODY[2] NIL BODY[] {3}\r\nabc)\r\n"
    )


def test_fetch_of_flags_of_many_messages() -> None:
    seen = write_flags(["\\Seen"])
    assert about_messages.fetch_flags_responses([(1, seen), (2, b"")]) == (
        b"* 1 FETCH (FLAGS (\\Seen))\r\n* 2 FETCH (FLAGS ())\r\n"
    )
    assert about_messages.fetch_uid_flags_responses([(1, 10, seen)]) == (
        b"* 1 FETCH (UID 10 FLAGS (\\Seen))\r\n"
    )
    assert about_messages.fetch_flags_modseq_responses([(1, seen, 7)]) == (
        b"* 1 FETCH (FLAGS (\\Seen) MODSEQ (7))\r\n"
    )
    assert about_messages.fetch_uid_flags_modseq_responses([(1, 10, seen, 7)]) == (
        b"* 1 FETCH (UID 10 FLAGS (\\Seen) MODSEQ (7))\r\n"
    )


@pytest.mark.parametrize("seconds", [-62135596800, 0, 253402300799])
def test_dates_have_two_digits_and_four(seconds: int) -> None:
    assert len(about_messages.item_internal_date(seconds)) == len(
        b'INTERNALDATE " 1-Jan-1970 00:00:00 +0000"'
    )


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("INBOX", b"INBOX"),
        ("a/b", b"a/b"),
        ("a b", b'"a b"'),
        ('a"b\\', b'"a\\"b\\\\"'),
        ("nil", b'"nil"'),
        ("a]", b'"a]"'),
        ("x*", b'"x*"'),
        ("&", b"&-"),
        ("台北/日本語", b"&U,BTFw-/&ZeVnLIqe-"),
        ("a\r\n* BYE", b'"a&AA0ACg-* BYE"'),
        ("", b'""'),
    ],
)
def test_names_of_mailboxes(name: str, octets: bytes) -> None:
    assert write_mailbox(name) == octets
