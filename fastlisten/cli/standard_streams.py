"""The program's standard input, output and error, whatever state they are in.

Rules of this file: descriptors 0 to 2 and the objects over them, not what is written to them. The
log has its own way to standard error (log_writer.py).

Descriptors that are closed at start are opened on /dev/null, so that no socket gets their number
and with it what somebody prints. A server lives longer than whoever read its first lines: what it
cannot write is dropped, and it does not wait for a reader. The output of other
commands is all they are for: what they cannot write is an OutputError.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["OutputError", "check_output", "set_up"]

_STDIN, _STDOUT, _STDERR = 0, 1, 2

#: Milliseconds to wait for a reader that is behind: once, until it reads again.
_PATIENCE = 1000


class OutputError(Exception):
    """Standard output cannot be written; the text says why.

    Attributes:
        broken: its reader has gone.
    """

    def __init__(self, message: str, *, broken: bool = False) -> None:
        self.broken = broken
        super().__init__(f"standard output{message}")


def set_up(*, serving: bool) -> None:
    """Make the three streams of this process usable.

    Args:
        serving: they are a server's; otherwise output that cannot be written is an error.
    """
    closed = _occupy()
    if sys.stdin is None:
        sys.stdin = open(_STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115
    out: _DescriptorStream = (
        _DescriptorStream(_STDOUT) if serving else _Output(_STDOUT, _STDOUT in closed)
    )
    sys.stdout = _text(out, sys.stdout)
    sys.stderr = _text(_DescriptorStream(_STDERR, waits=not serving), sys.stderr)


def check_output() -> None:
    """Raise OutputError if standard output was closed at start, before anything is done."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Output):
        raw.check()


def _occupy() -> set[int]:
    """Open /dev/null where standard descriptors are closed; return which were."""
    closed = set()
    for fd in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(fd)
            continue
        except OSError:
            closed.add(fd)
        try:
            null = os.open(os.devnull, os.O_RDWR)
        except OSError:
            # No /dev: use something that can be neither read nor written.
            null = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        if null == fd:
            # Programs that this one starts need it, too.
            os.set_inheritable(fd, True)
        else:
            os.dup2(null, fd)
            os.close(null)
    return closed


def _text(raw: _DescriptorStream, before: TextIO | None) -> TextIO:
    """Return a text stream with the encoding of another; what it cannot encode is escaped."""
    encoding = "utf-8" if before is None else before.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True
    )


class _DescriptorStream(io.RawIOBase):
    """A descriptor that can always be written to, even if nothing arrives."""

    def __init__(self, fd: int, *, waits: bool = False) -> None:
        self._fd = fd
        self._waits = waits
        self._patience = _PATIENCE

    def fileno(self) -> int:
        """Return its number."""
        return self._fd

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Return True, whatever becomes of what is written."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what can be written, drop the rest; return the size of both."""
        with memoryview(data) as view, view.cast("B") as octets:
            with contextlib.suppress(OSError):
                self._write(octets)
            return len(octets)

    def _write(self, rest: memoryview) -> None:
        # A pipe that poll(2) calls writable takes so much without blocking (pipe(7)).
        while rest and self._wait():
            rest = rest[os.write(self._fd, rest[: select.PIPE_BUF]) :]

    def _wait(self) -> bool:
        """Wait until it can be written; False if that takes too long for a server."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        ready = bool(poll.poll(None if self._waits else self._patience))
        self._patience = _PATIENCE if ready else 0
        return ready


class _Output(_DescriptorStream):
    """Standard output of a command whose purpose is its output.

    Args:
        fd: its descriptor.
        closed: it was closed at start.
    """

    def __init__(self, fd: int, closed: bool) -> None:
        super().__init__(fd, waits=True)
        self._closed = closed
        self._failed = False

    def check(self) -> None:
        """Raise OutputError if it was closed at start."""
        if self._closed:
            self._failed = True
            raise OutputError(" is closed")

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all.

        Raises:
            OutputError: that failed, the first time; later nothing is written.
        """
        with memoryview(data) as view, view.cast("B") as octets:
            if not self._failed:
                self.check()
                try:
                    self._write(octets)
                except OSError as error:
                    # What the layers above keep is offered once more when they go.
                    self._failed = True
                    broken = error.errno == errno.EPIPE
                    raise OutputError(f": {error.strerror}", broken=broken) from None
            return len(octets)
