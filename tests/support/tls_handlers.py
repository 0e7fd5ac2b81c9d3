"""Handlers that the tests of TLS name in configurations: ``handler = "support.tls_handlers:Tell"``.

Rules of this file: what a test wants to know of the server's side is told to the client.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import ClassVar

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.runtime.tls.pem import KeyPair
from support.serving_handlers import Echo, EchoProtocol


class TellProtocol(EchoProtocol):
    """An echo that answers ``tell`` with what it knows of its connection, as a line of JSON."""

    def data_received(self, data: bytes) -> None:
        if data != b"tell":
            super().data_received(data)
            return
        session: ssl.SSLObject = self.transport.get_extra_info("ssl_object")
        told = {
            "tls": self.info.tls,
            "peer": self.info.peer,
            "alpn": session.selected_alpn_protocol(),
            "client": self.transport.get_extra_info("peercert"),
            "reused": session.session_reused,
        }
        self.transport.write(json.dumps(told).encode() + b"\n")


class Tell(Echo):
    """Client first."""

    name: ClassVar[str] = "tell"
    alpn: ClassVar[tuple[str, ...]] = ("tell/2", "tell/1")

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        return TellProtocol(self, info)


class Greet(Tell):
    """With a greeting, and Python objects at the first byte."""

    server_speaks_first: ClassVar[bool] = True
    lazy: ClassVar[bool] = True
    greeting = b"hello\n"


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the names of a certificate's and a key's file, go over to TLS, then shout."""
    cert, key = [(await reader.readline()).decode().strip() for _ in range(2)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    KeyPair(Path(cert).read_bytes(), Path(key).read_bytes()).load_into(context)
    writer.write(b"go\n")
    await writer.start_tls(context)
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
