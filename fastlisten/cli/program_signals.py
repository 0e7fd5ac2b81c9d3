"""What signals mean to `fastlisten serve`, from its first moment to its last.

Rules of this file: the program's signals; a library's are `Server.signals`. It imports next to
nothing, because until it is imported signals do what the system does with them.

One handler stays in place for the whole life of the process, so that there is no moment in which a
signal means something else (in a container, where the program is PID 1, that is nothing at all):

    STARTING   imports, configuration, certificates, handlers are made
       │       a stop is raised in what runs, SIGHUP is kept for later
    HOLDING    the loop is made, or has ended
       │       everything is kept for the loop
    LOOP       handed to the loop: to stop startup, to drain, to reload
       │
    ENDING     what is left of Python; a stop changes nothing any more

Before it serves, a stop that is not noticed within `PATIENCE` (code that swallows exceptions, a
lifespan that blocks its loop, a library that waits for the network) ends the process, and so does a
second one at once: there is nothing to drain. A thread sees to it, since Python's handlers run in
the main thread, between its instructions.

SIGUSR1 and SIGUSR2, which scripts of logrotate send, are logged. They have a handler and are not
ignored, since an ignored signal stays ignored in the programs that an application starts.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import select
import signal
import time

# For type checkers; importing typing takes longer than all of this file.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from fastlisten.runtime.server import Server

__all__ = ["PATIENCE", "ProgramSignals", "Stopped"]

#: Seconds that a stop may go unnoticed before anything is served: half of what `docker stop`
#: waits before it kills, and long for what `finally` blocks do.
PATIENCE = 5.0

#: Seconds after which the main thread is interrupted once more: a signal that comes when it has
#: looked for signals and is about to make a system call interrupts nothing.
_AGAIN = 0.1

_STOPS = frozenset((signal.SIGTERM, signal.SIGINT))
_TAKEN = (*_STOPS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(SystemExit):
    """The program was asked to stop before there was a loop to tell; names the signal."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number
        super().__init__(0)


class ProgramSignals:
    """The signals of this process, taken when it is made, in the main thread.

    Attributes:
        code: the exit code that the program has come to, for an end that cannot wait.
    """

    def __init__(self) -> None:
        self.code = 0
        self._state = "starting"
        self._served = False
        self._stopped: signal.Signals | None = None
        self._awaited = False
        self._again = False
        self._kept: list[signal.Signals] = []
        self._hung_up = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._before = {number: signal.signal(number, self._received) for number in _TAKEN}
        for number in _TAKEN:
            if number not in _STOPS:
                # Nothing has to be interrupted for these.
                signal.siginterrupt(number, False)
        self._main = _thread.get_ident()
        self._writer = -1
        os.register_at_fork(after_in_child=self._give_back)
        # The first to be registered is the last to run. After it Python puts back the system's
        # handlers, where it finds one of its own.
        atexit.register(_ignore)

    # -- the states

    def watch(self) -> None:
        """Bound what a stop takes from now on; descriptors 0 to 2 are taken."""
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        # Not threading, here and below: its locks may be held by what a signal interrupts.
        with contextlib.suppress(RuntimeError):  # no threads to be had: it is a convenience
            _thread.start_new_thread(self._watch, (reader,))

    def check(self) -> None:
        """Raise what has been swallowed.

        Raises:
            Stopped: a stop has come.
        """
        if self._stopped is not None:
            raise Stopped(self._stopped)

    def hold(self) -> None:
        """Keep what comes for a loop that will be there soon.

        Raises:
            Stopped: a stop has come before.
        """
        self.check()
        self._state = "holding"

    @contextlib.contextmanager
    def serving(self, server: Server) -> Iterator[None]:
        """Hand signals to the running loop for the time of the block."""
        import asyncio

        loop = asyncio.get_running_loop()
        with _woken(loop, self._writer):
            # The application may have taken them over. What it does with the others is its own.
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

    def started(self) -> None:
        """Note that the server serves, and do what SIGHUP has asked for meanwhile."""
        self._served = True
        if self._hung_up and self._server is not None:
            self._server.receive(signal.SIGHUP)

    def end(self, code: int) -> None:
        """Let nothing but the end of Python follow, which has this exit code."""
        self.code = code
        self._state = "ending"

    # -- what comes

    def _received(self, number: int, frame: object) -> None:
        """Take a signal, between two instructions of the main thread."""
        name = signal.Signals(number)
        drains = self._served and self._state == "loop"
        if name in _STOPS and not drains:
            self._stop(name)
        elif name == signal.SIGHUP and not self._served:
            self._hung_up = True
        else:
            self._hand_on(name)

    def _stop(self, name: signal.Signals) -> None:
        """Stop what does not serve yet, or no longer."""
        if self._again and self._stopped is not None:
            self._again = False
            return
        if self._stopped is not None:
            os._exit(self.code)
        self._stopped = name
        if self._loop is not None:  # which hears of signals in place of our thread
            self._awaited = True
            _thread.start_new_thread(self._bound, ())
        if self._state == "starting":
            raise Stopped(name)
        self._hand_on(name)

    def _bound(self) -> None:
        """End the process if a loop does not notice a stop in time; a thread."""
        time.sleep(PATIENCE)
        if self._awaited:
            os._exit(self.code)

    def _watch(self, reader: int) -> None:
        """Read the numbers of signals that Python writes as they come; a thread."""
        ends: float | None = None
        repeated = 0
        number = signal.SIGTERM
        while True:
            ready, _, _ = select.select([reader], [], [], None if ends is None else _AGAIN)
            if ready:
                received = os.read(reader, 1)[0]
                if received not in _STOPS:
                    continue
                if repeated:
                    repeated -= 1
                    continue
                if self._awaited:
                    os._exit(self.code)
                number = signal.Signals(received)
                self._awaited = True
                ends = time.monotonic() + PATIENCE
            elif not self._awaited:
                ends = None
            elif ends is not None and time.monotonic() >= ends:
                os._exit(self.code)
            elif self._stopped is None:
                repeated += 1
                self._again = True
                signal.pthread_kill(self._main, number)

    def _hand_on(self, name: signal.Signals) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver, name)
        elif self._state != "ending":
            self._kept.append(name)

    def _deliver(self, name: signal.Signals) -> None:
        """Do what a signal asks for; in the loop."""
        self._awaited = False
        if self._server is not None:
            self._server.receive(name)

    def _give_back(self) -> None:
        """Let signals mean to a forked child what they meant before."""
        fd = signal.set_wakeup_fd(-1)
        if fd not in (-1, self._writer):
            signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        for number, before in self._before.items():
            if signal.getsignal(number) == self._received:
                signal.signal(number, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def _woken(loop: asyncio.AbstractEventLoop, before: int) -> Iterator[None]:
    """Let a signal wake a loop that is about to sleep; uvloop's does so by itself.

    Args:
        loop: the running one.
        before: the descriptor that Python tells of signals where there is no loop.
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
