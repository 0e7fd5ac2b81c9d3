"""KeyboardInterrupt and SystemExit in callbacks over TLS leave the loop, as they do with asyncio.

Rules of this file: as in test_connection_interrupt. Only the exception that leaves the loop is
compared: after it, asyncio's transports and ours are torn down from wherever they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from typing import Any

import pytest
from support.loops import LoopFactory
from support.tls_world import TlsClient, TlsRecorder, TlsWorld
from support.world import CALLBACKS, Hook

pytestmark = pytest.mark.usefixtures("descriptors_back")


def interrupted(
    callback: str, kind: type[BaseException], loop_factory: LoopFactory, *, native: bool
) -> str:
    """Raise in a callback; return the exception that left the loop."""

    def raising(*_: Any) -> None:
        raise kind("out of here")

    async def main() -> None:
        world = TlsWorld(native)
        hooks: dict[str, Hook] = {callback: raising}

        def factory() -> TlsRecorder:
            if callback == "factory":
                raising()
            return TlsRecorder(world, hooks)

        try:
            await world.serve(factory, send_buffer=8192)
            client = await TlsClient(await world.connect(receive_buffer=4096)).handshake()
            await world.until("connection_made")
            await client.send(b"data")
            await world.until("data_received")
            for size in (200_000, 800_000):
                world.transports[0].write(bytes(size))
            await client.receive(1_000_000)
            await world.settle()
            await client.notify()
            await world.until("connection_lost")
            await world.settle()
        finally:
            hooks.clear()
            # What was interrupted in the middle of asyncio's chain of callbacks stays there.
            with contextlib.suppress(Exception):
                await world.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            runner.run(main())
        except BaseException as exc:
            return type(exc).__name__
    return "nothing"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("callback", ["factory", *CALLBACKS])
def test_exception_leaves_the_loop(
    loop_factory: LoopFactory, callback: str, kind: type[BaseException]
) -> None:
    with warnings.catch_warnings():
        # asyncio leaves sockets and transports to the garbage collector, which warns about them.
        warnings.simplefilter("ignore", ResourceWarning)
        expected = interrupted(callback, kind, asyncio.SelectorEventLoop, native=False)
        gc.collect()
    assert expected == kind.__name__
    assert interrupted(callback, kind, loop_factory, native=True) == expected
