"""Faults that were reported of other servers, in commands about sessions and mailboxes: not here.

Rules of this file: a case names the project and the number of its report, and says the fault in one
line of our own. Those about messages are in test_imap_reports_messages.py.
"""

# ruff: noqa: E501 (a pattern in pieces cannot be read)

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.imap_reports import PLAIN, Report, carry_out, named
from support.imap_server import ADDRESS, PASSWORD, ImapServer, serve_imap

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 8000

REPORTS = (
    Report("imap-server 20", "an unknown command was answered without its tag",
           [("XNONSENSE", r"\ABAD ")]),
    Report("greenmail 240", "NAMESPACE was not known",
           [("NAMESPACE", r'\A\* NAMESPACE \(\("" "/"\)\) NIL NIL\r\nOK ')]),
    Report("greenmail 422", "MOVE was not known",
           [("CREATE =BOX/2", "OK "), ("MOVE 1 =BOX/2", r"COPYUID .*\* 1 EXPUNGE.*OK ")]),
    Report("greenmail 231", "STATUS of a mailbox that is not there was answered with OK",
           [("STATUS nowhere (MESSAGES)", r"\ANO "), ('LIST "" nowhere', r"\AOK ")]),
    Report("cyrus 4997", "DELETE of a mailbox that is not there ended the session",
           [("DELETE nowhere", r"\ANO "), ("NOOP", "OK ")]),
    Report("cyrus 1507", "RENAME INBOX did not work",
           [("RENAME INBOX =BOX/old", "OK "), ('LIST "" INBOX', "INBOX"), ("STATUS INBOX (MESSAGES)", "OK ")]),
    Report("cyrus 109", "children did not move with a renamed mailbox",
           [("CREATE =BOX/a/b", "OK "), ("RENAME =BOX/a =BOX/c", "OK "), ('LIST "" =BOX/*', "=BOX/c/b"),
            ('LIST "" =BOX/*', "!=BOX/a")]),
    Report("cyrus 252", "renamed mailboxes were no longer subscribed",
           [("CREATE =BOX/a", "OK "), ("SUBSCRIBE =BOX/a", "OK "), ("RENAME =BOX/a =BOX/b", "OK "),
            ('LSUB "" =BOX/*', "=BOX/b")]),
    Report("roundcube 8892", "children of a renamed mailbox were no longer subscribed",
           [("CREATE =BOX/a/b", "OK "), ("SUBSCRIBE =BOX/a/b", "OK "), ("RENAME =BOX/a =BOX/c", "OK "),
            ('LSUB "" =BOX/*', "=BOX/c/b")]),
    Report("cyrus 812", r"\HasChildren was wrong for names found by %",
           [("CREATE =BOX/a/b", "OK "), ('LIST "" =BOX/%', r"\\HasChildren[^\r]* =BOX/a\r"),
            ('LIST "" =BOX/a/%', r"\\HasNoChildren[^\r]* =BOX/a/b\r")]),
    Report("cyrus 96", "INBOX was listed twice",
           [('LIST "" inbox', r"\A\* LIST [^\r]* INBOX\r\nOK "), ('LIST "" InB%', r" INBOX\r\nOK ")]),
    Report("defects 8", "INBOX was not known in other cases",
           [("SELECT iNbOx", "READ-WRITE"), ('STATUS "inbox" (UIDNEXT)', r"\* STATUS \S+ \(UIDNEXT ")]),
    Report("k-9 786", "names with brackets were not listed",
           [('CREATE "=BOX/[a]"', "OK "), ('LIST "" =BOX/*', r'=BOX/\[a\]'), ('SELECT "=BOX/[a]"', "OK ")]),
    Report("MailKit 945", "a name with spaces was listed without quotes",
           [('CREATE "=BOX/a b c"', "OK "), ('LIST "" =BOX/*', r'"/" "=BOX/a b c"\r')]),
    Report("jakarta mail 152", "quotes in a pattern were a syntax error",
           [('CREATE "=BOX/a \\"b\\""', "OK "), ('LIST "" "=BOX/a \\"b\\"*"', r'=BOX/a \\"b\\"')]),
    Report("stalwart 76", "names with an ampersand were listed wrongly",
           [('CREATE "=BOX/Q&-A"', "OK "), ('LIST "" =BOX/*', '=BOX/Q&-A'), ('SELECT "=BOX/Q&-A"', "OK ")]),
    Report("py3status 1926", "a pattern that is no quoted string was a syntax error",
           [('LIST "" %', "OK "), ("LIST {0+}\r\n {6+}\r\nINBOX*", "OK ")]),
    Report("Mailspring 967", 'the delimiter was not told by LIST "" ""',
           [('LIST "" ""', r'\A\* LIST \(\\Noselect\) "/" ""\r\nOK ')]),
    Report("cyrus 784", "a literal was understood in some places only",
           [(b"STATUS {6+}\r\ncase00 (MESSAGES)", r"\ANO "), (b"EXAMINE {5+}\r\nINBOX", "OK ")]),
    Report("go-imap 446", "LIST with STATUS failed for a mailbox that cannot be selected",
           [("CREATE =BOX/a/b", "OK "), ('LIST "" =BOX* RETURN (STATUS (MESSAGES UNSEEN))',
                                        r"\* STATUS =BOX/a/b \(MESSAGES 0 UNSEEN 0\).*OK ")]),
    Report("cyrus 5416", "STATUS did not know APPENDLIMIT",
           [("STATUS =BOX (APPENDLIMIT)", r"\(APPENDLIMIT \d+\)")]),
    Report("defects 9", "a STATUS response ended with a space",
           [("STATUS =BOX (MESSAGES)", r"\(MESSAGES 3\)\r\n")]),
    Report("php-imap 570", "STATUS left out UIDNEXT",
           [("STATUS =BOX (MESSAGES RECENT UNSEEN UIDNEXT UIDVALIDITY)", r"UIDNEXT 4\b")]),
    Report("roundcube 9437", "UIDVALIDITY had more than 32 bits",
           [("STATUS =BOX (UIDVALIDITY)", r"UIDVALIDITY [1-9]\d{0,9}\)")]),
    Report("defects 28", "codes in responses were followed by nothing",
           [("SELECT =BOX", r"!\][\r\n]"), ("EXAMINE =BOX", r"!\] ?\r"), ("EXAMINE =BOX", r"PERMANENTFLAGS \(\)\] ")]),
    Report("mcp-email-server 167", "the former mailbox was still selected after SELECT had failed",
           [("SELECT nowhere", r"\A(?:\* OK \[CLOSED\][^\r]*\r\n)?NO "), ("FETCH 1 FLAGS", r"\ABAD ")]),
    Report("defects 24", "the answer to ID ended with a space",
           [('ID ("name" "x" "version" NIL)', r'\A\* ID \([^)]*[^ )]\)\r\nOK '), ("ID NIL", r"\A\* ID ")]),
    Report("Wino-Mail 263", "ID with the fields of some clients was not understood",
           [('ID ("version" "1.0" "os" "Windows" "vendor" "Wino" "command" "ID")', r"OK ")]),
    Report("stalwart 76", "ENABLE with an unknown name enabled nothing, and did not say what it did",
           [("ENABLE QRESYNC UTF8=ACCEPT", r"\* ENABLED QRESYNC\r\nOK ")]),
    Report("hmailserver 53", "APPEND with UTF8 was not understood, and what followed was taken for commands",
           [(b"APPEND =BOX (\\Seen) UTF8 (~{4+}\r\nabcd)", r"\A(BAD|NO) "), ("NOOP", r"OK ")]),
    Report("mox 279", "a date with a day of one digit, as iOS sends it, was refused",
           [(b'APPEND =BOX (\\Seen) "3-Feb-2025 18:28:47 +0000" {%d+}\r\n%b' % (len(PLAIN), PLAIN), "OK "),
            ("FETCH 4 INTERNALDATE", '" 3-Feb-2025 18:28:47 [+]0000"')]),
    Report("node-imap 648", "a date with a leading space or zero was refused",
           [(b'APPEND =BOX "07-Nov-2016 18:49:23 +0200" {%d+}\r\n%b' % (len(PLAIN), PLAIN), "OK "),
            (b'APPEND =BOX " 7-Nov-2016 18:49:23 +0200" {%d+}\r\n%b' % (len(PLAIN), PLAIN), "OK ")]),
    Report("gromox 60", "APPEND without flags was limited to 64 kB",
           [(b"APPEND =BOX {%d+}\r\n%b" % (len(LARGE), LARGE), "APPENDUID"),
            ("FETCH 4 RFC822.SIZE", f"SIZE {len(LARGE)}\\)")]),
    Report("cyrus 123", r"APPEND to the selected mailbox spoilt \Seen of others",
           [("STORE 1 +FLAGS.SILENT (\\Seen)", "OK "), (b"APPEND =BOX {%d+}\r\n%b" % (len(PLAIN), PLAIN), "OK "),
            ("SEARCH SEEN", r"\* SEARCH 1\r"), ("SEARCH UNSEEN", r"\* SEARCH 2 3 4\r")]),
    Report("twisted 7481", "APPEND without a date was a syntax error",
           [(b"APPEND =BOX () {%d+}\r\n%b" % (len(PLAIN), PLAIN), "OK ")]),
    Report("proton-bridge 123", "UID EXPUNGE was announced and refused",
           [("STORE 1:2 +FLAGS.SILENT (\\Deleted)", "OK "), ("UID EXPUNGE 2", r"\* 2 EXPUNGE\r\n.*OK"),
            ("SEARCH DELETED", r"\* SEARCH 1\r")]),
    Report("cyrus 2290", "MOVE of a message that is gone had an answer like a success",
           [("CREATE =BOX/2", "OK "), ("UID MOVE 99 =BOX/2", "!COPYUID"), ("UID MOVE 2 =BOX/2", r"COPYUID \d+ 2 1\]")]),
    Report("MailKit 240", "COPYUID had a UIDVALIDITY of 0",
           [("CREATE =BOX/2", "OK "), ("UID COPY 1:3 =BOX/2", r"\[COPYUID [1-9]\d* 1:3 1:3\]")]),
    Report("cyrus 1018", "COPYUID was cut off for long sets",
           [("CREATE =BOX/2", "OK "), ("UID COPY 1,3,5,7,9,11,13,15,17,19,21,23 =BOX/2",
                                      r"\[COPYUID \d+ 1,3,5,7,9,11,13,15,17,19,21,23 1:12\]")], [PLAIN] * 24),
    Report("imaptest 37", "UIDs of copies were not in the order of the originals",
           [("CREATE =BOX/2", "OK "), ("COPY 3,1 =BOX/2", r"COPYUID \d+ 1,3 1:2\]")]),
    Report("pelton 278", "a MOVE that failed removed the message",
           [("UID MOVE 1 nowhere", r"\ANO \[TRYCREATE\]"), ("UID SEARCH ALL", r"SEARCH 1 2 3\r")]),
    Report("cyrus 1413", "SELECT with QRESYNC was refused after ENABLE",
           [("ENABLE QRESYNC", "OK "), ("SELECT =BOX (QRESYNC (1 1 1:3 (1,3 1,3)))", "READ-WRITE")]),
    Report("cyrus 4787", "ENABLE QRESYNC with a mailbox selected had no effect",
           [("ENABLE QRESYNC", "OK "), ("UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)", "OK ")]),
    Report("cyrus 6071", "the message with the highest UID was not told to have vanished",
           [("ENABLE QRESYNC", "OK "), ("STORE 3 +FLAGS.SILENT (\\Deleted)", "OK "), ("EXPUNGE", "OK "),
            ("UID FETCH 1:* UID (CHANGEDSINCE 1 VANISHED)", r"VANISHED \(EARLIER\) 3\r")]),
    Report("james 629", "messages that had not changed were told to have vanished",
           [("ENABLE QRESYNC", "OK "), ("SELECT =BOX (QRESYNC (1 1))", "!VANISHED"),
            ("UID FETCH 1:3 FLAGS (CHANGEDSINCE 9999999999999999 VANISHED)", "!VANISHED [(]EARLIER[)] 1")]),
    Report("james 3109", "SEARCH by number told messages to be gone",
           [("2 STORE 1 +FLAGS.SILENT (\\Deleted)", "OK "), ("2 EXPUNGE", "OK "), ("SEARCH ALL", "!EXPUNGE"),
            ("NOOP", "EXPUNGE")]),
    Report("jakarta mail 150", "FETCH by number told messages to be gone, and numbers moved",
           [("2 STORE 1 +FLAGS.SILENT (\\Deleted)", "OK "), ("2 EXPUNGE", "OK "), ("FETCH 3 UID", r"\* 3 FETCH \(UID 3\)"),
            ("FETCH 2:3 UID", "!EXPUNGE"), ("NOOP", r"\* 1 EXPUNGE\r")]),
    Report("cyrus 1263", "EXPUNGE was told of messages that the client had not been told of",
           [(b"2 APPEND =BOX {%d+}\r\n%b" % (len(PLAIN), PLAIN), "OK "),
            ("2 STORE 4 +FLAGS.SILENT (\\Deleted)", "OK "), ("2 EXPUNGE", "OK "), ("NOOP", "!EXPUNGE"),
            ("UID SEARCH ALL", r"SEARCH 1 2 3\r")]),
    Report("imapflow 209", "whether 1:* is an error in an empty mailbox: RFC 9051 9 says so, not for UIDs",
           [("FETCH 1:* UID", r"\ABAD "), ("UID FETCH 1:* UID", r"\AOK "), ("UID SEARCH UID 1:*", "OK ")], []),
    Report("james 4167", "UID SEARCH UID up to the largest number did not find all",
           [("UID SEARCH UID 1:*", r"SEARCH 1 2 3\r"), ("UID SEARCH UID 1:4294967295", r"SEARCH 1 2 3\r"),
            ("UID FETCH 1:4294967295 UID", r"\* 3 FETCH")]),
    Report("dovecot's page of clients", "a negative UID, of clients with signed numbers, confused the session",
           [("UID FETCH 1181461470:-1181461446 UID", r"\ABAD "), ("NOOP", "OK ")]),
    Report("defects 40", "a descending or unsorted set was refused",
           [("UID FETCH 3,2,1 UID", r"\* 1 FETCH.*\* 2 FETCH.*\* 3 FETCH"), ("FETCH *:2 UID", r"\* 2 FETCH.*\* 3 FETCH")]),
    Report("maddy 240", "EXPUNGE was answered before the client had been told what is gone",
           [("STORE 3 +FLAGS (\\Deleted)", "OK "), ("EXPUNGE", r"\* 3 EXPUNGE\r\n.*OK "), ("FETCH 3 UID", r"\ABAD ")]),
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImapServer]:
    with serve_imap(tmp_path_factory.mktemp("reports")) as served:
        yield served


@pytest.mark.parametrize("number", range(len(REPORTS)), ids=named(REPORTS))
def test_report(server: ImapServer, number: int) -> None:
    carry_out(server, REPORTS[number], number)


def test_mailkit_1536_logout_had_a_tagged_bye(server: ImapServer) -> None:
    client = server.lines()
    bye, ok = client.say("LOGOUT")
    assert bye.startswith(b"* BYE ")
    assert ok.startswith(b"OK ")


def test_defects_7_a_continuation_had_no_space(server: ImapServer) -> None:
    client = server.connect()
    client.send(b"a AUTHENTICATE PLAIN\r\n")
    assert client.response() == b"+ "
    client.send(b"*\r\n")
    assert client.response().startswith(b"a BAD ")


def test_mox_253_a_bad_response_to_a_challenge_ended_the_session(server: ImapServer) -> None:
    client = server.connect()
    client.send(b"a AUTHENTICATE PLAIN ab!\r\n")
    assert client.response().startswith(b"a BAD ")
    assert client.say("LOGOUT")[-1].startswith(b"OK ")


def test_stalwart_765_only_the_first_of_several_commands_was_answered(server: ImapServer) -> None:
    client = server.lines()
    client.send(b'A3 NAMESPACE\r\nA4 LIST "" "*" RETURN (SPECIAL-USE)\r\n')
    assert client.answers(b"A3")[-1].startswith(b"OK ")
    assert client.answers(b"A4")[-1].startswith(b"OK ")


def test_rust_imap_263_mail_that_came_before_idle_was_never_told(server: ImapServer) -> None:
    client = server.lines("INBOX")
    (before,) = client.ok("UID SEARCH RETURN (COUNT) ALL")
    count = int(before.split()[-1])
    server.deliver()
    client.send(b"i IDLE\r\n")
    assert client.response() == b"+ idling"
    assert client.response() == b"* %d EXISTS" % (count + 1)
    client.send(b"done\r\n")
    assert client.answers(b"i")[-1].startswith(b"OK ")


def test_emclient_login_with_literals(server: ImapServer) -> None:
    """mailcore2 and others send names and passwords as literals."""
    client = server.connect()
    client.send(b"a LOGIN {%d}\r\n" % len(ADDRESS))
    assert client.response().startswith(b"+ ")
    client.send(b"%b {%d}\r\n" % (ADDRESS.encode(), len(PASSWORD)))
    assert client.response().startswith(b"+ ")
    client.send(PASSWORD.encode() + b"\r\n")
    assert client.response().startswith(b"a OK ")
