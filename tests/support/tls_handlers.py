"""Handlers for configurations of TLS tests: ``handler = "support.tls_handlers:Tell"``.

Rules of this file: the client is told what a test needs to know about the server's side.
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
    """An echo that answers ``tell`` with a line of JSON about its connection."""

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
    """The client speaks first."""

    name: ClassVar[str] = "tell"
    alpn: ClassVar[tuple[str, ...]] = ("tell/2", "tell/1")

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        return TellProtocol(self, info)


class Greet(Tell):
    """The same with a greeting; Python objects are created at the first byte."""

    server_speaks_first: ClassVar[bool] = True
    lazy: ClassVar[bool] = True
    greeting = b"hello\n"


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the file names of a certificate and a key, begin TLS, then reply in capitals."""
    cert, key = [(await reader.readline()).decode().strip() for _ in range(2)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    KeyPair(Path(cert).read_bytes(), Path(key).read_bytes()).load_into(context)
    writer.write(b"go\n")
    await writer.start_tls(context)
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
