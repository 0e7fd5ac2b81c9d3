"""Command lines in the forms that mail clients are known to write.

Rules of this file: by client; whole lines with tags, in forms that differ from those of the RFCs'
examples. They are not recordings: what the programs themselves do is tested with the programs.
"""

from __future__ import annotations

import pytest
from support.imap_driver import ImapDriver

from fastlisten.handlers.imap.engine.commands import Refusal
from fastlisten.handlers.imap.engine.session_states import State

CLIENTS: dict[str, tuple[bytes, ...]] = {
    "Thunderbird": (
        b'3 ID ("name" "Thunderbird" "version" "115.4.1")',
        b'4 list (subscribed) "" "*" return (special-use)',
        b"5 namespace",
        b'6 select "INBOX" (CONDSTORE)',
        b'7 getquotaroot "INBOX"',
        b"8 UID fetch 1:* (FLAGS)",
        b"9 UID fetch 1:12 (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject"
        b" Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type"
        b" Reply-To)])",
        b"10 UID fetch 1 (UID RFC822.SIZE BODY.PEEK[])",
        b"11 UID fetch 1:* (FLAGS) (CHANGEDSINCE 20 VANISHED)",
        b"12 uid store 3 +FLAGS (\\Seen \\Deleted $label1)",
        b'13 uid copy 3 "Trash"',
        b'14 uid move 3:4 "Sent Items"',
        b"15 UID fetch 3 (BODY.PEEK[HEADER] BODY.PEEK[1.MIME])",
        b'16 append "Drafts" (\\Seen) {3+}\r\nabc',
        b'17 UID SEARCH UNSEEN SUBJECT "x"',
        b'18 status "Archives/2024" (UIDNEXT MESSAGES UNSEEN RECENT)',
        b"19 close",
    ),
    "Apple Mail": (
        b'1.5 ID ("name" "Mac OS X Mail" "version" "16.0 (3731.600.7)" "os" "Mac OS X" "vendor"'
        b' "Apple Inc.")',
        b"2.6 ENABLE CONDSTORE QRESYNC",
        b'3.7 LIST "" "*" RETURN (SPECIAL-USE CHILDREN)',
        b'4.8 CREATE "Sent Messages"',
        b'5.9 STATUS "Sent Messages" (MESSAGES UIDNEXT UIDVALIDITY)',
        b"6.10 SELECT INBOX (QRESYNC (1700000000 12 1:4 (1,4 1,4)))",
        b"7.11 UID FETCH 1:* (FLAGS UID) (CHANGEDSINCE 12)",
        b"8.12 FETCH 1:2 (INTERNALDATE UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (date subject"
        b" from to cc message-id in-reply-to references content-type x-priority list-id)])",
        b"9.13 UID FETCH 7 (BODYSTRUCTURE BODY.PEEK[HEADER])",
        b"10.14 UID FETCH 7 BODY.PEEK[2]<0.8192>",
        b"11.15 UID STORE 7 +FLAGS.SILENT (\\Seen $Forwarded)",
        b"12.16 UID EXPUNGE 7",
        b'13.17 APPEND "Sent Messages" (\\Seen) "01-Feb-2024 10:00:00 +0100" {3+}\r\nabc',
    ),
    "Outlook": (
        b'ft23 ID ("name" "Microsoft.Outlook")',
        b'1owq LIST "" *',
        b'bi2m LSUB "" *',
        b'z9dq SELECT "INBOX"',
        b"x2mi UID FETCH 1:* (UID FLAGS)",
        b"88tz UID FETCH 5 (UID FLAGS BODY.PEEK[])",
        b"8ggx STORE 1 +FLAGS (\\Seen $MDNSent)",
        b"h4ba UID STORE 5 -FLAGS (\\Flagged)",
        b'p8oa STATUS "INBOX" (UNSEEN)',
    ),
    "K-9 Mail": (
        b"1 NAMESPACE",
        b'2 LIST (SPECIAL-USE) "" "*" RETURN (SUBSCRIBED)',
        b"3 UID SEARCH 1:* NOT DELETED",
        b"4 UID SEARCH 1:* SINCE 01-Jan-2024 NOT DELETED",
        b"5 UID FETCH 1:25 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (date"
        b" subject from content-type to cc list-unsubscribe reply-to message-id)])",
        b"6 UID STORE 1,3 +FLAGS.SILENT (\\Seen)",
        b"7 UID FETCH 3 (UID BODY.PEEK[TEXT]<0.32768>)",
    ),
    "mutt": (
        b'a0002 STATUS "INBOX" (MESSAGES RECENT UNSEEN UIDNEXT UIDVALIDITY)',
        b'a0003 EXAMINE "INBOX"',
        b"a0004 FETCH 1:5,9 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (DATE FROM"
        b" SENDER SUBJECT TO CC MESSAGE-ID REFERENCES CONTENT-TYPE CONTENT-DESCRIPTION"
        b" IN-REPLY-TO REPLY-TO LINES LIST-POST X-LABEL)])",
        b"a0005 UID FETCH 3 RFC822",
        b"a0006 UID STORE 3 +FLAGS.SILENT (old)",
        b'a0007 UNSUBSCRIBE "a b"',
        b'a0008 UID SEARCH (BODY "x" NOT (FROM "y"))',
    ),
    "mbsync": (
        b'4 SELECT "Drafts"',
        b"5 UID FETCH 1:1000000000 (UID FLAGS RFC822.SIZE)",
        b"6 UID FETCH 3 (BODY.PEEK[])",
        b'7 APPEND "Drafts" (\\Draft \\Seen) {3+}\r\nabc',
        b"8 UID STORE 3:4 +FLAGS.SILENT (\\Deleted)",
        b"9 UID EXPUNGE 3:4",
        b"10 UID FETCH 5:* (UID BODY.PEEK[HEADER.FIELDS (X-TUID)])",
    ),
    "offlineimap": (
        b'HKBP1 SELECT "INBOX"',
        b"HKBP2 FETCH 1:* (FLAGS UID INTERNALDATE)",
        b"HKBP3 UID FETCH 5 (BODY.PEEK[])",
        b"HKBP4 UID STORE 5 +FLAGS (\\Seen)",
        b'HKBP5 UID SEARCH HEADER X-OfflineIMAP "12-34"',
        b"HKBP6 UID SEARCH (SINCE 1-Jan-2024)",
    ),
    "JavaMail": (
        b'A3 LIST "" ""',
        b'A4 LIST "" %',
        b"A5 SEARCH NOT (DELETED) SEEN ALL",
        b"A6 FETCH 1 (BODYSTRUCTURE)",
        b"A7 FETCH 1 (BODY[1.2]<0.16384>)",
        b"A8 FETCH 1:3 (ENVELOPE INTERNALDATE RFC822.SIZE FLAGS)",
        b"A9 STORE 1 +FLAGS (\\Seen)",
        b'A10 SEARCH OR (FROM "x") (SUBJECT "y" SENTON 1-Jan-2024) ALL',
    ),
    "imapflow": (
        b'5 ID ("name" "imapflow" "version" "1.0.150" "vendor" "Postal Systems")',
        b"6 ENABLE CONDSTORE",
        b'7 LIST "" "*" RETURN (SUBSCRIBED SPECIAL-USE STATUS (UIDNEXT))',
        b"8 UID FETCH 1:* (UID FLAGS MODSEQ EMAILID THREADID BODYSTRUCTURE ENVELOPE INTERNALDATE)",
        b"9 UID SEARCH RETURN (MIN MAX COUNT) UNSEEN",
        b"A UID FETCH 4 (UID BODY.PEEK[1]<0.65536>)",
        b'B UID SEARCH EMAILID M1 OR (TO "a" CC "a") (BCC "a")',
    ),
    "curl": (
        b'A002 LIST "" *',
        b"A003 SELECT INBOX",
        b"A004 FETCH 1 BODY[TEXT]",
        b"A005 UID FETCH 5 BODY[]",
        b"A006 SEARCH NEW",
        b"A007 APPEND INBOX (\\Seen) {3+}\r\nabc",
        b"A008 EXAMINE INBOX",
        b"A009 STORE 1 +Flags \\Deleted",
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_lines_of_clients_are_taken(client: str) -> None:
    for line in CLIENTS[client]:
        driver = ImapDriver(State.SELECTED)
        driver.engine.enable(frozenset({"QRESYNC"}))
        said = driver.send(line + b"\r\n")
        assert not any(isinstance(event, Refusal) for event in driver.events), (line, said)
        assert said.endswith(line.split(b" ")[0] + b" OK Done\r\n")


@pytest.mark.parametrize(
    "line", [b'XLIST "" "*"', b'MYRIGHTS "INBOX"', b"X-GM-RAW x", b"COMPRESS DEFLATE"]
)
def test_commands_of_extensions_that_there_are_not(line: bytes) -> None:
    """Clients try some of them without looking at CAPABILITY; the answer must be a tagged BAD."""
    said = ImapDriver().send(b"a " + line + b"\r\n")
    assert said == b"a BAD Error in IMAP command: Unknown command\r\n"
