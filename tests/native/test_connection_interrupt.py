"""KeyboardInterrupt and SystemExit in callbacks leave the loop, as they do with asyncio.

Rules of this file: exceptions raised in callbacks are compared in this process; a real signal, and
what a program prints and returns when a signal ends it, in a process of its own.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import textwrap
import warnings
from typing import Any

import pytest
from support.loops import LoopFactory
from support.world import CALLBACKS, Hook, Note, Recorder, World

pytestmark = pytest.mark.usefixtures("descriptors_back")


def interrupted(
    callback: str, kind: type[BaseException], loop_factory: LoopFactory, *, native: bool
) -> tuple[str, list[Note]]:
    """Raise in a callback; return the exception that left the loop, and the log until then."""
    log: list[Note] = []
    ended: list[Note] = []

    def raising(*_: Any) -> None:
        log.append(("raising", callback))
        raise kind("out of here")

    async def main() -> None:
        world = World(native)
        world.log = log
        hooks: dict[str, Hook] = {callback: raising}

        def factory() -> Recorder:
            if callback == "factory":
                raising()
            return Recorder(world, hooks)

        try:
            await world.serve(factory, send_buffer=8192)
            client = await world.connect(receive_buffer=4096)
            await world.settle()
            await client.send(b"data")
            await world.settle()
            world.transports[0].write(bytes(300_000))
            await client.receive(300_000)
            await world.settle()
            client.finish()
            await world.settle()
            world.note("nothing happened")
        finally:
            hooks.clear()
            # uvloop may finish its turn first, and then reports the end of input again.
            ended.extend(log[: log.index(("raising", callback)) + 1])
            await world.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            runner.run(main())
        except BaseException as exc:
            return type(exc).__name__, ended
    return "nothing", ended


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("callback", ["factory", *CALLBACKS])
def test_exception_leaves_the_loop(
    loop_factory: LoopFactory, callback: str, kind: type[BaseException]
) -> None:
    with warnings.catch_warnings():
        # asyncio leaves a failed factory's socket to the garbage collector, which warns about it.
        warnings.simplefilter("ignore", ResourceWarning)
        expected = interrupted(callback, kind, asyncio.SelectorEventLoop, native=False)
        gc.collect()
    found = interrupted(callback, kind, loop_factory, native=True)
    assert found == expected
    assert found[0] == kind.__name__


PROGRAM = """
import asyncio, os, signal, socket, sys
import fastlisten, uvloop

# A shell that runs the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

make = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}[sys.argv[1]]
native = sys.argv[2] == "native"

class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        print("made", flush=True)
    def data_received(self, data):
        print(data, flush=True)
        os.kill(os.getpid(), signal.SIGINT)
    def connection_lost(self, exc):
        print("lost", exc, flush=True)

async def main():
    create = fastlisten.create_server if native else asyncio.get_running_loop().create_server
    server = await create(Protocol, "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    client.sendall(b"interrupt me")
    try:
        await asyncio.sleep(20)
    finally:
        print("cancelled", flush=True)
        client.close()
        for _ in range(25):
            await asyncio.sleep(0)
        server.close()

with asyncio.Runner(loop_factory=make) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sigint_while_serving(loop: str) -> None:
    """It cancels the main task, connections end in order, and the program ends by the signal."""

    def run(loop: str, how: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), loop, how],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr.strip().splitlines()[-1]

    expected = run("asyncio", "asyncio")
    assert run(loop, "native") == expected
    assert expected == (
        -signal.SIGINT,
        "made\nb'interrupt me'\ncancelled\nlost None\n",
        "KeyboardInterrupt",
    )
