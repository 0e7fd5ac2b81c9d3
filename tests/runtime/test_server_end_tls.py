"""The end of a server whose clients never answer close_notify: they do not hold it up."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from support.loops import on_loops
from support.raw_client import RawClient
from support.tls_client import TlsClient

from fastlisten import Server
from fastlisten.config import loads
from fastlisten.runtime import listener as runtime_listener

pytestmark = pytest.mark.usefixtures("descriptors_back")


@on_loops
async def test_clients_that_do_not_answer_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_listener, "_CLOSE_NOTIFY_TIMEOUT", 0.2)
    text = (
        f'[server]\ndata-directory = "{tmp_path}"\nshutdown-timeout = "1h"\n'
        '[server.listener.it]\nprotocol = "http"\nbind = "127.0.0.1:0"\ntls.implicit = true\n'
        'handler = "support.serving_handlers:Echo"\n'
    )
    server = Server(loads(text))
    await server.startup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    raw = await RawClient.connect(("127.0.0.1", server.listeners[0].sockets[0].port))
    client = await TlsClient(raw, context, name=None).handshake()
    await client.send(b"x")
    assert await client.receive(1) == b"x"
    # A client has ten seconds for a farewell otherwise.
    await asyncio.wait_for(server.shutdown(), 7)
    assert await client.receive(100) == b"farewell: shutdown\n"
    raw.close()
