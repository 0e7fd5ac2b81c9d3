"""A real client, imaplib, speaks to the engine; its user answers from a list of messages.

Rules of this file: the client must understand every response. Which answers are right for a real
mailbox is no matter of the engine.
"""

from __future__ import annotations

import imaplib
import socket
import threading
from collections.abc import Iterator

import pytest
from support.waiting import PATIENCE

from fastlisten.handlers.imap.engine import mailbox_responses as about_mailboxes
from fastlisten.handlers.imap.engine import message_responses as about_messages
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.body_structure import item_body_structure, item_envelope
from fastlisten.handlers.imap.engine.commands import (
    AppendEnd,
    AppendMessage,
    AppendOctets,
    Authenticate,
    AuthenticateResponse,
    Capability,
    Copy,
    Event,
    Expunge,
    Fetch,
    List,
    Login,
    Search,
    Select,
    Status,
)
from fastlisten.handlers.imap.engine.engine import ImapEngine, Limits
from fastlisten.handlers.imap.engine.fetch_items import FetchItem
from fastlisten.handlers.imap.engine.status_responses import status
from fastlisten.mail.mime.parser import parse

MESSAGE = b'From: =?utf-8?q?=C3=A4?= <a@b>\r\nSubject: \xc3\xa4 "x" \\\r\n\r\nbody )\r\n'
CAPABILITIES = ["IMAP4rev1", "SASL-IR", "LITERAL+", "UIDPLUS", "AUTH=PLAIN"]


class Server:
    """A session over a socket, in a thread."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.engine = ImapEngine(Limits(), encrypted=True)
        self.messages = [MESSAGE]
        self.incoming = bytearray()
        self.commands: list[Event] = []

    def serve(self) -> None:
        connection, engine = self.connection, self.engine
        connection.sendall(status(b"*", b"OK", "Ready", codes.capability(CAPABILITIES)))
        while not engine.closed and (data := connection.recv(65536)):
            engine.receive(data)
            while (event := engine.next_event()) is not None:
                self.commands.append(event)
                if engine.waiting:
                    self.answer(event)
            connection.sendall(engine.output())
        connection.close()

    def answer(self, event: Event) -> None:
        engine = self.engine
        if isinstance(event, AppendMessage):
            engine.accept()
            return
        if isinstance(event, Authenticate):
            engine.challenge(b"")
            return
        code = b""
        if isinstance(event, Login) and event.password != b'p"\\ {5}':
            engine.no("Authentication failed.", codes.AUTHENTICATIONFAILED)
            return
        if isinstance(event, Capability):
            engine.send(about_mailboxes.capability_response(CAPABILITIES))
        elif isinstance(event, List):
            engine.send(about_mailboxes.list_response("INBOX", ["\\HasNoChildren"]))
            engine.send(about_mailboxes.list_response('Ä "b\\', ["\\Sent"]))
        elif isinstance(event, Status):
            engine.send(about_mailboxes.status_response(event.mailbox, {"MESSAGES": 1}))
        elif isinstance(event, Select):
            engine.send(about_messages.flags_response(b"\\Seen $Junk"))
            engine.send(about_messages.exists_response(len(self.messages)))
            engine.send(about_messages.recent_response(0))
            engine.send(status(b"*", b"OK", "UIDs valid", codes.uid_validity(7)))
            code = codes.READ_WRITE
        elif isinstance(event, Search):
            engine.send(about_messages.search_response([1, 2]))
        elif isinstance(event, Fetch):
            for number, message in enumerate(self.messages, 1):
                items = [self.item(item, message) for item in event.items]
                engine.send(about_messages.fetch_response(number, items))
        elif isinstance(event, Expunge):
            engine.send(about_messages.expunge_responses([1]))
        elif isinstance(event, Copy):
            code = codes.copy_uid(7, [1, 2], [5, 6])
        elif isinstance(event, AppendEnd):
            pieces = [each.data for each in self.commands if isinstance(each, AppendOctets)]
            self.messages.append(b"".join(pieces))
            code = codes.append_uid(7, [2])
        engine.ok("Done", code)

    def item(self, item: FetchItem, message: bytes) -> bytes:
        part = parse(message)
        if item == "BODYSTRUCTURE":
            return item_body_structure(part)
        if item == "ENVELOPE":
            assert part.envelope is not None
            return item_envelope(part.envelope)
        if item == "FLAGS":
            return about_messages.item_flags(b"\\Seen $Junk")
        if item == "UID":
            return about_messages.item_uid(5)
        if item == "INTERNALDATE":
            return about_messages.item_internal_date(837596665)
        assert not isinstance(item, str)
        return about_messages.item_section(item.label, message)


@pytest.fixture
def session() -> Iterator[tuple[imaplib.IMAP4, Server]]:
    ours, theirs = socket.socketpair()
    server = Server(ours)
    thread = threading.Thread(target=server.serve)
    thread.start()

    class Client(imaplib.IMAP4):
        def _create_socket(self, timeout: float | None) -> socket.socket:
            theirs.settimeout(PATIENCE)
            return theirs

    client = Client()
    yield client, server
    client.logout()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_session_of_imaplib(session: tuple[imaplib.IMAP4, Server]) -> None:
    client, server = session
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        client.login("alice", "wrong")
    client.login("alice", 'p"\\ {5}')
    assert client.list() == (
        "OK",
        [b'(\\HasNoChildren) "/" INBOX', b'(\\Sent) "/" "&AMQ- \\"b\\\\"'],
    )
    assert client.status("INBOX", "(MESSAGES)") == ("OK", [b"INBOX (MESSAGES 1)"])
    assert client.select() == ("OK", [b"1"])
    assert client.response("UIDVALIDITY") == ("UIDVALIDITY", [b"7"])
    assert client.uid("SEARCH", "SUBJECT", '"x"') == ("OK", [b"1 2"])
    message = b"Subject: y\n\nz" * 10_000
    assert client.append("Sent", "\\Seen", None, message)[0] == "OK"
    assert client.response("APPENDUID") == ("APPENDUID", [b"7 2"])
    assert server.messages[1] == message.replace(b"\n", b"\r\n")
    kind, fetched = client.fetch("1:2", "(FLAGS UID INTERNALDATE BODY.PEEK[])")
    assert kind == "OK"
    assert [len(each) for each in fetched if isinstance(each, tuple)] == [2, 2]
    assert isinstance(fetched[0], tuple)
    assert isinstance(fetched[2], tuple)
    assert fetched[0][1] == MESSAGE
    assert fetched[2][1] == server.messages[1]
    assert imaplib.ParseFlags(fetched[0][0]) == (b"\\Seen", b"$Junk")
    assert imaplib.Internaldate2tuple(fetched[0][0]) is not None
    kind, fetched = client.uid("FETCH", "1", "(ENVELOPE BODYSTRUCTURE)")
    assert kind == "OK"
    assert fetched[0] == (b"1 (UID 5 ENVELOPE (NIL {8}", b'\xc3\xa4 "x" \\')
    assert client.uid("COPY", "1:2", "Sent")[0] == "OK"
    assert client.response("COPYUID") == ("COPYUID", [b"7 1:2 5:6"])
    assert client.expunge() == ("OK", [b"1"])


def test_sasl_of_imaplib(session: tuple[imaplib.IMAP4, Server]) -> None:
    client, server = session
    assert client.authenticate("PLAIN", lambda _: b"\0alice\0secret")[0] == "OK"
    assert server.commands[-1] == AuthenticateResponse(b"\0alice\0secret")
