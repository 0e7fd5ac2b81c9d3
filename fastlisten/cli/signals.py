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
lifespan that blocks its loop) ends the process, and so does a second one at once: there is nothing
to drain. SIGUSR1 and SIGUSR2, which scripts of logrotate send, are logged. They have a handler and
are not ignored, since an ignored signal stays ignored in the programs that an application starts.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import time

# For type checkers; importing typing takes longer than all of this file.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from fastlisten.runtime.server import Server

__all__ = ["PATIENCE", "Signals", "Stopped"]

#: Seconds that a stop may go unnoticed before anything is served: half of what `docker stop`
#: waits before it kills, and long for what `finally` blocks do.
PATIENCE = 5.0

_STOPS = frozenset((signal.SIGTERM, signal.SIGINT))
_TAKEN = (*_STOPS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(SystemExit):
    """The program was asked to stop before there was a loop to tell; names the signal."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number
        super().__init__(0)


class Signals:
    """The signals of this process, taken when it is made, in the main thread.

    Attributes:
        code: the exit code that the program has come to, for an end that cannot wait.
    """

    def __init__(self) -> None:
        self.code = 0
        self._state = "starting"
        self._served = False
        self._stopped: signal.Signals | None = None
        self._noticed = True
        self._kept: list[signal.Signals] = []
        self._hung_up = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._before = {number: signal.signal(number, self._received) for number in _TAKEN}
        for number in _TAKEN:
            if number not in _STOPS:
                # Nothing has to be interrupted for these.
                signal.siginterrupt(number, False)
        os.register_at_fork(after_in_child=self._give_back)
        # The first to be registered is the last to run. After it Python puts back the system's
        # handlers, where it finds one of its own.
        atexit.register(_ignore)

    # -- the states

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
        with _woken(loop):
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
                self._loop = None

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
        if self._stopped is not None:
            os._exit(self.code)
        self._stopped = name
        self._noticed = False
        # Not threading: its locks may be held by what was interrupted.
        _thread.start_new_thread(self._watch, ())
        if self._state == "starting":
            raise Stopped(name)
        self._hand_on(name)

    def _watch(self) -> None:
        time.sleep(PATIENCE)
        if not self._noticed:
            os._exit(self.code)

    def _hand_on(self, name: signal.Signals) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._deliver, name)
        elif self._state != "ending":
            self._kept.append(name)

    def _deliver(self, name: signal.Signals) -> None:
        """Do what a signal asks for; in the loop."""
        self._noticed = True
        assert self._server is not None
        self._server.receive(name)

    def _give_back(self) -> None:
        """Let signals mean to a forked child what they meant before."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._received:
                signal.signal(number, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def _woken(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let a signal wake a loop that is about to sleep; uvloop's does so by itself."""
    import socket

    own = signal.set_wakeup_fd(-1)
    if own != -1:
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
            signal.set_wakeup_fd(-1)
            loop.remove_reader(reader)


def _ignore() -> None:
    for number in _TAKEN:
        signal.signal(number, signal.SIG_IGN)
