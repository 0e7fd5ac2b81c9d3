"""Servers of other projects, each on a loop in a thread of its own.

Rules of this file: no test in it, and nothing about a particular server. Because of the thread, the
clients can be ordinary programs and blocking libraries. If a server leaves anything behind
(connections in the engine's table, tasks, descriptors, calls of the exception handler), its test
fails.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

import fastlisten
from fastlisten.loop.engines import engine_for
from support.foreign_clients import WAYS, Address, Certificate, make_certificate
from support.kernel import open_descriptors
from support.waiting import PATIENCE, until

#: Our two loops, then those that they are compared with.
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "fastlisten": fastlisten.new_event_loop,
    "fastlisten-asyncio": lambda: fastlisten.new_event_loop(use_uvloop=False),
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
}
OURS = tuple(name for name in LOOPS if name.startswith("fastlisten"))

#: Loops and ways to test: all for our loops, and some for the controls.
PAIRS = (*itertools.product(OURS, WAYS), ("uvloop", "tls"), ("asyncio", "tcp"))

_T = TypeVar("_T")

Opener = Callable[[Address], AbstractAsyncContextManager[Any]]


def foreign(*libraries: str) -> tuple[Any, ...]:
    """Import libraries of other projects, for the module of tests that needs them.

    Args:
        libraries: names of modules; the distribution is named like the first part.

    Returns:
        The modules (None for a missing one), and last the marks for `pytestmark`.
    """
    modules: list[Any] = []
    marks: list[pytest.MarkDecorator] = []
    for library in libraries:
        name = library.partition(".")[0]
        try:
            modules.append(importlib.import_module(library))
        except ModuleNotFoundError as exc:
            if exc.name != name:
                raise
            modules.append(None)
            marks.append(pytest.mark.skip(reason=f"needs the library {name}"))
        marks.append(pytest.mark.external(name))
    return (*modules, marks)


# -- a loop in a thread


def census() -> dict[str, int]:
    """Return the counts of the running loop's engine, without those of an idle engine.

    Empty for a stock loop, which has no engine unless asked for one.
    """
    loop = asyncio.get_running_loop()
    if type(loop).__module__.partition(".")[0] != "fastlisten":
        return {}
    counts = engine_for(loop).census()
    counts.pop("system")
    return counts


class ServerThread:
    """A loop in a thread, which runs one server for the length of a block.

    Args:
        name: a key of `LOOPS`.
        opener: starts the server for an address, in the loop; leaving it shuts the server down.
        address: where the server listens; the opener sets the port.

    Attributes:
        complaints: calls of the loop's exception handler.
        result: what the opener yielded.
    """

    def __init__(self, name: str, opener: Opener, address: Address) -> None:
        self.name = name
        self.native = name in OURS
        self.address = address
        self.complaints: list[str] = []
        self.result: Any = None
        self._opener = opener
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"serving on {name}")

    def __enter__(self) -> ServerThread:
        gc.collect()
        self._before = open_descriptors()
        self._thread.start()
        self._ready.result(PATIENCE)
        return self

    def end(self) -> None:
        """Shut the server down and close the loop."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._end.set)
            self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server does not end"

    def __exit__(self, *exc_info: object) -> None:
        self.end()
        if exc_info[0] is not None:
            return
        assert self.failure is None, self.failure
        assert not self.tasks, "tasks left behind"
        # Exceptions of tasks that were never retrieved are reported when these are collected.
        gc.collect()
        assert not self.complaints
        after = open_descriptors()
        leaked = {fd: name for fd, name in after.items() if self._before.get(fd) != name}
        assert not leaked, f"descriptors left open: {leaked}"

    def _run(self) -> None:
        self.failure: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=LOOPS[self.name]) as runner:
                runner.run(self._serve())
        except BaseException as exc:
            self.failure = exc
            if not self._ready.done():
                self._ready.set_exception(exc)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(self._complain)
        self._end = asyncio.Event()
        async with self._opener(self.address) as self.result:
            self._ready.set_result(None)
            await self._end.wait()
        async with asyncio.timeout(PATIENCE):
            while any(census().values()):
                await asyncio.sleep(0.002)
        self.tasks = asyncio.all_tasks() - {asyncio.current_task()}

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context['message']}: {context.get('exception')!r}")

    def call(self, function: Callable[[], _T]) -> _T:
        """Call a function in the loop and return its result."""

        async def called() -> _T:
            return function()

        return self.run(called())

    def run(self, awaitable: Awaitable[_T]) -> _T:
        """Await something in the loop and return its result."""

        async def awaited() -> _T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(PATIENCE)

    def census(self) -> dict[str, int]:
        """Return the engine's counts; see the function `census`."""
        return self.call(census)

    def check_native(self) -> None:
        """Check that one connection is open, and served by the core on our loops."""
        assert self.census().get("served", 0) == (1 if self.native else 0)

    def check_quiet(self) -> None:
        """Wait until no connection is left; check that the exception handler was not called."""
        until(lambda: not any(map(self.census().get, ("open", "endpoints", "parked"))), "the end")
        assert not self.complaints


def fixtures(opener: Opener) -> tuple[Any, Any, Any, Any]:
    """Return the fixtures `certificate`, `start`, `shared` and `serving` for a module of tests.

    ``start(name, way)`` makes a server for one test; `shared` is one for all tests of the module,
    on each of `PAIRS`; `serving` is the same, but fails a test that leaves something behind.
    """

    @pytest.fixture(scope="module")
    def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
        return make_certificate(tmp_path_factory.mktemp("certificate"))

    @pytest.fixture
    def start(
        tmp_path: Path, certificate: Certificate, frozen_heap: None
    ) -> Callable[[str, str], ServerThread]:
        address = Address("", str(tmp_path / "socket"), certificate)
        return lambda name, way: ServerThread(name, opener, replace(address, way=way))

    @pytest.fixture(scope="module", params=PAIRS, ids="-".join)
    def shared(
        request: pytest.FixtureRequest,
        tmp_path_factory: pytest.TempPathFactory,
        certificate: Certificate,
        frozen_heap: None,
    ) -> Iterator[ServerThread]:
        name, way = request.param
        path = str(tmp_path_factory.mktemp("serving") / "socket")
        with ServerThread(name, opener, Address(way, path, certificate)) as serving:
            yield serving

    @pytest.fixture
    def serving(shared: ServerThread) -> Iterator[ServerThread]:
        yield shared
        shared.check_quiet()

    return certificate, start, shared, serving
