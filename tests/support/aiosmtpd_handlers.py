"""Handlers of aiosmtpd's kind that configurations of the tests name; they do without aiosmtpd."""

from __future__ import annotations

import asyncio
from typing import Any


class Tell:
    """Answers a message with what it was told, and made with.

    Its auth_url is a setting, and no mechanism.
    """

    auth_url = "https://example.org/"

    def __init__(self, first: str = "-", second: str = "-") -> None:
        self.words = f"{first} {second}"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        login = getattr(session.auth_data, "login", b"nobody").decode()
        to, size = ",".join(envelope.rcpt_tos), len(envelope.content)
        return f"250 {login}: {envelope.mail_from} to {to}, {size}, made with {self.words}"


class FromCli(Tell):
    @classmethod
    def from_cli(cls, parser: Any, *arguments: str) -> FromCli:
        if len(arguments) != 1:
            parser.error("FromCli usage: one word")
        return cls(arguments[0], "from_cli")


class Knows(Tell):
    """Has a mechanism of its own."""

    async def auth_KNOCK(self, server: Any, arguments: list[str]) -> Any:
        return await server.challenge_auth("who is there?") == b"me"


class Unmade(Tell):
    def __init__(self) -> None:
        raise OSError("there is no database")


class Slow(Tell):
    """Says when it has begun, and waits to be told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = asyncio.Event(), asyncio.Event()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.began.set()
        await self.go.wait()
        return await super().handle_DATA(server, session, envelope)


NOTHING = "no class"
