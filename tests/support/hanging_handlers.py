"""A handler and an application that never finish, for test configurations.

Rules of this file: no test in it; the server's process imports it.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Waits:
    """Hooks that never return."""

    async def handle_RCPT(self, *arguments: Any) -> str:
        await asyncio.get_running_loop().create_future()
        return "250 never"

    async def auth_WAITS(self, server: Any, arguments: Any) -> Any:
        return await server.challenge_auth("who?")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Never finish a response; ``/begun`` gets the beginning of one."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    if scope["path"] == "/begun":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
    await asyncio.get_running_loop().create_future()
