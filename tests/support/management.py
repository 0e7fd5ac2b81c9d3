"""A running server with its management application, and clients of that.

Rules of this file: no test in it. The application is called as ASGI, without a socket; only
test_management_served.py uses the program.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp

from fastlisten.handlers.base import HandlerSettings
from fastlisten.management.app import application
from fastlisten.management.token_file import FILE_NAME
from fastlisten.runtime.control import Control
from fastlisten.runtime.server import Server
from support.server import served

#: Valid listener ids that need escaping in a path, in HTML, in a metric's label or in a log.
IDS = ("smtp", "a/b", "", " ", ".", "%2F", "<b>&\"'", 'x"} 1\n', "\\", "später", "\0\x1b[2J", "?#")


def listener(id: str, *more: str, handler: str = "Echo") -> str:
    """Return the configuration of a listener on an ephemeral port."""
    quoted = "".join(one if one.isalnum() else f"\\U{ord(one):08x}" for one in id)
    lines = [
        f'[server.listener."{quoted}"]',
        'protocol = "smtp"',
        f'handler = "support.serving_handlers:{handler}"',
        'bind = ["127.0.0.1:0"]',
        *more,
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Managed:
    """A running server and its management application.

    Attributes:
        server: the server.
        app: the application.
        token: the token that allows changes.
    """

    server: Server
    app: ASGIApp
    token: str

    def client(
        self,
        token: str | None = None,
        *,
        peer: tuple[str, int] = ("127.0.0.1", 40000),
        base: str = "http://localhost",
        **headers: str,
    ) -> httpx.AsyncClient:
        """Return a client.

        Args:
            token: the token to send; None for none.
            peer: the client's address.
            base: the base URL.
            headers: additional headers, with underscores for hyphens.
        """
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, client=peer), base_url=base, headers=sent
        )

    def manager(self) -> httpx.AsyncClient:
        """Return a client with the token."""
        return self.client(self.token)


@contextlib.asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[list[dict[str, Any]]]:
    """Run an application's lifespan for the length of a block; yield its messages."""
    said: asyncio.Queue[Any] = asyncio.Queue()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    heard.put_nowait({"type": "lifespan.startup"})
    running: Any = app({"type": "lifespan"}, heard.get, said.put)
    task: asyncio.Task[None] = asyncio.create_task(running)
    answers = [await said.get()]
    yield answers
    if answers[0]["type"] == "lifespan.startup.complete":
        heard.put_nowait({"type": "lifespan.shutdown"})
        answers.append(await said.get())
    await task


def settings(
    server: Server, directory: Path, control: Control | None = None, **options: Any
) -> HandlerSettings:
    """Return the settings of a listener with the management application.

    Args:
        server: the server.
        directory: the directory for the token.
        control: by default that of the server.
        options: of the listener.
    """
    return HandlerSettings(
        "management",
        "http",
        "mx.example.org",
        data_directory=str(directory),
        options=options,
        extra={"control": control or server.control},
    )


@contextlib.asynccontextmanager
async def managed(directory: Path, *listeners: str, text: str = "") -> AsyncIterator[Managed]:
    """Serve listeners and manage them for the length of a block.

    Args:
        directory: the directory for the token.
        listeners: the configuration of each; by default one called "it".
        text: additional lines of ``[server]``.
    """
    head = f'[server]\ndata-directory = "{directory}"\ntls.enable = false\n'
    async with served(head + text + "".join(listeners or (listener("it"),))) as server:
        app = application(settings(server, directory))
        async with lifespan(app) as said:
            assert said[0] == {"type": "lifespan.startup.complete"}
            yield Managed(server, app, (directory / FILE_NAME).read_text().strip())
