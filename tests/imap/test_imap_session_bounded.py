"""What one command may cost: memory of a response, and turns of the loop that others need.

Rules of this file: no sockets; what has been written and not read is counted, and so is how often
others had their turn. Nothing depends on how long anything takes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.imap_direct import DirectHandler, DirectTransport
from support.memory_store import MemoryAccount, MemoryFolder

from fastlisten.handlers.imap import engine_protocol, fetching, message_content, searching
from fastlisten.handlers.imap.engine_protocol import MOST_PENDING
from fastlisten.handlers.imap.message_commands import STORED_AT_ONCE
from fastlisten.handlers.imap.message_content import PIECE
from fastlisten.mail.mime.compact import pack
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.store.interface import Facts, Listed, Stored

LOGIN = b"a LOGIN alice wonder\r\nb SELECT INBOX\r\n"

#: Octets after which the transport pauses writing, and what may then be unread.
UNREAD = 64 * 1024
MOST_UNREAD = UNREAD + 2 * MOST_PENDING + 2 * PIECE

FOLDERS = 4000


class ManyFolders(MemoryAccount):
    """Has folders of long names, all subscribed."""

    async def folders(self) -> Sequence[Listed]:
        return [Listed(f"{'a' * 100}{number}", subscribed=True) for number in range(FOLDERS)]


async def answer(mail: MemoryAccount, command: bytes) -> tuple[bytes, DirectTransport]:
    """Return what is said to a command, and the transport."""
    session = DirectHandler(mail).connect(UNREAD)
    session.send(LOGIN)
    await session.settle()
    session.read()
    session.most = 0
    session.send(b"c " + command + b"\r\n")
    said = b""
    while b"\r\nc " not in b"\r\n" + said[-500:]:
        await session.settle()
        said += session.read()
        assert len(said) < 100_000_000
    session.lose()
    return said, session


@pytest.mark.parametrize(
    "sections",
    [
        [b"BODY.PEEK[]<0.%d>" % (60_000 + number) for number in range(200)],
        [b"BODY.PEEK[TEXT]<%d.60000>" % number for number in range(200)],
    ],
    ids=["partial", "shifted"],
)
def test_many_sections_of_one_message(sections: list[bytes]) -> None:
    message = b"Subject: x\r\n\r\n" + b"x" * 65_000

    async def main() -> None:
        items = b" ".join([b"UID", *sections, b"FLAGS"])
        said, session = await answer(MemoryAccount([message]), b"FETCH 1 (" + items + b")")
        assert said.startswith(b"* 1 FETCH (UID 1 BODY[")
        assert said.endswith(b" FLAGS ())\r\nc OK Fetch completed.\r\n")
        assert said.count(b" BODY[") == len(sections)
        assert len(said) > 200 * 60_000
        assert session.most <= MOST_UNREAD

    asyncio.run(main())


@pytest.mark.parametrize("command", [b'LIST "" "*a*"', b'LSUB "" "*a*"'])
def test_lists_are_written_in_pieces(command: bytes) -> None:
    async def main() -> None:
        said, session = await answer(ManyFolders(), command)
        assert said.count(b"\r\n") == FOLDERS + 1
        assert session.most <= MOST_UNREAD

    asyncio.run(main())


@pytest.mark.parametrize(
    "command",
    [
        b'LIST "" ("' + b"*a" * 100 + b'*b" "' + b"%a" * 100 + b'*c")',
        b'LIST (SUBSCRIBED RECURSIVEMATCH) "" "' + b"*a" * 100 + b'*b"',
        b'LSUB "" "' + b"*a" * 100 + b'*b"',
    ],
    ids=["list", "recursive", "lsub"],
)
def test_others_have_their_turn_while_names_are_compared(
    command: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_protocol, "TURN", -1.0)  # the turn of others comes at once

    async def main() -> None:
        turns, said = await turns_during(ManyFolders(), command)
        assert said.endswith((b"OK List completed.\r\n", b"OK Lsub completed.\r\n"))
        assert turns > FOLDERS

    asyncio.run(main())


@pytest.mark.parametrize("name", [b"LIST", b"LSUB"])
def test_a_long_reference(name: bytes) -> None:
    """It stands before each pattern, however many there are."""

    async def main() -> None:
        patterns = b"(" + b" ".join(b"p%d" % number for number in range(3000)) + b")"
        reference = b'"' + b"r" * 30_000 + b'" '
        said, _ = await answer(ManyFolders(), b"LIST " + reference + patterns)
        assert said == b"c NO [LIMIT] Mailbox patterns are too long\r\n"
        said, _ = await answer(ManyFolders(), name + b" " + reference + b"*")
        assert said == b"c OK %b completed.\r\n" % name.capitalize()

    asyncio.run(main())


@pytest.mark.parametrize("parts", [1, 8000])
def test_many_parts_are_worked_on_in_threads(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Anybody can send such a message: the loop would stand still for 0.2 s at each FETCH."""
    threads: dict[str, bool] = {}

    def noting(name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def noted(value: Any) -> Any:
            threads[name] = threading.current_thread() is not threading.main_thread()
            return function(value)

        return noted

    for name in ("parse", "pack", "unpack"):
        monkeypatch.setattr(message_content, name, noting(name, getattr(message_content, name)))
    for item, function in fetching._STRUCTURED.items():
        monkeypatch.setitem(fetching._STRUCTURED, item, noting(str(item), function))
    message = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * parts
    packed = pack(parse(message))

    class Keeping(MemoryFolder):
        async def facts(self, uids: Sequence[int]) -> Sequence[Facts]:
            return [replace(one, structure=packed) for one in await super().facts(uids)]

    class KeepsStructures(MemoryAccount):
        async def open(self, name: str, *, read_only: bool = False) -> MemoryFolder:
            return Keeping(self, self._mailbox(name), read_only=read_only)

    async def main() -> None:
        for kind in (MemoryAccount, KeepsStructures):
            said, _ = await answer(kind([message]), b"FETCH 1 (BODYSTRUCTURE BODY ENVELOPE)")
            assert said.endswith(b"c OK Fetch completed.\r\n")

    asyncio.run(main())
    assert threads == dict.fromkeys(
        ["parse", "pack", "unpack", "BODYSTRUCTURE", "BODY", "ENVELOPE"], parts > 1
    )


@pytest.mark.parametrize("fields", [1, 3000])
@pytest.mark.parametrize(
    "command",
    [
        b"FETCH 1 BODY.PEEK[HEADER.FIELDS (A)]",
        b"FETCH 1 BODY.PEEK[1.HEADER.FIELDS (A)]",
        b"FETCH 1 ENVELOPE",
        b"SEARCH SUBJECT x",
        b"SEARCH SENTON 1-Jan-2026",
    ],
)
def test_long_headers_are_looked_through_in_threads(
    monkeypatch: pytest.MonkeyPatch, fields: int, command: bytes
) -> None:
    """A megabyte takes 0.2 s."""
    elsewhere: set[bool] = set()

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            elsewhere.add(threading.current_thread() is not threading.main_thread())
            return function(*arguments, **options)

        return noted

    for module, name in (
        (message_content, "select_fields"),
        (message_content, "parse"),
        (searching, "_sent"),
        (searching, "fields"),
    ):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    header = b"A: b\r\n" * fields + b"\r\n"
    inner = b"Content-Type: message/rfc822\r\n\r\n" if b"[1." in command else b""

    async def main() -> None:
        said, _ = await answer(MemoryAccount([inner + header]), command)
        assert said.startswith((b"* 1 FETCH (", b"* SEARCH"))
        assert b"\r\nc OK " in said

    asyncio.run(main())
    # A message of this size with another one in it is parsed on the loop.
    assert elsewhere == ({False, fields > 1} if inner else {fields > 1})


async def turns_during(mail: MemoryAccount, command: bytes) -> tuple[int, bytes]:
    """Return how often others had their turn until a command was answered, and the answer."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    said, _ = await answer(mail, command)
    task.cancel()
    return turns, said


def test_others_have_their_turn_during_a_search_of_many_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each goes through all messages: 3,000 keys and 50,000 messages took 14 s."""
    monkeypatch.setattr(engine_protocol, "TURN", -1.0)
    keys = b" ".join(b"NOT KEYWORD k%d" % number for number in range(1000))

    async def main() -> None:
        turns, said = await turns_during(MemoryAccount([b"x"] * 3), b"SEARCH " + keys)
        assert said == b"* SEARCH 1 2 3\r\nc OK Search completed.\r\n"
        assert turns > 1000

    asyncio.run(main())


def test_flags_of_many_messages_are_changed_some_at_a_time() -> None:
    sizes: list[int] = []

    class Counting(MemoryFolder):
        async def store(self, uids: Sequence[int], *arguments: Any) -> Stored:
            sizes.append(len(uids))
            return await super().store(uids, *arguments)

    class Counted(MemoryAccount):
        async def open(self, name: str, *, read_only: bool = False) -> MemoryFolder:
            return Counting(self, self._mailbox(name), read_only=read_only)

    async def main() -> None:
        mail = Counted([b"x"] * (2 * STORED_AT_ONCE + 1))
        said, _ = await answer(mail, b"STORE 1:* +FLAGS (\\Seen)")
        assert said.count(b" FETCH (FLAGS (\\Seen") == 2 * STORED_AT_ONCE + 1
        assert sizes == [STORED_AT_ONCE, STORED_AT_ONCE, 1]
        # MODIFIED names messages of all of them.
        said, _ = await answer(mail, b"STORE 1:* (UNCHANGEDSINCE 1) -FLAGS (\\Seen)")
        assert b"[MODIFIED 1:%d]" % (2 * STORED_AT_ONCE + 1) in said

    asyncio.run(main())
