"""How log lines name a client: always ``[address]:port``, or ``[unix]`` on a Unix socket."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from fastlisten.config import loads
from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.http.transport import client_name
from fastlisten.runtime.server import Server

DIALOGUE = (
    b"LHLO client\r\nMAIL FROM:<s@b.test>\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<x@b.test>\r\n"
    b"DATA\r\n\r\nhello\r\n.\r\nQUIT\r\n"
)


async def deliver(tmp_path: Path) -> None:
    (tmp_path / "accounts.toml").write_text('[account."a@b.test"]\n')
    config = loads(
        f"[server]\ndata-directory = '{tmp_path}'\n"
        f"[server.listener.it]\nprotocol = 'lmtp'\nbind = 'unix:{tmp_path}/lmtp'\n"
    )
    async with Server(config):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "lmtp"))
        writer.write(DIALOGUE)
        assert b"250 2.0.0 " in await reader.read()
        writer.close()
        await writer.wait_closed()


def test_client_on_a_unix_socket_in_all_log_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fastlisten")
    asyncio.run(deliver(tmp_path))
    lines = caplog.messages
    assert any("from <s@b.test> at [unix] to a@b.test: " in line for line in lines)
    # 451: the accounts file is so new that it might be half written.
    assert any("reject: RCPT from [unix]: 451 " in line for line in lines)
    assert any("it: [unix] ended: quit; " in line for line in lines)
    assert 'listener "it": connection from [unix]' in lines


@pytest.mark.parametrize(
    ("peer", "port", "name"),
    [("127.0.0.1", 5, "[127.0.0.1]:5"), ("::1", 5, "[::1]:5"), ("", 0, "[unix]")],
)
def test_client_address_in_http_log_lines(peer: str, port: int, name: str) -> None:
    assert client_name(ConnectionInfo("web", peer, port, tls=False)) == f'listener "web": {name}'
