"""Clients whose first message is wrong: they get the alert, and no reset overtakes it."""

from __future__ import annotations

import pytest
from support.loops import LoopFactory, run
from support.tls_listener import tls_listening
from support.tls_world import KINDS, kind_of_api
from support.waiting import eventually

#: A record with a ClientHello in which nothing stands.
EMPTY_HELLO = bytes.fromhex("1603010004 01000000")

pytestmark = pytest.mark.usefixtures("descriptors_back")


@pytest.mark.parametrize("kind", KINDS)
def test_alert_and_end(loop_factory: LoopFactory, kind: str) -> None:
    async def main() -> None:
        async with tls_listening() as listener:
            listener.acceptor.pause()
            client = await listener.connect(first=EMPTY_HELLO + b"x" * 50_000)
            listener.acceptor.resume()
            received, end = await client.rest()
            # An alert is a record of type 21, and has two octets.
            assert received[:1] == b"\x15"
            assert len(received) == 7
            assert end == "eof"
            client.close()
            await eventually(lambda: listener.count("handshake_failures") == 1)

    with kind_of_api(kind):
        run(loop_factory, main)
