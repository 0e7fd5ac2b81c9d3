"""Sessions typed by hand, as with telnet, against `fastlisten serve`: octet by octet."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from support.real_server import ALICE, BOB, HOST, MESSAGE, Mail, server_fixture, without_old_mail
from support.smtp_client import SmtpClient
from support.waiting import PATIENCE

SENDER = b"sender@example.com"


server = server_fixture("mx", "lmtp")
mail = without_old_mail


@contextlib.contextmanager
def typing(mail: Mail, listener: str) -> Iterator[SmtpClient]:
    sock = socket.create_connection((HOST, mail.port(listener)), PATIENCE)
    with contextlib.closing(SmtpClient(sock)) as session:
        yield session


def code(session: SmtpClient, line: bytes) -> int:
    """Type a line; return the code of the reply."""
    session.type(line + b"\r\n")
    return session.answer()[0]


def test_smtp_session(mail: Mail) -> None:
    with typing(mail, "mx") as session:
        assert session.reply() == b"220 mx.example.org ESMTP\r\n"
        assert code(session, b"what is this?") == 500
        assert code(session, b"help") == 214
        assert code(session, b"mail from:<%b>" % SENDER) == 503
        assert code(session, b"helo me") == 250
        assert code(session, b"MAIL FROM:<%b>" % SENDER) == 250
        assert code(session, b"data") == 554
        assert code(session, b"RCPT TO:<nobody@example.org>") == 550
        assert code(session, b"RCPT TO:<%b>" % ALICE.encode()) == 250
        assert code(session, b"data") == 354
        session.type(MESSAGE.replace(b"\r\n.", b"\r\n.."))
        assert code(session, b".") == 250
        assert code(session, b"quit") == 221
        assert session.rest() == b""
    trace, content = mail.the_one()
    assert content == MESSAGE
    assert f"Received: from me ([{HOST}]) by mx.example.org with SMTP id " in trace


def test_bdat_session(mail: Mail) -> None:
    """BDAT (RFC 3030): no dot stuffing, and bare CR and LF are allowed with BINARYMIME."""
    binary = MESSAGE + b"bare\rbare\nends\r\n.\r\nhere"
    with typing(mail, "mx") as session:
        session.reply()
        session.type(b"ehlo me\r\n")
        offered = session.answer()[1]
        assert {"CHUNKING", "BINARYMIME", "PIPELINING"} <= set(offered)
        assert code(session, b"mail from:<%b> body=binarymime" % SENDER) == 250
        assert code(session, b"rcpt to:<%b>" % ALICE.encode()) == 250
        assert code(session, b"rcpt to:<%b>" % BOB.encode()) == 250
        assert code(session, b"data") == 503
        for start in range(0, len(binary), 100):
            chunk = binary[start : start + 100]
            session.type(b"bdat %d\r\n%b" % (len(chunk), chunk))
            assert session.reply().startswith(b"250 2.0.0 ")
        assert code(session, b"bdat 0 last") == 250
        assert code(session, b"quit") == 221
    assert mail.arrived() == mail.arrived(BOB) == [binary]


def test_pipelined_session(mail: Mail) -> None:
    """Two messages and QUIT in one segment (PIPELINING, RFC 2920)."""
    letter = MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    one = b"mail from:<>\r\nrcpt to:<%b>\r\ndata\r\n%b" % (ALICE.encode(), letter)
    with typing(mail, "mx") as session:
        session.sock.sendall(b"ehlo me\r\n" + one + one + b"quit\r\n")
        session.sock.shutdown(socket.SHUT_WR)
        codes = [session.answer()[0] for _ in range(11)]
        assert codes == [220, 250, 250, 250, 354, 250, 250, 250, 354, 250, 221]
        assert session.rest() == b""
    assert mail.arrived() == [MESSAGE] * 2


def test_lmtp_session(mail: Mail) -> None:
    with typing(mail, "lmtp") as session:
        assert session.reply() == b"220 mx.example.org LMTP\r\n"
        assert code(session, b"ehlo me") == 500
        assert code(session, b"helo me") == 500
        session.type(b"lhlo me\r\n")
        offered = session.answer()[1]
        assert {"PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"} <= set(offered)
        assert code(session, b"mail from:<%b>" % SENDER) == 250
        assert code(session, b"data") == 503
        recipients = (ALICE, "nobody@example.org", BOB, ALICE, "someone@example.net")
        codes = [code(session, f"rcpt to:<{name}>".encode()) for name in recipients]
        assert codes == [250, 550, 250, 250, 550]
        assert code(session, b"data") == 354
        session.type(MESSAGE.replace(b"\r\n.", b"\r\n.."))
        assert code(session, b".") == 250
        assert [session.reply()[:4] for _ in range(2)] == [b"250 ", b"250 "]
        assert code(session, b"quit") == 221
        assert session.rest() == b""
    assert mail.arrived(BOB) == [MESSAGE]
    assert set(mail.arrived()) == {MESSAGE}
    assert " with LMTP id " in mail.the_one(BOB)[0]
