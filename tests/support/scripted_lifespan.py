"""ASGI applications whose lifespan follows a script."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["STARTED", "ScriptedLifespan", "message"]


class ScriptedLifespan:
    """An application whose lifespan follows a script: what to send, to raise, or to wait for."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps
        self.told: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        for step in self.steps:
            if step == "receive":
                self.told.append((await receive())["type"])
            elif isinstance(step, BaseException):
                raise step
            elif isinstance(step, dict):
                await send(step)
            else:
                await asyncio.sleep(step)


def message(kind: str, text: str = "") -> dict[str, str]:
    return {"type": f"lifespan.{kind}"} | ({"message": text} if text else {})


STARTED = ("receive", message("startup.complete"), "receive")
