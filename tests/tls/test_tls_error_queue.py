"""OpenSSL's error queue belongs to a thread, not to a session (ERR_get_error(3)).

Rules of this file: whatever happens to a connection, the queue is empty afterwards. If a failed
system call stayed in it (OpenSSL 3.6 queues those), it would be taken for the error of the next
session in that thread: Python's ssl, for example, would fail with another connection's EPIPE.
"""

from __future__ import annotations

import _ssl
import ctypes

import pytest
from support.loops import LoopFactory
from support.tls_world import MUCH, TlsRecorder, TlsWorld, on_all_ways, play_tls
from support.world import numbers

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


def queued_error() -> int:
    """Return the first error in this thread's queue, 0 if there is none."""
    try:
        # The extension module of Python's ssl leads to the OpenSSL that it uses.
        peek = ctypes.CDLL(_ssl.__file__).ERR_peek_error
    except (AttributeError, OSError):
        pytest.skip("the OpenSSL of this Python cannot be called by ctypes")
    peek.restype = ctypes.c_ulong
    return int(peek())


@pytest.mark.parametrize("ending", ["reset", "eof"])
@pytest.mark.parametrize("writing", [False, True], ids=["reading", "writing"])
def test_failed_connection_leaves_no_error(
    loop_factory: LoopFactory, kind: str, writing: bool, ending: str
) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(receive_buffer=4096)
        if writing:
            transport.write(numbers(MUCH))
            await world.settle()
        if ending == "reset":
            client.reset()
        else:
            client.raw.close()
        await world.until("connection_lost")
        world.note("queued", queued_error())

    assert play_tls(script, loop_factory, kind=kind)[-1] == ("queued", 0)
