"""Handlers of aiosmtpd's kind, named in test configurations; they don't need aiosmtpd."""

from __future__ import annotations

import asyncio
from typing import Any


class Describes:
    """Describes each message, and its own arguments, in the reply.

    Its auth_url is a plain attribute, not a mechanism.
    """

    auth_url = "https://example.org/"

    def __init__(self, first: str = "-", second: str = "-") -> None:
        self.words = f"{first} {second}"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        login = getattr(session.auth_data, "login", b"nobody").decode()
        to, size = ",".join(envelope.rcpt_tos), len(envelope.content)
        return f"250 {login}: {envelope.mail_from} to {to}, {size}, made with {self.words}"


class FromCli(Describes):
    @classmethod
    def from_cli(cls, parser: Any, *arguments: str) -> FromCli:
        if len(arguments) != 1:
            parser.error("FromCli usage: one word")
        return cls(arguments[0], "from_cli")


class HasMechanism(Describes):
    """Has an AUTH mechanism of its own."""

    async def auth_KNOCK(self, server: Any, arguments: list[str]) -> Any:
        return await server.challenge_auth("who is there?") == b"me"


class CannotStart(Describes):
    def __init__(self) -> None:
        raise OSError("there is no database")


class Waits(Describes):
    """Sets `began` when its hook runs, and waits for `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = asyncio.Event(), asyncio.Event()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.began.set()
        await self.go.wait()
        return await super().handle_DATA(server, session, envelope)


NOT_A_CLASS = "text"
