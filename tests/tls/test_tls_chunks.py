"""Chunks of any size, written over TLS to readers of any speed, arrive whole.

Rules of this file: property-based; the client's speed is drawn together with the chunks.
"""

from __future__ import annotations

import asyncio
import random
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tls_contexts import client_context
from support.tls_world import KINDS, TlsRecorder, TlsWorld, play_tls
from support.world import numbers

pytestmark = pytest.mark.usefixtures("descriptors_back")


@settings(max_examples=15)
@given(
    sizes=st.lists(
        st.one_of(st.integers(0, 40), st.integers(16_000, 17_000), st.integers(0, 200_000)),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 1000),
    version=st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]),
    kind=st.sampled_from(KINDS),
)
def test_chunks_of_any_size_arrive_whole(
    sizes: list[int], seed: int, version: ssl.TLSVersion, kind: str
) -> None:
    """The reader is sometimes slow and sometimes fast."""
    chunks = [numbers(size, seed + i) for i, size in enumerate(sizes)]
    total = sum(sizes)

    async def script(world: TlsWorld) -> None:
        chance = random.Random(seed)
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(
            receive_buffer=4096, context=client_context(version=version)
        )
        received = bytearray()
        for i, chunk in enumerate(chunks):
            if chance.random() < 0.5:
                transport.write(chunk)
            else:
                cut = chance.randrange(len(chunk) + 1)
                transport.writelines([chunk[:cut], chunk[cut:]])
            if chance.random() < 0.5:
                done = min(sum(sizes[: i + 1]), len(received) + chance.randrange(1, 60_000))
                received += await client.receive(done - len(received))
        received += await client.receive(total - len(received))
        assert received == b"".join(chunks)
        world.note("left", transport.get_write_buffer_size())

    log = play_tls(script, asyncio.SelectorEventLoop, kind=kind)
    assert log[-1] == ("left", 0)
