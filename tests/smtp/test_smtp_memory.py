"""The memory of a session that is idle after EHLO, as most of thousands are.

Rules of this file: the limit is a tenth above the measurement, so that another version of Python
passes, and a few more objects per session fail.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path
from typing import Any

from support.accounts import write_accounts
from support.smtp_harness import ACCOUNTS, HOSTNAME

from fastlisten.handlers.base import ConnectionInfo, HandlerSettings
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.handlers.smtp.engine_protocol import EngineProtocol
from fastlisten.handlers.smtp.mail_session import MailSession

SESSIONS = 500

#: Octets; 750 with CPython 3.11, of which 73 are the client's name.
MOST = 800


class Nowhere(asyncio.Transport):
    """Discards what is written."""

    def write(self, data: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


def handler_in(directory: Path) -> SmtpHandler:
    write_accounts(directory / "accounts.toml", ACCOUNTS)
    return SmtpHandler(HandlerSettings("test", "smtp", HOSTNAME, data_directory=str(directory)))


def test_memory_of_an_idle_session(tmp_path: Path) -> None:
    handler, nowhere = handler_in(tmp_path), Nowhere()
    infos = [ConnectionInfo("test", "127.0.0.1", port) for port in range(SESSIONS)]
    names = [b"EHLO client%06d.example.com\r\n" % number for number in range(SESSIONS)]
    sessions: list[Any] = [None] * SESSIONS

    def begin(number: int) -> EngineProtocol:
        session = EngineProtocol(MailSession(handler, infos[number]))
        session.connection_made(nowhere)
        session.data_received(names[number])
        return session

    async def measure() -> float:
        await handler.start()
        begin(0)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(SESSIONS):
                sessions[number] = begin(number)
            gc.collect()
            return (tracemalloc.get_traced_memory()[0] - before) / SESSIONS
        finally:
            tracemalloc.stop()
            sessions.clear()
            await handler.stop()

    assert asyncio.run(measure()) < MOST
