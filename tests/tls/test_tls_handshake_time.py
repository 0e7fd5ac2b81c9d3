"""Handshakes that do not end, and what follows a handshake: the first byte, the greeting.

Rules of this file: as in test_tls_handshake.
"""

from __future__ import annotations

import asyncio

import pytest
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.tls_contexts import client_context
from support.tls_listener import client_hello, everything, talk, tls_listening

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: A handshake timeout that tests wait for, seconds.
SHORTLY = 0.1


@pytest.mark.parametrize("said", ["nothing", "half", "hello", "drops"])
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_handshake_timeout(loop_factory: LoopFactory, said: str, lazy: bool) -> None:
    """It runs from accept to the end of the handshake, whatever the client sends meanwhile."""

    async def main() -> None:
        hello = client_hello()
        async with tls_listening(handshake_timeout=SHORTLY, lazy=lazy) as listener:
            begin = asyncio.get_running_loop().time()
            client = await listener.connect()
            if said == "half":
                await client.send(hello[: len(hello) // 2])
            elif said == "hello":
                await client.send(hello)
                assert await client.read()
            elif said == "drops":
                with_care = asyncio.create_task(drip(client, hello[:-1]))
            answer = await everything(client)
            assert asyncio.get_running_loop().time() - begin >= SHORTLY * 0.9
            assert said == "hello" or answer[:1] in (b"", b"\x15")
            if said == "drops":
                with_care.cancel()
                await asyncio.gather(with_care, return_exceptions=True)
            client.close()
            await listener.empty()
            assert listener.count("handshake_failures") == 1
            # The timeout is for the handshake only.
            await talk(listener.address)

    async def drip(client: RawClient, data: bytes) -> None:
        for i in range(len(data)):
            await client.send(data[i : i + 1])
            await asyncio.sleep(0.01)

    run(loop_factory, main)


def test_first_byte_timeout_starts_after_the_handshake(loop_factory: LoopFactory) -> None:
    """The reply at the timeout is encrypted."""

    async def main() -> None:
        async with tls_listening(
            first_byte=0.3, lazy=True, farewell_first_byte=b"too slow\r\n", greeting=b"hello\r\n"
        ) as listener:
            reader, writer = await asyncio.open_connection(
                *listener.address, ssl=client_context(), server_hostname="localhost"
            )
            assert await reader.readline() == b"hello\r\n"
            assert listener.protocols == []
            assert await reader.read() == b"too slow\r\n"
            assert listener.protocols == []
            writer.close()
            await writer.wait_closed()
            await listener.empty()
            assert listener.count("handshake_failures") == 0

    run(loop_factory, main)


def test_greeting_and_lazy_protocol_after_the_handshake(loop_factory: LoopFactory) -> None:
    """The greeting comes after the handshake, the protocol at the first decrypted byte."""

    async def main() -> None:
        async with tls_listening(lazy=True, greeting=b"hello\r\n") as listener:
            reader, writer = await asyncio.open_connection(
                *listener.address, ssl=client_context(), server_hostname="localhost"
            )
            assert await reader.readline() == b"hello\r\n"
            assert listener.protocols == []
            writer.write(b"word")
            assert await reader.readexactly(4) == b"word"
            assert len(listener.protocols) == 1
            writer.close()
            await writer.wait_closed()
            await listener.empty()

    run(loop_factory, main)
