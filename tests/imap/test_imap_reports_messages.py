"""Faults that were reported of other servers, in FETCH, SEARCH and STORE: not here.

Rules of this file: as in test_imap_reports.py.
"""

# ruff: noqa: E501 (a pattern in pieces cannot be read)

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.imap_reports import PLAIN, Report, carry_out, named
from support.imap_server import ImapServer, serve_imap


def header(*lines: str) -> bytes:
    """Return a message of these header fields, and one line of a body."""
    return "\r\n".join((*lines, "", "body", "")).encode()


def mixed(*parts: str, kind: str = "multipart/mixed") -> bytes:
    """Return a multipart message."""
    head = f"Subject: parts\r\nMIME-Version: 1.0\r\nContent-Type: {kind}; boundary=xx\r\n\r\n"
    return (head + "".join(f"--xx\r\n{part}\r\n" for part in parts) + "--xx--\r\n").encode()


TEXT = "Content-Type: text/plain; charset=utf-8\r\n\r\ntext"
INNER = 'Subject: inner\r\nFrom: "A B" <a@b>\r\n\r\ninner text'
FORWARDED = mixed(
    TEXT, f"Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n{INNER}"
)
AUTOCRYPT = "Autocrypt: addr=a@b; keydata=\r\n" + "\r\n".join(" " + "QUJD" * 18 for _ in range(72))
APPLE = "date subject from to cc message-id in-reply-to references content-type x-priority x-uniform-type-identifier"

REPORTS = (
    Report("go-imap 657", "RFC822.PEEK, which Outlook asks for, was not known",
           [("UID fetch 1 (UID RFC822.SIZE RFC822.peek)", r"\* 1 FETCH \(UID 1 RFC822.SIZE \d+ RFC822"),
            ("SEARCH SEEN", r"SEARCH\r")]),
    Report("defects 36", "FETCH RFC822 was answered without RFC822",
           [("FETCH 1 RFC822", r"\* 1 FETCH \(.*RFC822 \{\d+\}\r\nFrom: ")]),
    Report("greenmail 2", "a section without parentheses around it was a syntax error",
           [("UID FETCH 1 BODY[HEADER]", r"BODY\[HEADER\] \{\d+\}\r\nFrom: ")]),
    Report("greenmail 126", "what Apple Mail fetches was a syntax error",
           [(f"FETCH 1:3 (INTERNALDATE UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS ({APPLE})])", r"\* 3 FETCH.*OK ")]),
    Report("tutabridge 15", "HEADER.FIELDS was not echoed with the fields asked for, and Apple Mail showed nothing",
           [(f"UID FETCH 1 BODY.PEEK[HEADER.FIELDS ({APPLE})]", rf"BODY\[HEADER.FIELDS \((?i:{APPLE})\)\] ")]),
    Report("mailcore2 826", "two lists of fields in one FETCH failed",
           [("FETCH 1 (UID BODY.PEEK[HEADER.FIELDS (Date Subject)] RFC822.SIZE BODY.PEEK[HEADER.FIELDS (List-Id)])",
             r"BODY\[HEADER.FIELDS \((?i:Date Subject)\)\] .*BODY\[HEADER.FIELDS \((?i:List-Id)\)\] (\{2\}\r\n\r\n|\"\")")]),
    Report("greenmail 187", "a partial header came whole",
           [("FETCH 1 BODY.PEEK[HEADER]<0.5>", r'BODY\[HEADER\]<0> (\{5\}\r\nFrom:|"From:")\)')]),
    Report("hmailserver 334", "the offset of a partial FETCH was echoed and not applied",
           [("FETCH 1 BODY.PEEK[]<6.3>", r'BODY\[\]<6> (\{3\}\r\nBob|"Bob")\)')]),
    Report("hmailserver 475", "a chunk beyond the end, which iOS asks for, was not empty",
           [("FETCH 1 BODY.PEEK[]<393216.393216>", r'BODY\[\]<393216> (""|\{0\}\r\n)\)'),
            ("FETCH 1 BODY.PEEK[TEXT]<5.100>", r'BODY\[TEXT\]<5> (\{6\}\r\ntext\r\n)\)')]),
    Report("cyrus 659", "several partial sections in one FETCH were mixed up",
           [("FETCH 1 (BODY.PEEK[]<0.4> BODY.PEEK[]<6.3>)", r'BODY\[\]<0> \S*\s*"?From"? BODY\[\]<6> \S*\s*"?Bob"?\)')]),
    Report("go-imap 58", "the origin of a partial section was written with its length",
           [("FETCH 1 BODY.PEEK[]<0.8>", r"BODY\[\]<0> ")]),
    Report("hmailserver 459", "a part that is a message was mixed up with the whole",
           [("FETCH 1 BODY.PEEK[2]", r"BODY\[2\] \{\d+\}\r\nSubject: inner\r\nFrom: [^\r]*\r\n\r\ninner text\)"),
            ("FETCH 1 BODY.PEEK[2.MIME]", r"\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n\)"),
            ("FETCH 1 BODY.PEEK[2.HEADER]", r"\r\nSubject: inner\r\nFrom: [^\r]*\r\n\r\n\)"),
            ("FETCH 1 BODY.PEEK[2.TEXT]", r"inner text\"?\)"), ("FETCH 1 BODY.PEEK[2.1]", r"inner text\"?\)")], [FORWARDED]),
    Report("proton-bridge 204", "UID was not the first in the answer, and Thunderbird showed another message",
           [("UID FETCH 2 (UID RFC822.SIZE BODY[])", r"\A\* 2 FETCH \(UID 2 RFC822.SIZE \d+ .*BODY\[\] \{")]),
    Report("mcp-email-server 112", "UID came behind the literal, where clients do not look for it",
           [("UID FETCH 2 (BODY.PEEK[HEADER])", r"\A\* 2 FETCH \(UID 2 BODY\[HEADER\] \{")]),
    Report("MailKit 954", "the number of a literal was wrong for lines that end with LF",
           [("FETCH 1 (RFC822.SIZE BODY.PEEK[])", r"RFC822.SIZE 23 BODY\[\] \{23\}\r\nSubject: x\r\n\r\na\r\nb\r\nc\r\n\)")],
           [b"Subject: x\n\na\nb\nc\n"]),
    Report("proton-bridge 393", "a field without a space after its colon was refused",
           [("FETCH 1 BODY.PEEK[HEADER.FIELDS (List-Post)]", r"List-Post:<a@b.org>\r\n")], [header("List-Post:<a@b.org>")]),
    Report("proton-bridge 138", "a field of 72 lines was cut off",
           [("FETCH 1 BODY.PEEK[HEADER.FIELDS (Autocrypt)]", rf"\{{{len(AUTOCRYPT) + 4}\}}\r\nAutocrypt: ")], [header(AUTOCRYPT, "Subject: x")]),
    Report("proton-bridge 321", "fields were rearranged",
           [("FETCH 1 BODY.PEEK[HEADER]", r"\r\nB: 1\r\nA: 2\r\nB: 3\r\n\r\n\)")], [header("B: 1", "A: 2", "B: 3")]),
    Report("swift-nio-imap 735", "the day of INTERNALDATE had one octet",
           [("FETCH 1 INTERNALDATE", r'INTERNALDATE "[ 0-3][0-9]-[A-Z][a-z]{2}-\d{4} ')]),
    Report("go-imap 659", "quotes in a string were not escaped",
           [("FETCH 1 BODYSTRUCTURE", r'\("name" "a \\"b\\".pdf"\) NIL "\\"\\"" "(?i:BASE64)"')],
           [mixed(TEXT, 'Content-Type: application/pdf; name="a \\"b\\".pdf"\r\nContent-Description: ""\r\nContent-Transfer-Encoding: base64\r\n\r\nQQ==')]),
    Report("MailKit 371", "a multipart without parts was a list that is not in the grammar",
           [("FETCH 1 BODYSTRUCTURE", r'BODYSTRUCTURE \(\("text"|\(\("TEXT"|\("text"|\("TEXT"')],
           [b"MIME-Version: 1.0\r\nContent-Type: multipart/related\r\n\r\n"]),
    Report("javamail 278", "a disposition that is a text was written as a string",
           [("FETCH 1 BODYSTRUCTURE", r'!"S/MIME Encrypted Message" NIL')],
           [mixed(TEXT).replace(b"MIME-Version", b"Content-Disposition: S/MIME Encrypted Message\r\nMIME-Version")]),
    Report("libetpan 217", "a part without an encoding had NIL for it",
           [("FETCH 1 BODYSTRUCTURE", r'"(?:7bit|7BIT)" 4 ')], [mixed(TEXT)]),
    Report("himalaya 617", "undisclosed recipients were no group, and encodings NIL",
           [("FETCH 1 ENVELOPE", r'\(\(NIL NIL "undisclosed-recipients" NIL\)\(NIL NIL NIL NIL\)\)')], [header("To: undisclosed-recipients:;")]),
    Report("cyrus 996", "several groups in one field were mixed up",
           [("FETCH 1 ENVELOPE", r'\(\(NIL NIL "A" NIL\)\(NIL NIL "a" "x"\)\(NIL NIL NIL NIL\)\(NIL NIL "B" NIL\)\(NIL NIL "b" "y"\)\(NIL NIL NIL NIL\)\)')],
           [header("To: A: a@x;, B: b@y;")]),
    Report("jakarta mail 30", "an address ended with a space",
           [("FETCH 1 ENVELOPE", r"! \)")], [header("To: undisclosed-recipients", "From: x", "Cc: <>")]),
    Report("rust-imap 166", "addresses that are not there were empty lists",
           [("FETCH 1 ENVELOPE", r"!\(\)")], [header("Subject: x")]),
    Report("MailKit 1393", "an empty address was written so that clients failed",
           [("FETCH 1 ENVELOPE", r'\(\("Mail Delivery System" NIL (?:NIL|""|"[^"]*") (?:NIL|""|"[^"]*")\)\)')], [header('From: "Mail Delivery System" <>')]),
    Report("vmime 317", "octets above 127 were in a quoted string",
           [("FETCH 1 ENVELOPE", r"ENVELOPE \(NIL \{10\}\r\nF\S+ et bil NIL ")], [header("Subject: Få et bil")]),
    Report("MailKit 124", "a parameter without a value was written as NIL",
           [("FETCH 1 BODYSTRUCTURE", r'!"(?i:charset|name)" NIL')], [mixed("Content-Type: text/plain; charset; name=\r\n\r\nx")]),
    Report("MailKit 943", "ENVELOPE was in parentheses of its own",
           [("FETCH 1 (UID ENVELOPE BODYSTRUCTURE)", r"UID 1 ENVELOPE \(NIL NIL .*\) BODYSTRUCTURE \(\"")], [b"\r\n"]),
    Report("hoodiecrow 18", "UID FETCH 1:* (FLAGS) was answered without UID, and Thunderbird showed nothing",
           [("UID fetch 1:* (FLAGS)", r"\* 3 FETCH \(UID 3 FLAGS \(|\* 3 FETCH \(FLAGS \([^)]*\) UID 3")]),
    Report("proton-bridge 185", "SEARCH OR, which Outlook for Mac sends, was not known",
           [("UID SEARCH OR SUBJECT hello FROM nobody", r"SEARCH 1 2 3\r"), ("SEARCH OR (SEEN) (OR UID 2 UID 3)", r"SEARCH 2 3\r")]),
    Report("DirectoryTree 186", "Message-ID was found only with its brackets",
           [("SEARCH HEADER Message-ID 1@example.com", r"SEARCH 1 2 3\r"), ('SEARCH HEADER Message-ID "<1@example.com>"', r"SEARCH 1 2 3\r")]),
    Report("MailKit 359", "Message-IDs that begin like Outlook's were not found",
           [('SEARCH HEADER Message-ID "!&!AAAAYAAA==@d"', r"SEARCH 1\r")], [header("Message-ID: <!&!AAAAYAAA==@d>")]),
    Report("imap_tools 170", "Message-ID was not searched for a part of it",
           [("SEARCH HEADER message-id example", r"SEARCH 1 2 3\r")]),
    Report("node-imap 770", "an empty text found messages that do not have the field",
           [('UID SEARCH HEADER "LIST-UNSUBSCRIBE" ""', r"SEARCH 2\r")], [PLAIN, header("List-Unsubscribe: <mailto:x>")]),
    Report("imapflow 77", "fields that clients make up were not searched",
           [('SEARCH HEADER "X-Save-Sent" "1"', r"SEARCH 1\r")], [header("X-Save-Sent: 1")]),
    Report("S22.Imap 52", "SEARCH HEADER with one argument was taken, or ended the session",
           [('UID SEARCH HEADER "Message-ID \\"whatever\\""', r"\ABAD "), ("NOOP", "OK ")]),
    Report("jakarta mail 342", "a Message-ID with braces was not found",
           [('SEARCH HEADER Message-ID "<1.JavaMail.ATG{profileId=8}@x>" ALL', r"SEARCH 1\r")], [header("Message-ID: <1.JavaMail.ATG{profileId=8}@x>")]),
    Report("openpaas 61", "SEARCH by a range left messages out",
           [("SEARCH 1:3", r"SEARCH 1 2 3\r"), ("UID SEARCH 2:* NOT DELETED", r"SEARCH 2 3\r")]),
    Report("cyrus 1720", "UID SEARCH RETURN () was answered by SEARCH",
           [("UID SEARCH RETURN () ALL", r'\A\* ESEARCH \(TAG "[^"]+"\) UID ALL 1:3\r\nOK ')]),
    Report("cyrus 1308", "ESEARCH for MODSEQ did not say the highest one",
           [("SEARCH RETURN (MIN MAX COUNT) MODSEQ 1", r"ESEARCH .* MIN 1 MAX 3 COUNT 3 MODSEQ \d+\r")]),
    Report("james 967", "the MODSEQ of a search was that of its first range",
           [("STORE 3 +FLAGS.SILENT (\\Flagged)", "OK "), ("FETCH 3 MODSEQ", r"MODSEQ \("), ("SEARCH OR 1 3 MODSEQ 1", r"SEARCH 1 3 \(MODSEQ \d+\)\r")]),
    Report("thunderbird-android 6245", "a message was not marked as read",
           [("UID STORE 2 +FLAGS.SILENT (\\Seen)", r"\AOK "), ("UID FETCH 2 FLAGS", r"\\Seen")]),
    Report("ImapEngine 20", "a message that had gone ended IDLE's client: a UID that is gone is no error",
           [("UID FETCH 99 (UID FLAGS)", r"\AOK "), ("UID STORE 99 +FLAGS (\\Seen)", r"\AOK "), ("UID SEARCH UID 99", r"SEARCH\r\nOK ")]),
    Report("MailKit 225", "SEARCH was answered by an empty line",
           [("UID SEARCH ALL", r"\A\* SEARCH 1 2 3\r\nOK "), ("UID SEARCH NONE", r"\ABAD ")]),
    Report("MailKit 572", "a message number that is not in use was no error",
           [("FETCH 4 ALL", r"\ABAD "), ("FETCH 3 ALL", r"\* 3 FETCH \(FLAGS")]),
    Report("stalwart 3177", "SELECT said that there are messages, and FETCH gave none",
           [("EXAMINE =BOX", r"\* 3 EXISTS"), ("UID FETCH 1:3 (UID FLAGS INTERNALDATE)", r"\* 1 FETCH.*\* 2 FETCH.*\* 3 FETCH")]),
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImapServer]:
    with serve_imap(tmp_path_factory.mktemp("reports")) as served:
        yield served


@pytest.mark.parametrize("number", range(len(REPORTS)), ids=named(REPORTS))
def test_report(server: ImapServer, number: int) -> None:
    carry_out(server, REPORTS[number], number)
