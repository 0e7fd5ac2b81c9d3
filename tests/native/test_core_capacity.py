"""Accepting stops at the process's capacity, and resumes when there is a little room.

Arming every listener for each connection that ends would be costly, so a 64th of the capacity must
be free first.
"""

from __future__ import annotations

import pytest
from support.listener import crowd_of, listening
from support.loops import LoopFactory, run
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"


@pytest.mark.parametrize(("capacity", "room"), [(63, 1), (64, 2), (127, 2), (128, 3)])
def test_accepting_resumes_when_a_64th_is_free(
    loop_factory: LoopFactory, capacity: int, room: int
) -> None:
    async def main() -> None:
        async with (
            listening(greeting=GREETING, server_first=True) as one,
            listening(greeting=GREETING, server_first=True) as other,
        ):
            engine = one.engine
            engine.set_capacity(capacity)
            async with crowd_of(one, capacity) as clients:
                await eventually(lambda: engine.open == capacity)
                # A client that comes now finds that there is no room.
                async with crowd_of(other, 1) as late:
                    await eventually(lambda: not one.acceptor.accepting)
                    for client in clients[1:room]:
                        held = engine.open
                        client.close()
                        await eventually(lambda held=held: engine.open < held)  # type: ignore[misc]
                        assert not one.acceptor.accepting
                        assert not other.acceptor.accepting
                    assert late[0].at_hand() is None
                    clients[0].close()
                    assert await late[0].read() == GREETING
                    # With room for only one, the process is full again.
                    assert one.acceptor.accepting is other.acceptor.accepting is (room > 1)

    run(loop_factory, main)


def test_a_larger_capacity_is_used_at_once(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening(greeting=GREETING, server_first=True) as one:
            one.engine.set_capacity(2)
            async with crowd_of(one, 2), crowd_of(one, 1) as late:
                await eventually(lambda: not one.acceptor.accepting)
                one.engine.set_capacity(3)
                assert await late[0].read() == GREETING

    run(loop_factory, main)
