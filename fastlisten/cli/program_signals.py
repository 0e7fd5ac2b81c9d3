"""The signals of `fastlisten serve`, from the start of the process to its end.

Rules of this file: only the program uses this; a library uses `Server.signals`. It imports next to
nothing, because signals have their default effect until it is imported.

One handler is installed for the whole life of the process, so that a signal never has its default
effect (for PID 1, as in a container, that would be none at all):

    STARTING   imports, configuration, certificates, handlers
       │       a stop is raised as an exception, SIGHUP is kept for later
    HOLDING    the loop is being created, or has ended
       │       everything is kept for the loop
    LOOP       passed to the loop: stop the startup, drain, reload
       │
    ENDING     the interpreter shuts down; a stop has no effect

A supervisor has no loop. From HOLDING it goes to POLLED: signals are passed on by a descriptor.
Each worker that it forks has signals of its own, which begin with STARTING.

Before anything is served, a stop that is not noticed within `STOP_TIMEOUT` (code that swallows
exceptions, a lifespan that blocks its loop, a library that waits for the network) ends the process,
and a second stop ends it at once: there is nothing to drain. This is done by a thread, because
Python runs signal handlers in the main thread only, between its instructions.

SIGUSR1 and SIGUSR2, which logrotate scripts send, are logged. They have a handler rather than being
ignored, because programs started by an application would inherit an ignored signal.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import select
import signal
import time

# For type checkers. Importing typing would take longer than the rest of this file.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from fastlisten.runtime.server import Server
    from fastlisten.runtime.supervisor.worker_server import WorkerServer

__all__ = ["STOP_TIMEOUT", "ProgramSignals", "Stopped"]

#: Seconds that a stop may go unnoticed before anything is served: half of what `docker stop` waits
#: before it kills, and more than `finally` blocks usually need.
STOP_TIMEOUT = 5.0

#: Seconds after which the main thread is interrupted again: a signal that arrives after it has
#: checked for signals, but before it makes a system call, does not interrupt that call.
_AGAIN = 0.1

#: Ends the thread; no signal has this number.
_END = 0

_STOPS = frozenset((signal.SIGTERM, signal.SIGINT))
_TAKEN = (*_STOPS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(SystemExit):
    """The program was asked to stop before its loop was running; `number` is the signal."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number
        super().__init__(0)


class ProgramSignals:
    """Handles the signals of this process from its creation on, in the main thread.

    Args:
        interrupts: SIGINT is a stop. A worker leaves it to its supervisor: a terminal sends it to
            both.

    Attributes:
        code: the exit code to use if the process has to be ended at once.
    """

    def __init__(self, *, interrupts: bool = True) -> None:
        self.code = 0
        self._stops = _STOPS if interrupts else _STOPS - {signal.SIGINT}
        self._state = "starting"
        self._served = False
        self._stopped: signal.Signals | None = None
        self._awaited = False
        self._again = False
        self._kept: list[signal.Signals] = []
        self._hung_up = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | WorkerServer | None = None
        self._before = {number: signal.signal(number, self._received) for number in _TAKEN}
        for number in _TAKEN:
            if number not in self._stops:
                # These need not interrupt system calls.
                signal.siginterrupt(number, False)
        self._main = _thread.get_ident()
        self._writer = -1
        self._watching = _thread.allocate_lock()  # held by the thread
        os.register_at_fork(after_in_child=self._give_back)
        # Registered first, so it runs last. After it Python restores the default action of signals
        # that have a handler, but not of those that are ignored.
        atexit.register(_ignore)

    @property
    def taken(self) -> tuple[signal.Signals, ...]:
        """The signals that are handled."""
        return _TAKEN

    # -- the states

    def watch(self) -> None:
        """Enforce `STOP_TIMEOUT` from now on; call it when descriptors 0 to 2 are open."""
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        # Not threading, here and below: the code that a signal interrupts may hold its locks.
        self._watching.acquire()
        try:
            _thread.start_new_thread(self._watch, (reader,))
        except RuntimeError:  # out of threads: do without the timeout
            self._watching.release()

    def check(self) -> None:
        """Raise `Stopped` again, in case it was swallowed.

        Raises:
            Stopped: the program has been asked to stop.
        """
        if self._stopped is not None:
            raise Stopped(self._stopped)

    def hold(self) -> None:
        """Keep signals for the loop, which is about to start.

        Raises:
            Stopped: the program has already been asked to stop.
        """
        self.check()
        self._state = "holding"

    @contextlib.contextmanager
    def serving(self, server: Server | WorkerServer) -> Iterator[None]:
        """Pass signals to the running loop while the block runs."""
        import asyncio

        loop = asyncio.get_running_loop()
        with _woken(loop, self._writer):
            # The application may have replaced them. SIGUSR1 and SIGUSR2 it may keep.
            for number in (*_STOPS, signal.SIGHUP):
                signal.signal(number, self._received)
            signal.siginterrupt(signal.SIGHUP, False)
            self._loop, self._server = loop, server
            self._state = "loop"
            for number in self._kept:
                loop.call_soon(self._deliver, number)
            try:
                yield
            finally:
                self._state = "ending"
                self._loop = self._server = None

    @contextlib.contextmanager
    def polled(self) -> Iterator[int]:
        """Write signals to a descriptor while the block runs, for a program without a loop.

        Yields:
            The descriptor to read from, non-blocking; each octet is the number of a signal. SIGCHLD
            is among them. There is no other thread of this object while the block runs.
        """
        self.hold()
        if self._writer >= 0:
            os.write(self._writer, bytes([_END]))
            with self._watching:
                pass
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        children = signal.signal(signal.SIGCHLD, self._received)
        self._state = "polled"
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in self._kept:
            os.write(writer, bytes([number]))
        if self._hung_up:
            os.write(writer, bytes([signal.SIGHUP]))
        try:
            yield reader
        finally:
            self._state = "ending"
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, children)
            os.close(reader)
            os.close(writer)

    def started(self) -> None:
        """Note that the server has started; reload if SIGHUP has arrived before."""
        self._served = True
        if self._hung_up and self._server is not None:
            self._server.receive(signal.SIGHUP)

    def end(self, code: int) -> None:
        """Note that the process is about to end with this exit code."""
        self.code = code
        self._state = "ending"

    # -- handling a signal

    def _received(self, number: int, frame: object) -> None:
        """The signal handler; runs between two instructions of the main thread."""
        if self._state == "polled":
            return  # the interpreter has written it to the descriptor
        name = signal.Signals(number)
        drains = self._served and self._state == "loop"
        if name in self._stops and not drains:
            self._stop(name)
        elif name == signal.SIGHUP and not self._served:
            self._hung_up = True
        else:
            self._pass_on(name)

    def _stop(self, name: signal.Signals) -> None:
        """Stop a program that is not serving yet, or no longer."""
        if self._again and self._stopped is not None:
            self._again = False
            return
        if self._stopped is not None:
            os._exit(self.code)
        self._stopped = name
        if self._loop is not None:  # its wakeup descriptor has replaced that of our thread
            self._awaited = True
            _thread.start_new_thread(self._bound, ())
        if self._state == "starting":
            raise Stopped(name)
        self._pass_on(name)

    def _bound(self) -> None:
        """End the process if the loop does not notice a stop in time; runs in a thread."""
        time.sleep(STOP_TIMEOUT)
        if self._awaited:
            os._exit(self.code)

    def _watch(self, reader: int) -> None:
        """Read signals from the wakeup descriptor and enforce the timeout; runs in a thread."""
        ends: float | None = None
        repeated = 0
        number = signal.SIGTERM
        while True:
            ready, _, _ = select.select([reader], [], [], None if ends is None else _AGAIN)
            if ready:
                received = os.read(reader, 1)[0]
                if received == _END:
                    os.close(reader)
                    self._watching.release()
                    return
                if received not in self._stops:
                    continue
                if repeated:
                    repeated -= 1
                    continue
                if self._awaited:
                    os._exit(self.code)
                number = signal.Signals(received)
                self._awaited = True
                ends = time.monotonic() + STOP_TIMEOUT
            elif not self._awaited:
                ends = None
            elif ends is not None and time.monotonic() >= ends:
                os._exit(self.code)
            elif self._stopped is None:
                repeated += 1
                self._again = True
                signal.pthread_kill(self._main, number)

    def _pass_on(self, name: signal.Signals) -> None:
        """Pass a signal to the loop, now or when it runs."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver, name)
        elif self._state != "ending":
            self._kept.append(name)

    def _deliver(self, name: signal.Signals) -> None:
        """Let the server handle a signal; runs in the loop."""
        self._awaited = False
        if self._server is not None:
            self._server.receive(name)

    def _give_back(self) -> None:
        """Restore the original signal handlers in a forked child."""
        fd = signal.set_wakeup_fd(-1)
        if self._state == "polled":
            # Signals of the child are not to be written to its parent's descriptor.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        elif fd not in (-1, self._writer):
            signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        for number, before in self._before.items():
            if signal.getsignal(number) == self._received:
                signal.signal(number, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def _woken(loop: asyncio.AbstractEventLoop, before: int) -> Iterator[None]:
    """Let signals wake up the loop; uvloop does this by itself.

    Args:
        loop: the running loop.
        before: the wakeup descriptor that was set before the loop was created.
    """
    import socket

    own = signal.set_wakeup_fd(-1)
    if own not in (-1, before):
        signal.set_wakeup_fd(own, warn_on_full_buffer=False)
        yield
        return
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)

        def woken() -> None:
            with contextlib.suppress(BlockingIOError):
                reader.recv(4096)

        loop.add_reader(reader, woken)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before, warn_on_full_buffer=False)
            loop.remove_reader(reader)


def _ignore() -> None:
    for number in _TAKEN:
        signal.signal(number, signal.SIG_IGN)
