"""The end of a TLS connection by the client: close_notify, truncation, resets.

Rules of this file: as in test_tls_transport. A client does exactly what the test says: it answers a
close_notify only if the test has it do so.
"""

from __future__ import annotations

import ssl

import pytest
from support.loops import LoopFactory
from support.tls_contexts import client_context
from support.tls_world import MUCH, TlsRecorder, TlsWorld, on_all_ways, play_tls, same_tls
from support.world import Hook, numbers

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


def note_truncated(world: TlsWorld) -> None:
    """Note what only ours know: whether the last connection was truncated, and how many were."""
    if world.native:
        info = world.transports[-1].get_extra_info("truncated")
        world.ours = (info, world.server.statistics()["truncated"])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("data", [b"", b"last words"], ids=["silent", "speaking"])
def test_client_sends_close_notify(
    loop_factory: LoopFactory, kind: str, data: bytes, version: ssl.TLSVersion
) -> None:
    """Ours answers it, then closes TCP."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, _ = await world.made(context=client_context(version=version))
        await client.raw.send((client.sealed(data) if data else b"") + client.notice())
        await world.until("connection_lost")
        world.note("client", await client.rest(), await client.raw.rest())
        note_truncated(world)
        assert world.ours in (None, (False, 0))

    log = same_tls(script, loop_factory, kind=kind)
    assert log[-1] == ("client", (b"", "close_notify"), (b"", "eof"))


def test_close_notify_while_output_is_unsent(loop_factory: LoopFactory, kind: str) -> None:
    """The client has said that it sends no more, not that it reads no more: it gets everything."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(receive_buffer=4096)
        transport.write(numbers(MUCH))
        await client.notify()
        await world.until("eof_received")
        await world.settle()
        world.note("closing", transport.is_closing())
        rest, end = await client.rest()
        await world.until("connection_lost")
        world.note("client", rest == numbers(MUCH), end)

    log = play_tls(script, loop_factory, kind=kind)
    assert [note for note in log if "writing" not in note[0]] == [
        ("connection_made",),
        ("eof_received",),
        ("closing", True),
        ("connection_lost", "none"),
        ("client", True, "close_notify"),
    ]


@pytest.mark.parametrize("ending", ["close_notify", "eof"])
def test_end_while_reading_is_paused(loop_factory: LoopFactory, kind: str, ending: str) -> None:
    """Data and the end wait for resume_reading, in this order."""

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"connection_made": lambda p, t: t.pause_reading()}
        await world.serve(lambda: TlsRecorder(world, hooks))
        client, transport = await world.made()
        await client.send(b"last words")
        if ending == "close_notify":
            await client.notify()
        else:
            client.finish()
        await world.settle()
        world.note("resume", transport.is_reading())
        transport.resume_reading()
        await world.until("connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert [note[0] for note in log] == [
        "connection_made",
        "resume",
        "data_received",
        "eof_received",
        "connection_lost",
    ]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_eof_without_close_notify(
    loop_factory: LoopFactory, kind: str, version: ssl.TLSVersion
) -> None:
    """To asyncio's protocols it is an end like any other; a protocol that wants to know asks for
    ``truncated``."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made(context=client_context(version=version))
        if world.native:
            assert transport.get_extra_info("truncated") is False
        await client.send(b"half a mess")
        await world.until("data_received")
        client.finish()
        await world.until("connection_lost")
        world.note("client", (await client.raw.rest())[1])
        note_truncated(world)
        assert world.ours in (None, (True, 1))

    same_tls(script, loop_factory, kind=kind)


def test_truncated_is_set_in_eof_received(loop_factory: LoopFactory, kind: str) -> None:
    """So a protocol can reject what was cut off."""

    async def script(world: TlsWorld) -> None:
        ask: Hook = lambda p, *_: world.note("cut", p.transport.get_extra_info("truncated"))  # noqa: E731
        await world.serve(lambda: TlsRecorder(world, {"eof_received": ask, "connection_lost": ask}))
        for ending in ("finish", "notify"):
            client, _ = await world.made()
            if ending == "finish":
                client.finish()
            else:
                await client.notify()
            await world.until("connection_lost", world.count("connection_made"))
            await world.settle()
        world.note("count", world.server.statistics()["truncated"])

    log = [
        note for note in play_tls(script, loop_factory, kind=kind) if note[0] in ("cut", "count")
    ]
    assert log == [("cut", True), ("cut", True), ("cut", False), ("cut", False), ("count", 1)]


def test_eof_inside_a_record(loop_factory: LoopFactory, kind: str) -> None:
    """An incomplete record delivers no data."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, _ = await world.made()
        await client.raw.send(client.sealed(b"whole") + client.sealed(b"not whole")[:-1])
        client.finish()
        await world.until("connection_lost")
        note_truncated(world)
        assert world.ours in (None, (True, 1))

    log = same_tls(script, loop_factory, kind=kind)
    assert [note for note in log if note[0] == "data_received"] == [
        ("data_received", "bytes", b"whole")
    ]


@pytest.mark.parametrize("unread", [False, True], ids=["quiet", "unread"])
def test_reset(loop_factory: LoopFactory, kind: str, unread: bool) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        if unread:
            transport.write(b"never read")
        await client.send(b"x")
        await world.until("data_received")
        client.reset()
        await world.until("connection_lost")
        note_truncated(world)
        assert world.ours in (None, (True, 1))
        await world.nothing_left()

    log = same_tls(script, loop_factory, kind=kind)
    assert log[-1][1].startswith("ConnectionResetError(104")


def test_reset_with_unsent_data(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(receive_buffer=4096)
        transport.write(bytes(MUCH))
        client.reset()
        await world.until("connection_lost")
        await world.nothing_left()

    log = play_tls(script, loop_factory, kind=kind)
    assert log[-1][1].startswith(("ConnectionResetError", "BrokenPipeError"))
    assert "eof_received" not in [note[0] for note in log]


def test_client_sends_a_fatal_alert(loop_factory: LoopFactory, kind: str) -> None:
    """In an open connection this is an error, not an end."""

    async def script(world: TlsWorld) -> None:
        # Under 1.2, because it is hard to make a client find the server's Finished wrong.
        await world.serve(lambda: TlsRecorder(world))
        client, _ = await world.made(context=client_context(version=ssl.TLSVersion.TLSv1_3))
        # An invalid record makes OpenSSL, as a client, send bad_record_mac.
        client.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            client.tls.read(1)
        await client.flush()
        await world.until("connection_lost")

    same_tls(script, loop_factory, kind=kind)


def test_corrupted_record(loop_factory: LoopFactory, kind: str) -> None:
    """Data changed on the way ends the connection, and the client gets an alert."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, _ = await world.made()
        good = client.sealed(b"good")
        bad = bytearray(client.sealed(b"x" * 100))
        bad[50] ^= 1
        await client.raw.send(good + bad)
        await world.until("connection_lost")
        world.note("client", await client.rest())

    log = play_tls(script, loop_factory, kind=kind)
    # (asyncio loses the good record if both come at once.)
    assert log[1] == ("data_received", "bytes", b"good")
    # DECRYPTION_FAILED_OR_BAD_RECORD_MAC; newer OpenSSL: RECORD_LAYER_FAILURE.
    assert log[-2][1].startswith("SSLError(")
    assert "BAD_RECORD_MAC" in log[-1][1][1]
