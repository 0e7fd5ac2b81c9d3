"""An IMAP session without a socket: its protocol object, and a transport that keeps its output.

Rules of this file: over the store in memory; the client counts as one over TLS, every password is
right. What a session takes (accounts, notices, tasks) is counted.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from fastlisten.handlers.base import ConnectionInfo, HandlerSettings
from fastlisten.handlers.imap.engine_protocol import EngineProtocol
from fastlisten.handlers.imap.handler import ImapHandler
from fastlisten.handlers.imap.idle_sessions import IdleSessions
from fastlisten.mail.accounts.roster import Account as Login
from fastlisten.mail.logins.logins import Logins
from fastlisten.mail.store.interface import Account
from support.memory_store import MemoryAccount

__all__ = ["DirectHandler", "DirectTransport"]


class AllLogins:
    """Every password is right, and nobody is a master."""

    has_masters = False

    def split(self, name: str) -> tuple[str, str]:
        return "", name

    async def check(self, name: str, *_: object) -> Login:
        await asyncio.sleep(0)
        return Login(name)


class DirectHandler(ImapHandler):
    """Makes sessions over messages in memory; it is neither started nor stopped.

    Attributes:
        mail: the messages.
        opened: accounts that sessions have open.
    """

    def __init__(self, mail: MemoryAccount) -> None:
        super().__init__(
            HandlerSettings(
                listener="imap",
                protocol="imap",
                hostname="mx.test",
                options={"sessions-per-user": None},
            )
        )
        self.idling = IdleSessions(lambda loop, then: None, lambda: None)
        self.mail = mail
        self.opened = 0

    @property
    def logins(self) -> Logins:
        return cast(Logins, AllLogins())

    @property
    def unfinished(self) -> set[asyncio.Task[None]]:
        """What is done for clients that have gone."""
        return self._unfinished

    def admits(self, login: Login) -> bool:
        return True

    def open_account(self, login: Login) -> Account:
        self.opened += 1
        return self.mail

    def close_account(self, login: Login) -> None:
        self.opened -= 1

    def connect(self, limit: int = 1 << 62) -> DirectTransport:
        """Return the transport of a new session.

        Args:
            limit: octets that the client leaves unread before writing pauses.
        """
        info = ConnectionInfo(listener="imap", peer="127.0.0.1", port=1, tls=True)
        return DirectTransport(self.connection(info), limit)


class DirectTransport(asyncio.Transport):
    """Keeps what is written until the client reads it.

    Attributes:
        protocol: the session's.
        output: what has been written and not been read.
        most: octets that have been unread at once.
        reading: whether the protocol takes input.
    """

    def __init__(self, protocol: EngineProtocol, limit: int) -> None:
        super().__init__()
        self.protocol = protocol
        self.output = bytearray()
        self.most = 0
        self.reading = True
        self._limit = limit
        self._closing = False
        self._paused = False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self._closing
        self.output += data
        self.most = max(self.most, len(self.output))
        if len(self.output) > self._limit and not self._paused:
            self._paused = True
            self.protocol.pause_writing()

    def read(self) -> bytes:
        """Read everything, as the client."""
        data = bytes(self.output)
        self.output.clear()
        if self._paused:
            self._paused = False
            self.protocol.resume_writing()
        return data

    def send(self, data: bytes) -> None:
        """Send octets, as the client, although the protocol may not read."""
        if not self._closing:
            self.protocol.data_received(data)

    async def settle(self) -> None:
        """Let the session work until it waits for the client."""
        seen: tuple[object, ...] = ()
        idle = 0
        while idle < 10:
            await asyncio.sleep(0)
            engine = self.protocol.engine
            now = (len(self.output), engine.buffered, engine.waiting, self.protocol.working)
            # While it works in a thread the loop has nothing to do.
            idle = idle + 1 if now == seen and not self._works() else 0
            seen = now

    def _works(self) -> bool:
        return self.protocol.working and not self._paused and not self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def lose(self) -> None:
        """Lose the connection, in this iteration of the loop."""
        if not self._closing:
            self._closing = True
            self.protocol.connection_lost(ConnectionResetError())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default
