"""start_tls that fails: clients that disconnect, timeouts, close meanwhile, cancelled futures.

Rules of this file: as in support.starttls_protocol.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

import pytest
from support.loops import LoopFactory
from support.starttls_protocol import COMMAND, GO_AHEAD, Starter, commanded
from support.tls_world import TlsClient, TlsWorld, no_session_left, on_all_ways, play_tls
from support.world import numbers

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]

#: A timeout that tests wait for, seconds.
SHORTLY = 0.15


@pytest.mark.parametrize("when", ["flushing", "waiting", "hello"])
@pytest.mark.parametrize("ending", ["eof", "reset"])
def test_client_disconnects(loop_factory: LoopFactory, kind: str, when: str, ending: str) -> None:
    """Both the future and connection_lost report it, once each."""
    answer = numbers(600_000) if when == "flushing" else GO_AHEAD

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: Starter(world, answer=answer), plain=True, send_buffer=4096)
        raw = await world.connect(receive_buffer=4096)
        await raw.send(COMMAND)
        if when == "flushing":
            await world.until("pause_writing")
        else:
            await raw.receive(len(GO_AHEAD))
        if when == "hello":
            client = TlsClient(raw)
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.do_handshake()
            await client.flush()
            await raw.receive(50)
        if ending == "reset":
            raw.reset()
        else:
            raw.finish()
            if when == "flushing":
                world.note("plaintext", (await raw.rest())[0] == answer)
        await world.until("connection_lost")
        await world.until("failed")
        await world.settle()
        await world.nothing_left()

    with no_session_left():
        log = play_tls(script, loop_factory, kind=kind)
    names = [note[0] for note in log]
    assert names.count("failed") == names.count("connection_lost") == 1
    failed = next(note[1] for note in log if note[0] == "failed")
    # Code that awaits it learns at least that the connection ended.
    assert failed.startswith(("ConnectionResetError", "BrokenPipeError", "ConnectionAbortedError"))


@pytest.mark.parametrize("unsent", [False, True], ids=["handshake", "flushing"])
def test_handshake_timeout(loop_factory: LoopFactory, kind: str, unsent: bool) -> None:
    """It runs from the call, while plaintext is sent too: it ends a client that does not read."""
    answer = numbers(600_000) if unsent else GO_AHEAD

    async def script(world: TlsWorld) -> None:
        await world.serve(
            lambda: Starter(world, answer=answer, handshake_timeout=SHORTLY),
            plain=True,
            send_buffer=4096,
        )
        raw = await world.connect(receive_buffer=4096)
        await raw.send(COMMAND)
        await world.until("connection_lost")
        await world.until("failed")
        await world.nothing_left()
        world.note("failures", world.server.statistics()["handshake_failures"])

    log = [note for note in play_tls(script, loop_factory, kind=kind) if "writing" not in note[0]]
    failed = next(note[1] for note in log if note[0] == "failed")
    assert failed.startswith("ConnectionAbortedError('SSL handshake is taking longer than 0.15")
    assert log[-1] == ("failures", 1)


@pytest.mark.parametrize("method", ["close", "abort"])
@pytest.mark.parametrize("when", ["flushing", "handshake", "established"])
def test_close_or_abort_on_the_old_transport(
    loop_factory: LoopFactory, kind: str, method: str, when: str
) -> None:
    """The call is passed on to the new transport; while there is none, the future fails."""
    answer = numbers(600_000) if when == "flushing" else GO_AHEAD

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: Starter(world, answer=answer), plain=True, send_buffer=4096)
        raw = await world.connect(receive_buffer=4096)
        await raw.send(COMMAND)
        if when == "flushing":
            await world.until("pause_writing")
        else:
            await raw.receive(len(GO_AHEAD))
        client = TlsClient(raw)
        if when == "established":
            await client.handshake()
            await world.until("started")
        old = world.transports[0]
        getattr(old, method)()
        if when == "established":
            world.note("end", (await client.rest())[1])
            if method == "close":
                await client.notify()
        else:
            rest, _ = await raw.rest()
            world.note("plaintext", rest == answer, answer.startswith(rest))
            await world.until("failed")
        await world.until("connection_lost")
        await world.settle()
        old.close()
        old.abort()
        await world.nothing_left()

    with no_session_left():
        log = play_tls(script, loop_factory, kind=kind)
    log = [note for note in log if "writing" not in note[0]]
    names = [note[0] for note in log]
    assert names.count("connection_lost") == 1
    if when == "established":
        assert ("end", "close_notify" if method == "close" else "truncated") in log
    else:
        assert names.count("failed") == 1
        assert "started" not in names
        if when == "flushing":
            assert next(note[1:] for note in log if note[0] == "plaintext") == (
                method == "close",
                True,
            )


@pytest.mark.parametrize("when", ["handshake", "established"])
def test_cancelled_future(loop_factory: LoopFactory, kind: str, when: str) -> None:
    """The waiter gave up; the connection goes on, and nothing is left when it ends."""

    async def script(world: TlsWorld) -> None:
        protocol: Any = None

        def factory() -> Any:
            nonlocal protocol
            protocol = Starter(world)
            return protocol

        await world.serve(factory, plain=True)
        client = await commanded(world)
        if when == "handshake":
            assert protocol.future.cancel()
            await world.until("cancelled")
            await client.handshake()
        else:
            await client.handshake()
            await world.until("started")
            assert not protocol.future.cancel()
        await client.send(b"hello")
        await world.until("data_received")
        await client.notify()
        await world.until("connection_lost")
        await world.nothing_left()

    log = play_tls(script, loop_factory, kind=kind)
    assert [note[0] for note in log][-3:] == ["data_received", "eof_received", "connection_lost"]


@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_close_clients_and_abort_clients(loop_factory: LoopFactory, kind: str, method: str) -> None:
    """This ends connections in plaintext, in the handshake, and after it."""

    async def script(world: TlsWorld) -> None:
        server = await world.serve(lambda: Starter(world), plain=True)
        plain = await world.connect()
        await world.until("connection_made")
        half = await commanded(world)
        done = await (await commanded(world)).handshake()
        await world.until("started")
        server.close()
        getattr(server, method)()
        world.note("plain", (await plain.rest())[1])
        world.note("half", (await half.raw.rest())[1])
        world.note("done", (await done.rest())[1])
        with contextlib.suppress(OSError):
            await done.notify()
        await world.until("connection_lost", 3)
        await world.until("failed")
        await world.patience(server.wait_closed())

    log = play_tls(script, loop_factory, kind=kind)
    assert ("plain", "eof") in log
    assert ("half", "eof") in log
    assert ("done", "close_notify" if method == "close_clients" else "truncated") in log
