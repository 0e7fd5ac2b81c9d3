"""What the tests of sockets and serving share: a served configuration, in this process or another.

Rules of this file: no test in it. Nothing waits for a fixed time; what is waited for has a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

import fastlisten
from fastlisten.config import loads
from fastlisten.runtime.server import Server
from support.accounts import write_accounts

#: Longer than anything here takes on a busy machine; only failures wait for it.
PATIENCE = 30.0

ACCOUNTS = '[account."alice@example.org"]\n'

_Test = TypeVar("_Test", bound=Callable[..., None])

_PACKAGE = Path(fastlisten.__file__).parent.parent
_TESTS = Path(__file__).parents[1]


def external(program: str) -> Callable[[_Test], _Test]:
    """Return the decorator of tests that need a program of another project."""
    missing = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin") is None
    skip = pytest.mark.skipif(missing, reason=f"needs the program {program}")
    return lambda test: pytest.mark.external(program)(skip(test))


def _has_ipv6() -> bool:
    """Tell whether the loopback interface has IPv6, which it lacks in many containers."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


#: Mark of tests whose clients or servers have IPv6 addresses.
needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback address")


def on_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let an async test run on every event loop of the fixture `loop_factory`."""

    @functools.wraps(test)
    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **arguments: object) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**arguments))

    # What pytest reads to know the fixtures.
    own = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = inspect.signature(test).parameters.values()
    run.__signature__ = inspect.Signature([own, *wanted])  # type: ignore[attr-defined]
    return run


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, or fail naming it."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        time.sleep(0.005)


async def soon(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition while the loop runs, or fail naming it."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def served(text: str) -> AsyncIterator[Server]:
    """Serve a configuration on the running loop."""
    async with Server(loads(text)) as server:
        yield server


async def connect(host: str, port: int) -> socket.socket:
    """Return a connected, non-blocking socket."""
    loop = asyncio.get_running_loop()
    client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    client.setblocking(False)
    try:
        await asyncio.wait_for(loop.sock_connect(client, (host, port)), PATIENCE)
    except BaseException:
        client.close()
        raise
    return client


async def read_all(client: socket.socket) -> bytes:
    """Return what comes until the end."""
    loop = asyncio.get_running_loop()
    received = b""
    while data := await asyncio.wait_for(loop.sock_recv(client, 65536), PATIENCE):
        received += data
    return received


async def read_some(client: socket.socket, size: int) -> bytes:
    """Return so many octets, fewer at the end."""
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < size:
        data = await asyncio.wait_for(loop.sock_recv(client, size - len(received)), PATIENCE)
        if not data:
            break
        received += data
    return received


def clean_environment(**changes: str) -> dict[str, str]:
    """Return an environment in which this package and the tests' handlers are found."""
    environ = {
        key: value
        for key, value in os.environ.items()
        if key not in ("INVOCATION_ID", "NOTIFY_SOCKET", "STATE_DIRECTORY")
    }
    environ["PYTHONPATH"] = os.pathsep.join(map(str, (_PACKAGE, _TESTS)))
    return environ | changes


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `fastlisten` until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "fastlisten", *map(str, arguments)],
        env=clean_environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Program:
    """A running `fastlisten serve`.

    Attributes:
        process: the process.
        directory: where its files are; mail is kept in ``data``.
    """

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.process = process
        self.directory = directory

    @property
    def out(self) -> str:
        """Standard output so far."""
        return (self.directory / "out").read_text()

    @property
    def err(self) -> str:
        """Standard error so far."""
        return (self.directory / "err").read_text()

    @property
    def addresses(self) -> dict[str, list[str]]:
        """The bound addresses of each listener that has been listed."""
        whole = self.out.rpartition("\n")[0].split("\n")
        said = "\n".join(json.loads(it)["message"] if it[:1] == "{" else it for it in whole)
        lines = re.findall(r'^listener "(.*)": \S+ on (.*?);', said, re.MULTILINE)
        return {name: addresses.split(", ") for name, addresses in lines}

    def port(self, listener: str = "it", index: int = 0) -> int:
        """Return the port of a listener's bind."""
        return int(self.addresses[listener][index].rpartition(":")[2])

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to it, not to what runs it."""
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        """The process of the program itself: the last of a chain such as strace's child."""
        pid = self.process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
        return pid

    def ended(self) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        """Send SIGTERM and wait for the end; return the exit code."""
        self.signal()
        return self.ended()

    def messages(self, account: str = "alice@example.org") -> list[bytes]:
        """Return the messages that were delivered to an account."""
        new = self.directory / "data" / "mail" / account / "new"
        return [path.read_bytes() for path in sorted(new.glob("*"))]


@contextlib.contextmanager
def program(
    directory: Path,
    text: str | None,
    *,
    accounts: str | None = ACCOUNTS,
    unchanged: bool = False,
    listeners: int = 1,
    wrapper: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Program]:
    """Run `fastlisten serve` until the end of the block, at the latest.

    Args:
        directory: for its files; the mail of alice@example.org goes to ``data`` in it.
        text: the configuration without data directory and host name; None for the embedded one.
        accounts: what the accounts file holds, unless the configuration is the embedded one; None
            for leaving it as it is.
        unchanged: the text is served as it is, its mail in the default data directory; which is
            the same one, by STATE_DIRECTORY.
        listeners: how many must be listed before the block begins; 0 to wait for its end, -1 not
            to wait.
        wrapper: a command that runs it, with its arguments.
        environ: changes of the environment.
        pass_fds: descriptors that it inherits.
    """
    arguments = [*wrapper, sys.executable, "-m", "fastlisten", "serve"]
    if text is not None:
        (directory / "data").mkdir(exist_ok=True)
        if accounts is not None:
            write_accounts(directory / "data" / "accounts.toml", accounts)
        if unchanged:
            environ = {"STATE_DIRECTORY": str(directory / "data"), **(environ or {})}
        else:
            head = '[server]\nhostname = "mx.example.org"\n'
            text = f'{head}data-directory = "{directory / "data"}"\n{text}'
        (directory / "mail.toml").write_text(text)
        arguments.append(str(directory / "mail.toml"))
    with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
        process = subprocess.Popen(
            arguments,
            env=clean_environment(**(environ or {})),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=pass_fds,
        )
    started = Program(process, directory)
    try:
        if listeners == 0:
            process.wait(PATIENCE)
        else:
            until(
                lambda: len(started.addresses) >= listeners or process.poll() is not None,
                f"{listeners} listeners",
            )
            assert process.poll() is None, started.err
        yield started
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                started.signal(signal.SIGKILL)
            process.kill()
            process.wait()
