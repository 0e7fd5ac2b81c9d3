"""Hostile clients of a whole session: any octets in any pieces, and clients that do not read.

Rules of this file: no sockets, so that what a session holds can be counted. Whatever comes, there
is no fault, nothing is left of the session, and what it holds is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.imap_direct import DirectHandler, DirectTransport
from support.imap_lines import BEFORE_LOGIN, EXAMPLES
from support.imap_server import MESSAGE
from support.memory_store import MemoryAccount

from fastlisten.handlers.engine_connection import READ_AHEAD
from fastlisten.handlers.imap.engine_protocol import MOST_PENDING
from fastlisten.handlers.imap.message_content import PIECE

LOGIN = b"a LOGIN alice wonder\r\nb SELECT INBOX\r\n"

#: Octets after which a transport pauses writing.
UNREAD = 64 * 1024

#: What a session may have written that is not read: a transport pauses after a write, and the
#: responses of one turn may follow each other.
MOST_UNREAD = UNREAD + 2 * MOST_PENDING + 2 * PIECE

ODD = (
    MESSAGE, b"", b"\r\n", b"\0", b"x", b"\r", b"\n", b"A: b", b"\xff\xfe: \x80\r\n\r\n\0\0\r\r",
    b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n--x\r\nA",
    b"Content-Type: message/rfc822\r\n\r\nContent-Type: message/rfc822\r\n\r\n",
    b"Subject: =?utf-8?b?4oKs?= =?x-none?q?=00?=\r\nFrom: <<>>,;:@\r\nDate: ?\r\n\r\n",
)  # fmt: skip

#: What is another in each account.
IDS = re.compile(rb"MAILBOXID [^]]*|UIDVALIDITY \d+|HIGHESTMODSEQ \d+|MODSEQ \(\d+\)|APPENDUID \d+")

DIALOGUE = LOGIN + b"\r\n".join((
    b"c CAPABILITY",
    b"d FETCH 1:* (UID FLAGS BODY[HEADER.FIELDS (SUBJECT)])",
    b'e APPEND INBOX (\\Seen k) "01-Jan-2026 00:00:00 +0000" {14+}\r\nSubject: x\r\n\r\n',
    b"f APPEND INBOX {3}\r\nab\n {2+}\r\ncd",
    b"g STORE 1:2 +FLAGS (\\Deleted $Word)",
    b"h SEARCH CHARSET UTF-8 SUBJECT {3+}\r\n\xe2\x82\xac",
    b"i IDLE\r\nDONE",
    b"j nonsense {5+}\r\n12345 {6}",
    b"k UID SEARCH RETURN (SAVE ALL) TEXT {4+}\r\nbody",
    b"l FETCH $ BODY.PEEK[]<1.5>",
    b"m EXPUNGE",
    b"n ENABLE QRESYNC",
    b"o UID FETCH 1:* (FLAGS MODSEQ)",
    b"p SELECT INBOX (QRESYNC (1 1))",
    b'q LIST "" {1+}\r\n*',
    b"r LOGOUT\r\n",
))  # fmt: skip


@pytest.fixture(autouse=True)
def no_faults(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.ERROR):
        yield
    assert caplog.records == []


def run(work: Coroutine[Any, Any, None], handler: DirectHandler) -> None:
    """Run something with sessions; nothing may be left of them."""

    async def whole() -> None:
        faults: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        await work
        while handler.unfinished or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert faults == []

    asyncio.run(whole())
    assert handler.opened == 0
    assert not handler.mail.watchers


def dialogue(pieces: list[bytes]) -> bytes:
    """Return what is answered to the dialogue, sent in pieces."""
    handler = DirectHandler(MemoryAccount([MESSAGE] * 3))
    client = handler.connect()

    async def whole() -> None:
        for piece in pieces:
            client.send(piece)
            await asyncio.sleep(0)
        await client.settle()
        assert client.is_closing()

    run(whole(), handler)
    return IDS.sub(b"", client.output)


def test_answers_do_not_depend_on_pieces() -> None:
    whole = dialogue([DIALOGUE])
    tagged = [line[:4] for line in whole.split(b"\r\n") if line[1:2] == b" " and line[:1].isalpha()]
    wrong = {b"j BA", b"f OK"}
    assert set(tagged) == {b"%c OK" % c for c in b"abcdeghiklmnopqr"} | wrong
    assert dialogue([bytes([octet]) for octet in DIALOGUE]) == whole
    for cut in range(1, len(DIALOGUE)):
        assert dialogue([DIALOGUE[:cut], DIALOGUE[cut:]]) == whole, cut


def test_cut_off_at_every_octet() -> None:
    """The client goes away after each octet, at once or a little later."""
    for cut in range(1, len(DIALOGUE)):
        handler = DirectHandler(MemoryAccount([MESSAGE] * 3))
        client = handler.connect()

        async def whole(client: DirectTransport = client, cut: int = cut) -> None:
            client.send(DIALOGUE[:cut])
            for _ in range(cut % 7):
                await asyncio.sleep(0)
            client.lose()

        run(whole(), handler)


LINES = [*BEFORE_LOGIN, *(line for group in EXAMPLES.values() for line in group)]

PIECES = st.one_of(
    st.sampled_from(LINES).map(lambda line: b"t " + line + b"\r\n"),
    st.sampled_from(LINES).map(lambda line: b"t " + line.replace(b"+}", b"}") + b"\r\n"),
    st.binary(max_size=40),
    st.sampled_from([
        b"t IDLE\r\n", b"DONE\r\n", b"\r\n", b"\n", b"{5}\r\n", b"\0", b"*",
        b"t APPEND INBOX {9}\r\n", b"t EXPUNGE\r\n", b"(" * 99,
        b"t FETCH 1:* (BODY[] BODYSTRUCTURE ENVELOPE)\r\n",
        b"t STORE 1:* FLAGS (\\Deleted a b)\r\n",
        b"t FETCH 1:* (BODY[1.1.1.MIME]<0.9> BODY[2] RFC822.SIZE)\r\n",
        b"t SELECT INBOX (QRESYNC (1 1 1:* (1 1)))\r\n",
        b"t SEARCH TEXT a BODY b SENTON 1-Jan-2026\r\n",
    ]),
)  # fmt: skip

STEPS = st.lists(
    st.one_of(PIECES, st.sampled_from(["read", "wait", "settle"])), min_size=1, max_size=40
)


@given(steps=STEPS, ahead=st.booleans(), unread=st.sampled_from([1, 300, UNREAD]))
def test_any_octets(steps: list[bytes | str], ahead: bool, unread: int) -> None:
    handler = DirectHandler(MemoryAccount(ODD))
    client = handler.connect(unread)
    other = handler.connect()

    async def whole() -> None:
        other.send(LOGIN + b"i IDLE\r\n")
        client.send(LOGIN if ahead else b"")
        for step in steps:
            if isinstance(step, bytes):
                client.send(step)
            elif step == "read":
                client.read()
            elif step == "wait":
                await asyncio.sleep(0)
            else:
                await client.settle()
            assert b"SERVERBUG" not in client.output
        client.lose()
        await other.settle()
        other.lose()

    run(whole(), handler)


@pytest.mark.parametrize("login", [b"", LOGIN], ids=["before", "after"])
@pytest.mark.parametrize("size", [2**31, 2**32, 2**63, 2**64, 10**40])
@pytest.mark.parametrize("plus", [b"", b"+"])
def test_enormous_literals(login: bytes, size: int, plus: bytes) -> None:
    """They are refused when they are announced; what is sent of them anyway is not kept."""
    for command in (b"LOGIN", b"APPEND INBOX", b"SEARCH TEXT", b"CREATE", b"ID ("):
        enormous_literal(login, size, plus, command)


def enormous_literal(login: bytes, size: int, plus: bytes, command: bytes) -> None:
    handler = DirectHandler(MemoryAccount())
    client = handler.connect()

    async def whole() -> None:
        client.send(login + b"z %b {%d%b}\r\n" % (command, size, plus))
        await client.settle()
        answer = client.read()
        assert b"z BAD" in answer or b"z NO" in answer, answer
        assert b"\r\n+ " not in answer
        if not client.is_closing():
            client.send(b"x" * 300_000 if plus else b"y NOOP\r\n")
            await client.settle()
            assert client.protocol.engine.buffered == 0
            assert plus or client.read() == b"y OK NOOP completed.\r\n"
        client.lose()

    run(whole(), handler)


def test_many_commands_of_a_client_that_does_not_read() -> None:
    """What 100,000 commands are answered waits for the client, and so do the commands."""
    commands = b"".join(b"%d NOOP\r\n" % number for number in range(100_000))
    handler = DirectHandler(MemoryAccount([MESSAGE]))
    client = handler.connect(UNREAD)
    answers: list[bytes] = []

    async def whole() -> None:
        client.send(LOGIN)
        await client.settle()
        client.read()
        sent = waits = 0
        while sent < len(commands) or client.output:
            while client.reading and sent < len(commands):
                client.send(commands[sent : sent + 16_384])
                sent += 16_384
                await asyncio.sleep(0)
                assert client.protocol.engine.buffered <= READ_AHEAD + 16_384
            await client.settle()
            assert len(asyncio.all_tasks()) <= 2
            waits += 1
            answers.append(client.read())
            await client.settle()
        assert waits > len(commands) // (READ_AHEAD + 2 * UNREAD + 65_536)
        client.lose()

    run(whole(), handler)
    tagged = b"".join(answers).splitlines()
    assert tagged == [b"%d OK NOOP completed." % number for number in range(100_000)]
    assert client.most <= MOST_UNREAD


@pytest.mark.parametrize("items", [b"BODY.PEEK[]", b"(UID BODY.PEEK[TEXT] BODY.PEEK[1])"])
def test_slow_readers_of_large_messages(items: bytes) -> None:
    """Of what is fetched, a session holds a little, however large the messages are."""
    large = MESSAGE + b"0123456789abcd\r\n" * 40_000
    handler = DirectHandler(MemoryAccount([large] * 20))
    clients = [handler.connect(UNREAD) for _ in range(20)]
    rng = random.Random(0)

    async def whole() -> None:
        read = dict.fromkeys(clients, 0)
        for client in clients:
            client.send(LOGIN + b"f FETCH 1:* " + items + b"\r\n")
        ended: set[DirectTransport] = set()
        while len(ended) < len(clients):
            client = rng.choice([one for one in clients if one not in ended])
            await client.settle()
            data = client.read()
            read[client] += len(data)
            if data.endswith(b"f OK Fetch completed.\r\n"):
                ended.add(client)
        times = items.count(b"PEEK")
        assert min(read.values()) > 5 * times * 640_000
        for client in clients:
            client.lose()

    run(whole(), handler)
    assert max(client.most for client in clients) <= MOST_UNREAD
