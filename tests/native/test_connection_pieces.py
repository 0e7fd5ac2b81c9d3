"""What is written in small pieces, or is no bytes, and the name of a connection to a wildcard."""

from __future__ import annotations

import array
import asyncio
import socket

import pytest
from support.listener import Echo, bound_socket, crowd_of, listening, small_sender
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")


def test_pieces_until_the_kernel_takes_none(loop_factory: LoopFactory) -> None:
    """The kernel takes a piece whole, and none of the next: that one is kept."""

    async def main() -> None:
        async with (
            listening(sock=small_sender()) as listener,
            crowd_of(listener, 1, receive_buffer=2048) as clients,
        ):
            await eventually(lambda: listener.protocols)
            transport = listener.protocols[0].transport
            written = bytearray()
            while not transport.get_write_buffer_size():
                piece = bytes([len(written) % 251])
                transport.write(piece)
                written += piece
            assert transport.get_write_buffer_size() == 1
            assert await clients[0].receive(len(written)) == written
            assert not transport.is_closing()

    run(loop_factory, main)


def test_writelines_of_other_things_than_bytes(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening() as listener, crowd_of(listener, 1) as clients:
            await eventually(lambda: listener.protocols)
            transport = listener.protocols[0].transport
            with pytest.raises(TypeError):
                transport.writelines([b"a", 5])
            numbers = array.array("H", [1, 2, 3])
            transport.writelines([bytearray(b"one"), memoryview(b"two"), b"", numbers])
            expected = b"onetwo" + numbers.tobytes()
            assert await clients[0].receive(len(expected)) == expected

    run(loop_factory, main)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_to_a_wildcard_has_the_address_it_came_to(
    loop_factory: LoopFactory, family: socket.AddressFamily
) -> None:
    async def main() -> None:
        wildcard, own = ("0.0.0.0", "127.0.0.1") if family == socket.AF_INET else ("::", "::1")
        async with listening(Echo, bound_socket(family, (wildcard, 0))) as listener:
            port = listener.address[1]
            client = await RawClient.connect((own, port))
            await eventually(lambda: listener.protocols)
            transport = listener.protocols[0].transport
            assert transport.get_extra_info("sockname")[:2] == (own, port)
            client.close()
            await eventually(lambda: listener.acceptor.connections == 0)
            await asyncio.sleep(0)
            assert transport.get_extra_info("sockname")[:2] == (own, port)

    run(loop_factory, main)
