"""Connections that are lost between two iterations of the loop, at each step of a session.

Rules of this file: no sockets, so that the moment is exact. Whatever a session has taken (account,
notices, tasks) is given back.
"""

from __future__ import annotations

import asyncio

import pytest
from support.imap_direct import DirectHandler
from support.imap_server import MESSAGE
from support.memory_store import MemoryAccount

BEFORE = b"a LOGIN alice wonder\r\n"

#: What a client says last, after login and SELECT.
LAST = (
    b"l NOOP", b"l SELECT INBOX", b"l FETCH 1:* BODY[]", b"l STORE 1 +FLAGS (\\Seen)",
    b"l SEARCH TEXT body", b"l IDLE", b"l IDLE\r\nDONE", b"l COPY 1 INBOX", b"l EXPUNGE",
    b"l APPEND INBOX {5+}\r\nabc", b"l APPEND INBOX {5+}\r\nabcde", b'l LIST "" *', b"l LOGOUT",
    b"l APPEND INBOX {5}", b"l CLOSE", b"l STATUS INBOX (MESSAGES)",
)  # fmt: skip


async def lose_after(commands: bytes, iterations: int) -> DirectHandler:
    """Send commands, let the loop run some iterations, lose the connection; wait for the rest."""
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    handler = DirectHandler(MemoryAccount([MESSAGE] * 3))
    client = handler.connect()
    client.send(commands)
    for _ in range(iterations):
        await asyncio.sleep(0)
    client.lose()
    while handler.unfinished or len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0)
    assert faults == []
    return handler


@pytest.mark.parametrize("iterations", range(5))
def test_lost_while_logging_in(iterations: int) -> None:
    handler = asyncio.run(lose_after(BEFORE, iterations))
    assert handler.opened == 0


@pytest.mark.parametrize("last", LAST)
def test_lost_after_a_command(last: bytes) -> None:
    for iterations in range(24):
        commands = BEFORE + b"b SELECT INBOX\r\n" + last + b"\r\n"
        handler = asyncio.run(lose_after(commands, iterations))
        assert handler.opened == 0, iterations
        assert handler.mail.watchers == {}, iterations
