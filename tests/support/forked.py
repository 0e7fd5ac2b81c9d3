"""Forked processes for tests of the native core: they serve, answer questions and are killed.

Rules of this file: a child keeps only the descriptors it is given (a copy of a client's socket
would hide that client's close from the server), runs no destructors of the test's objects, and ends
with its channel, so that a failing test leaves no process behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import logging
import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import pytest

from fastlisten import ConnectionServer
from support.loops import LoopFactory
from support.waiting import PATIENCE

__all__ = ["MAY_HAVE_THREADS", "Body", "Child", "children", "exit_status", "fork", "serving"]

#: CPython 3.12 warns about threads of pytest-xdist, of libuv's pool and of pools that earlier tests
#: have used; they hold no lock that the children need.
MAY_HAVE_THREADS = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded, use of fork:DeprecationWarning"
)

Body = Callable[[socket.socket], None]
Commands = Mapping[str, Callable[..., Any]]


def fork(work: Callable[[], bool]) -> int:
    """Fork; return the child's process id. It exits with 0 if `work` returns True.

    It exits with 1 if not, and with 2 if `work` raised. Unlike a `Child` it keeps all descriptors.
    """
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return pid


def exit_status(work: Callable[[], bool]) -> int:
    """Fork as `fork` does; return the child's exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])


class Child:
    """A forked process that runs one function.

    Args:
        body: called in the child with its end of the message channel; the child ends with it.
        keep: the descriptors that the child uses; it closes all others.

    Attributes:
        pid: the child's process id.
    """

    def __init__(self, body: Body, keep: Iterable[int] = ()) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(PATIENCE)
        with warnings.catch_warnings():
            # Python 3.12 warns where another test has left a thread (of an executor, say); the
            # child takes no lock that a thread could hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            _be_child(body, theirs, keep)
        theirs.close()
        self._waited = False

    def hear(self) -> Any:
        """Return the child's next message.

        Raises:
            AssertionError: the child failed, with its traceback, or has ended.
        """
        text = self.channel.recv(1 << 20)
        assert text, f"child {self.pid} ended without an answer, status {self._wait()}"
        answer = json.loads(text)
        if isinstance(answer, dict) and "traceback" in answer:
            raise AssertionError(f"child {self.pid} failed:\n{answer['traceback']}")
        return answer

    def ask(self, command: str, *arguments: Any) -> Any:
        """Send the child a command of its `serving` and return the answer."""
        self.channel.send(json.dumps([command, *arguments]).encode())
        return self.hear()

    def kill(self) -> None:
        """Kill it with SIGKILL, wherever it is, and wait for its end."""
        if not self._waited:
            os.kill(self.pid, signal.SIGKILL)
        self._wait()

    def stop(self) -> int:
        """Close the channel, wait until the child has ended, return its exit status."""
        self.channel.close()
        return self._wait()

    def _wait(self) -> int:
        self.channel.close()
        if not self._waited:
            self._waited = True
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            status = self.stop()
            assert status in (0, -signal.SIGKILL), f"child ended with status {status}"
        else:
            self.kill()


def _be_child(body: Body, channel: socket.socket, keep: Iterable[int]) -> NoReturn:
    status = 1
    try:
        faulthandler.disable()
        # The test's objects hold descriptor numbers that will be closed and reused.
        gc.freeze()
        last = 2
        for fd in sorted({channel.fileno(), *keep}):
            os.closerange(last + 1, fd)
            last = fd
        os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
        # So do the test runner's streams and log handlers.
        sys.stdout = sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        logging.getLogger().handlers[:] = [logging.NullHandler()]
        body(channel)
        status = 0
    except BaseException:
        channel.send(json.dumps({"traceback": traceback.format_exc()}).encode())
    finally:
        os._exit(status)


@contextlib.contextmanager
def children(size: int, body: Body, keep: Iterable[int]) -> Iterator[list[Child]]:
    """Start children, wait for a message from each, kill them at the end of the block."""
    found: list[Child] = []
    with contextlib.ExitStack() as stack:
        for _ in range(size):
            child = Child(body, keep)
            stack.callback(child.kill)
            found.append(child)
        for child in found:
            child.hear()
        yield found


def serving(
    loop_factory: LoopFactory,
    start: Callable[[], Awaitable[ConnectionServer]],
    commands: Commands | None = None,
) -> Body:
    """Return the body of a child that serves until its channel closes.

    It sends ``"ready"``, and then answers commands: those given, called with the server and the
    command's arguments, and ``connections`` and ``statistics``.

    Args:
        loop_factory: creates the child's loop.
        start: creates its server.
        commands: functions by name, whose results can be encoded as JSON.
    """
    known: dict[str, Callable[..., Any]] = {
        "connections": lambda server: server.connections,
        "statistics": lambda server: server.statistics(),
        **(commands or {}),
    }

    def body(channel: socket.socket) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            server = await start()
            ended: asyncio.Future[None] = loop.create_future()

            def command() -> None:
                text = channel.recv(65536)
                if not text:
                    loop.remove_reader(channel.fileno())
                    ended.set_result(None)
                    return
                name, *arguments = json.loads(text)
                try:
                    answer = known[name](server, *arguments)
                except Exception:
                    answer = {"traceback": traceback.format_exc()}
                channel.send(json.dumps(answer).encode())

            loop.add_reader(channel.fileno(), command)
            channel.send(b'"ready"')
            await ended
            server.close()
            server.abort_clients()
            await server.wait_closed()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    return body
