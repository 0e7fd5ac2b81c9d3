"""What mail programs say to a server, in the words of logs that their users have published.

Rules of this file: no test in it; data only. A step is a command and a pattern that must be in its
answers, the tagged one included. The mailbox has the messages of `MESSAGES` in dovecot_session.py;
the second of them has two parts, of which the second is a message. `{APPEND}` stands for a literal
of a message.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["PROGRAMS", "Step", "spelled"]

Step = tuple[str, str]

_APPLE = (
    "date subject from to cc message-id in-reply-to references content-type x-priority "
    "x-uniform-type-identifier x-universally-unique-identifier list-id list-unsubscribe "
    "bimi-indicator bimi-location x-bimi-indicator-hash authentication-results dkim-signature"
)
_THUNDERBIRD = (
    "From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To "
    "Content-Type Reply-To"
)
_K9 = (
    "date subject from content-type to cc reply-to message-id references in-reply-to "
    "list-unsubscribe sender X-K9mail-Identity"
)
_ROUNDCUBE = (
    "DATE FROM TO SUBJECT CONTENT-TYPE CC REPLY-TO LIST-POST DISPOSITION-NOTIFICATION-TO "
    "X-PRIORITY CONTENT-TRANSFER-ENCODING BCC IN-REPLY-TO MAIL-FOLLOWUP-TO MAIL-REPLY-TO "
    "MESSAGE-ID REFERENCES RESENT-BCC RETURN-PATH SENDER X-DRAFT-INFO"
)

#: Dialogues after the login, by program.
PROGRAMS: dict[str, Sequence[Step]] = {
    "Thunderbird": (
        ('ID ("name" "Thunderbird" "version" "115.2.2")', r"\* ID "),
        ("namespace", r'\* NAMESPACE \(\("" "/"\)\) NIL NIL'),
        ('list (subscribed) "" "*" return (special-use)', "OK "),
        ('list "" "INBOX"', r'\* LIST \([^)]*\) "/" INBOX\r'),
        ('lsub "" "*"', "OK "),
        ('list "" "Rubbish"', r"\AOK "),
        ('create "Rubbish"', "OK "),
        ('subscribe "Rubbish"', "OK "),
        ('create "Posted"', "OK "),
        ('subscribe "Posted"', "OK "),
        ('select "INBOX" (CONDSTORE)', r"\* 8 EXISTS.*HIGHESTMODSEQ \d+.*READ-WRITE"),
        ("UID fetch 1:* (FLAGS)", r"\* 8 FETCH \([^\r]*UID 8"),
        (
            f"UID fetch 1:8 (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS ({_THUNDERBIRD})])",
            r"\* 8 FETCH \(UID 8 RFC822.SIZE \d+ ",
        ),
        ("UID fetch 2 (UID RFC822.SIZE BODY[])", r"\* 2 FETCH \(UID 2 RFC822.SIZE (\d+) .*{\1}"),
        ("uid store 2 -Flags (\\Seen)", "OK "),
        ("UID fetch 2 (UID BODYSTRUCTURE)", r'"message" "rfc822"'),
        ("UID fetch 7 (UID RFC822.SIZE BODY.PEEK[]<0.65536>)", r"BODY\[\]<0> \{65536\}"),
        ("UID fetch 7 (UID RFC822.SIZE BODY.PEEK[]<65536.131072>)", r"BODY\[\]<65536> \{"),
        ("uid search undeleted subject lf", r"\* SEARCH 3\r"),
        ('append "Posted" (\\Seen) {APPEND}', r"APPENDUID \d+ 1\]"),
        ('STATUS "Posted" (UIDNEXT MESSAGES UNSEEN RECENT)', "MESSAGES 1"),
        ('uid move 1 "Rubbish"', r"COPYUID \d+ 1 1\].*\* 1 EXPUNGE"),
        ('uid copy 3 "Rubbish"', r"COPYUID \d+ 3 2\]"),
        ("uid store 3 +Flags (\\Deleted)", r"\\Deleted"),
        ("expunge", r"\* 2 EXPUNGE"),
        ("noop", r"\AOK "),
        ('rename "Rubbish" "Dustbin"', "OK "),
        ('unsubscribe "Rubbish"', "OK "),
        ('delete "Dustbin"', "OK "),
        ("close", "OK "),
    ),
    "Apple Mail": (
        (
            'ID ("name" "com.apple.email.maild" "version" "3826.400.131.2.14" "os" "iOS" '
            '"os-version" "18.3 (22D63)" "vendor" "Apple Inc")',
            r"\* ID ",
        ),
        ("NAMESPACE", "OK "),
        ('LIST "" "*" RETURN (SPECIAL-USE)', "INBOX"),
        ('LIST "" ""', r'\(\\Noselect\) "/" ""'),
        ("ENABLE CONDSTORE", "ENABLED CONDSTORE"),
        ("STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ)", "UIDNEXT 9"),
        ("SELECT INBOX (CONDSTORE)", r"\* 8 EXISTS"),
        ("FETCH 1:* (FLAGS UID)", r"\* 8 FETCH"),
        ("UID SEARCH 1:* NOT DELETED", r"\* SEARCH 1 2 3 4 5 6 7 8\r"),
        (
            f"FETCH 1:8 (INTERNALDATE UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS ({_APPLE})])",
            r"\* 8 FETCH",
        ),
        ("UID FETCH 2 (BODYSTRUCTURE BODY.PEEK[HEADER])", r"BODY\[HEADER\] \{"),
        ("UID FETCH 2 BODY.PEEK[1]<0.393216>", r"BODY\[1\]<0> "),
        ("UID FETCH 2 (BODY.PEEK[2.MIME] BODY.PEEK[2]<0.393216>)", r"BODY\[2\]<0> \{"),
        ("UID FETCH 7 (BODY.PEEK[TEXT]<180000.393216>)", r"BODY\[TEXT\]<180000> "),
        ("UID STORE 2 +FLAGS.SILENT (\\Seen)", r"MODSEQ"),
        ('CREATE "Deleted Messages"', "OK "),
        ('UID COPY 2 "Deleted Messages"', "COPYUID"),
        ("UID STORE 2 +FLAGS.SILENT (\\Deleted)", "OK "),
        ("UID EXPUNGE 2", r"\* 2 EXPUNGE"),
        ('APPEND "Deleted Messages" (\\Seen) "3-Feb-2025 18:28:47 +0000" {APPEND}', "APPENDUID"),
        ("UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1)", r"MODSEQ \("),
        ("CHECK", "OK "),
        ("CLOSE", "OK "),
    ),
    "Outlook": (
        ("CAPABILITY", r"\* CAPABILITY IMAP4rev1 "),
        (
            'ID ("name" "Microsoft Office 365" "version" "15.20.9160.4" "vendor" "Microsoft '
            'Corporation" "support-url" "https://support.microsoft.com/")',
            r"\* ID ",
        ),
        ('LIST "" ""', '"/"'),
        ('LSUB "" "*"', "OK "),
        ('LIST "" "*"', "INBOX"),
        ('STATUS "INBOX" (UNSEEN MESSAGES)', "MESSAGES 8"),
        ('SELECT "INBOX"', r"\* 8 EXISTS"),
        ("UID FETCH 1:* (UID FLAGS)", r"\* 8 FETCH"),
        ("UID FETCH 1:8 (UID RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER])", r"\* 8 FETCH"),
        ("UID fetch 3 (UID RFC822.SIZE BODY.PEEK[])", r"BODY\[\] \{"),
        ("UID SEARCH OR SUBJECT lf FROM foo", r"\* SEARCH 2 3\r"),
        ("UID STORE 3 +FLAGS.SILENT (\\Seen \\Deleted)", r"\AOK "),
        ("EXPUNGE", r"\* 3 EXPUNGE"),
        ("UID SEARCH UNSEEN", "SEARCH"),
    ),
    "K-9 Mail": (
        ("CAPABILITY", "OK "),
        ("NAMESPACE", "OK "),
        ('LIST "" "*" RETURN (SPECIAL-USE)', "INBOX"),
        ('LIST (SUBSCRIBED) "" "*"', "OK "),
        ('EXAMINE "INBOX"', "READ-ONLY"),
        ('SELECT "INBOX"', "READ-WRITE"),
        ("NOOP", "OK "),
        ("UID SEARCH 1:8 NOT DELETED", r"SEARCH 1 2 3 4 5 6 7 8\r"),
        ("UID SEARCH 1:8 SINCE 1-Jan-2000 NOT DELETED", r"SEARCH 1 2 3 4 5 6 7 8\r"),
        ("UID FETCH 8,7,6,5,4,3,2,1 (UID FLAGS)", r"\* 8 FETCH"),
        (
            "UID FETCH 8,2,1 (UID FLAGS INTERNALDATE RFC822.SIZE "
            f"BODY.PEEK[HEADER.FIELDS ({_K9})])",
            r"\* 8 FETCH",
        ),
        ("UID FETCH 2 (UID BODYSTRUCTURE)", r'"rfc822"'),
        ("UID FETCH 2 (BODY.PEEK[1])", r"BODY\[1\] "),
        ("UID FETCH 7 (UID BODY.PEEK[]<0.32768>)", r"BODY\[\]<0> \{32768\}"),
        ("UID STORE 2 +FLAGS.SILENT (\\Seen)", r"\AOK "),
        ('CREATE "Rubbish"', "OK "),
        ('UID MOVE 2 "Rubbish"', "COPYUID"),
        ("UID SEARCH TEXT long", "SEARCH"),
        ('APPEND "Rubbish" (\\Seen) {APPEND}', "APPENDUID"),
    ),
    "FairEmail": (
        ("EXAMINE INBOX", "READ-ONLY"),
        ("CLOSE", "OK "),
        ("SELECT INBOX", "READ-WRITE"),
        ("FETCH 1:8 (UID FLAGS)", r"\* 8 FETCH"),
        (
            "FETCH 2 (ENVELOPE INTERNALDATE RFC822.SIZE FLAGS BODYSTRUCTURE UID "
            "BODY.PEEK[HEADER.FIELDS (Autocrypt Disposition-Notification-To List-Unsubscribe)])",
            "ENVELOPE",
        ),
        ("FETCH 7 (BODY.PEEK[1]<0.131072>)", r"BODY\[1\]<0> \{131072\}"),
        ('SEARCH HEADER Message-ID "<x@y>" ALL', r"SEARCH 4\r"),
        ("STORE 3 +FLAGS (\\Deleted)", r"\\Deleted"),
        ("EXPUNGE", r"\* 3 EXPUNGE"),
        ("FETCH 3 (UID)", r"\* 3 FETCH \(UID 4\)"),
    ),
    "Samsung Email": (
        ("ENABLE QRESYNC", "ENABLED QRESYNC"),
        ("SELECT INBOX (QRESYNC (1 1))", r"\* 8 EXISTS"),
        ("UID STORE 1 +FLAGS.SILENT (\\Deleted)", "MODSEQ"),
        ("EXPUNGE", "VANISHED 1"),
        ("UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)", r"VANISHED \(EARLIER\) 1"),
    ),
    "Roundcube": (
        ("ENABLE QRESYNC", "ENABLED QRESYNC"),
        ('LIST (SUBSCRIBED) "" *', "OK "),
        ('LIST "" * RETURN (SUBSCRIBED STATUS (UNSEEN))', r"\* STATUS INBOX \(UNSEEN 8\)"),
        ("SELECT INBOX", r"\* 8 EXISTS"),
        ("UID SEARCH RETURN (ALL COUNT) UNDELETED", r"ALL 1:8"),
        (
            "UID FETCH 1:8 (UID RFC822.SIZE FLAGS INTERNALDATE BODYSTRUCTURE "
            f"BODY.PEEK[HEADER.FIELDS ({_ROUNDCUBE})])",
            r"\* 8 FETCH",
        ),
        ("UID FETCH 2 (BODY.PEEK[2.MIME] BODY.PEEK[1])", r"BODY\[1\] "),
        ("UID STORE 2 +FLAGS.SILENT (\\Seen)", "OK "),
        ("UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)", "OK "),
        ("STATUS INBOX (MESSAGES UNSEEN)", "UNSEEN 7"),
    ),
    "Horde and Nextcloud": (
        ("ENABLE QRESYNC", "ENABLED QRESYNC"),
        ("EXAMINE INBOX", "READ-ONLY"),
        ("STATUS INBOX (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN)", "MESSAGES 8"),
        ("UID SEARCH RETURN (MIN MAX COUNT) ALL", "MIN 1 MAX 8 COUNT 8"),
        ("UID FETCH 1:8 (ENVELOPE BODYSTRUCTURE FLAGS INTERNALDATE)", r"\* 8 FETCH"),
        ("UID FETCH 2 (BODY.PEEK[2] BODY.PEEK[2.MIME])", r"BODY\[2.MIME\]"),
        ("SELECT INBOX", "READ-WRITE"),
        ("UNSELECT", "OK "),
    ),
    "MailKit": (
        ('LIST "" "INBOX" RETURN (SUBSCRIBED CHILDREN)', "INBOX"),
        ('LIST (SPECIAL-USE) "" "*" RETURN (SUBSCRIBED CHILDREN)', "OK "),
        ("SELECT INBOX (CONDSTORE)", "HIGHESTMODSEQ"),
        ("UID SEARCH RETURN (ALL) UNSEEN", "ALL 1:8"),
        ("UID FETCH 1:8 (UID FLAGS ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER])", r"\* 8 FETCH"),
        ("UID FETCH 1:8 (UID FLAGS MODSEQ)", "MODSEQ"),
        ("UID FETCH 4 (BODY.PEEK[])", r"\xc3"),
        ("UID STORE 1:2 (UNCHANGEDSINCE 1) +FLAGS.SILENT (\\Flagged)", "MODIFIED"),
    ),
}

_MESSAGE = b"From: alice@example.org\r\nSubject: sent\r\n\r\nIt works.\r\n"


def spelled(command: str) -> bytes:
    """Return a command's octets."""
    literal = b"{%d+}\r\n%b" % (len(_MESSAGE), _MESSAGE)
    return command.encode().replace(b"{APPEND}", literal)
