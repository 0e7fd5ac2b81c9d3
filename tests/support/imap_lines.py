"""Command lines of the examples in the RFCs about IMAP, and lines made of them that are odd.

Rules of this file: lines without tags and CRLF, as clients write them; no verdicts. Examples whose
lines differ in nothing that matters for the grammar are here once. Their literals are written with
a plus, because a line has to be complete here.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["BEFORE_LOGIN", "EXAMPLES", "variants"]

#: Examples of sections about the time before login.
BEFORE_LOGIN = (
    b"CAPABILITY", b"NOOP", b"LOGOUT", b"STARTTLS", b"LOGIN SMITH SESAME", b"LOGIN mrc secret",
    b"LOGIN {11+}\r\nFRED FOOBAR {7+}\r\nfat man", b"LOGIN joe password",
    b"LOGIN {4+}\r\nFRED hunter",
    b"AUTHENTICATE PLAIN", b"AUTHENTICATE PLAIN dGVzdAB0ZXN0AHRlc3Q=", b"AUTHENTICATE LOGIN",
    b'ID ("name" "sodr" "version" "19.34" "vendor" "Pink Floyd Music Limited")', b"ID NIL",
)  # fmt: skip

#: Examples of the others, by RFC.
EXAMPLES: dict[str, tuple[bytes, ...]] = {
    "3501": (
        b"SELECT INBOX", b"EXAMINE blurdybloop", b"CREATE owatagusiam/",
        b"CREATE owatagusiam/blurdybloop", b"DELETE blurdybloop", b"DELETE foo", b"DELETE foo/bar",
        b"DELETE foo.bar", b'LIST "" *', b'LIST "" ""', b'LIST #news.comp.mail.misc ""',
        b'LIST /usr/staff/jones ""', b"LIST ~/Mail/ %", b"RENAME blurdybloop sarasoop",
        b"RENAME INBOX old-mail", b"RENAME zowie bar", b"SUBSCRIBE #news.comp.mail.mime",
        b"UNSUBSCRIBE #news.comp.mail.mime", b'LSUB "#news." "comp.mail.*"',
        b'LSUB "#news." "comp.%"', b"STATUS blurdybloop (UIDNEXT MESSAGES)",
        b"APPEND saved-messages (\\Seen) {5+}\r\nDate:", b"CHECK", b"CLOSE", b"EXPUNGE",
        b'SEARCH FLAGGED SINCE 1-Feb-1994 NOT FROM "Smith"',
        b'SEARCH TEXT "string not in mailbox"', b"SEARCH CHARSET UTF-8 TEXT {6+}\r\nXXXXXX",
        b"FETCH 2:4 (FLAGS BODY[HEADER.FIELDS (DATE FROM)])", b"FETCH 2:4 ALL",
        b"STORE 2:4 +FLAGS (\\Deleted)", b"COPY 2:4 MEETING", b"UID FETCH 443:557 (FLAGS)",
        b"UID FETCH 4827313:4828442 FLAGS", b"FETCH 2 full", b"FETCH 2 body[header]",
        b"STORE 2 +flags \\deleted", b"FETCH 1 BODY[]<0.2048>", b"FETCH 1 BODY[TEXT]",
        b"FETCH 1 (BODY[1] BODY[4.2.HEADER] BODY[4.1.MIME] BODY[4.2.2.1])",
    ),
    "2177 2342 3691": (b"NAMESPACE", b"UNSELECT", b"LIST \"\" \"#shared/%\""),
    "4315": (b"UID EXPUNGE 3000:3002", b"UID COPY 2:4 MEETING", b"COPY 2:4 meeting"),
    "3502": (
        b"APPEND saved-messages (\\Seen) {5+}\r\nDate: (\\Seen)"
        b' " 7-Feb-1994 22:43:04 -0800" {5+}\r\nDate:',
    ),
    "4731": (
        b"SEARCH RETURN (MIN COUNT) FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\"",
        b"SEARCH RETURN () FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\"",
        b"SEARCH RETURN (ALL) FLAGGED", b"UID SEARCH RETURN (COUNT ALL) 1:5",
        b"SEARCH RETURN (MIN MAX) MODSEQ 1",
    ),
    "5182": (
        b"SEARCH RETURN (SAVE) FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\"",
        b"FETCH $ (UID INTERNALDATE FLAGS BODY.PEEK[HEADER])", b"UID SEARCH RETURN (SAVE MIN) ALL",
        b"SEARCH UID $ SMALLER 4096", b"SEARCH RETURN (SAVE) OR $ 1,3000:3021", b"COPY $ Spam",
        b"UID STORE $ +FLAGS.SILENT (\\Deleted)", b"SEARCH CHARSET KOI8-R (OR $ 1) TEXT {1+}\r\nx",
        b"SEARCH RETURN (SAVE COUNT) KEYWORD $Junk",
    ),
    "5032": (b"SEARCH UNSEEN YOUNGER 259200", b"SEARCH NOT OLDER 1"),
    "5161": (b"ENABLE CONDSTORE X-GOOD-IDEA", b"ENABLE CONDSTORE", b"ENABLE QRESYNC"),
    "5258 5819": (
        b'LIST (SUBSCRIBED) "" "*"', b'LIST () "" "%" RETURN (CHILDREN)',
        b'LIST (REMOTE) "" "%" RETURN (CHILDREN)', b'LIST (REMOTE SUBSCRIBED) "" "*"',
        b'LIST "" ("INBOX" "Drafts" "Sent/%")', b'LIST (RECURSIVEMATCH SUBSCRIBED) "" "foo"',
        b'LIST "" % RETURN (STATUS (MESSAGES UNSEEN))', b'LIST "" "%" RETURN (SUBSCRIBED)',
        b'LIST (SUBSCRIBED RECURSIVEMATCH) "" % RETURN (STATUS (MESSAGES))',
    ),
    "6154": (
        b'LIST "" "%" RETURN (SPECIAL-USE)', b'LIST (SPECIAL-USE) "" "*"',
        b"CREATE MySpecial (USE (\\Drafts \\Sent))", b"CREATE Everything (USE (\\All))",
    ),
    "6851": (b"MOVE 1 foo", b"UID MOVE 42:69 foo"),
    "7162": (
        b"STATUS blurdybloop (UIDNEXT MESSAGES HIGHESTMODSEQ)", b"SELECT INBOX (CONDSTORE)",
        b"UID STORE 6,4,8 (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\\Deleted)",
        b"STORE 7,5,9 (UNCHANGEDSINCE 320162338) +FLAGS.SILENT (\\Deleted)",
        b"STORE 12 (UNCHANGEDSINCE 212030000000) +FLAGS.SILENT ($MDNSent)",
        b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE 12345)", b"FETCH 1:* FLAGS (CHANGEDSINCE 0)",
        b"FETCH 1:3 (MODSEQ)", b"FETCH 1:* (BODY.PEEK[HEADER] MODSEQ)",
        b'SEARCH MODSEQ "/flags/\\\\draft" all 620162338',
        b"SEARCH OR NOT MODSEQ 720162338 LARGER 50000",
        b"UID FETCH 300:500 (FLAGS) (CHANGEDSINCE 12345 VANISHED)",
        b"SELECT INBOX (QRESYNC (67890007 20050715194045000 41,43:211,214:541))",
        b"SELECT INBOX (QRESYNC (67890007 90060115194045000 41:211,214:541))",
        b"SELECT INBOX (QRESYNC (67890007 90060115194045000 1:29997 (5000,7500 15000,22500)))",
        b"SEARCH RETURN (ALL) MODSEQ 1234", b"UNSELECT",
    ),
    "8438 8474": (
        b"STATUS frop (MESSAGES UNSEEN SIZE)", b'LIST "" % RETURN (STATUS (MESSAGES UNSEEN SIZE))',
    ),
}  # fmt: skip


def variants(line: bytes) -> Iterator[bytes]:
    """Yield odd forms of a line, among them some that are right."""
    yield line.lower()
    yield line + b" "
    yield line + b" x"
    yield line + b")"
    yield line.replace(b" ", b"  ")
    yield line[:-1]
    yield line.replace(b"(", b"( ").replace(b")", b" )")
    yield line.replace(b"(", b"((", 1).replace(b")", b"))", 1)
    yield line.replace(b"(", b"", 1)
    yield line.replace(b'"', b"")
    yield line.replace(b"(", b'"').replace(b")", b'"')
    yield line.replace(b":", b"::", 1)
    yield line.replace(b",", b",,", 1)
    yield line.replace(b"1", b"0", 1)
    yield line.replace(b"1", b"99999999999", 1)
    yield line.replace(b"\\", b"", 1)
    yield b" ".join(line.split(b" ")[:-1])
    words = line.split(b" ")
    for index in range(1, len(words)):
        yield b" ".join(words[:index] + words[index + 1 :])
        yield b" ".join([*words[:index], words[index], *words[index:]])
        yield b" ".join([*words[:index], b"NIL", *words[index + 1 :]])
        yield b" ".join([*words[:index], b"()", *words[index + 1 :]])
