"""The program's standard input, output and error, whatever state they are in.

Rules of this file: descriptors 0 to 2 and the stream objects for them. The log is written to
standard error in another way (log_writer.py).

A descriptor that is closed at start is opened on /dev/null; otherwise a socket could get its number
and receive what is printed. A server outlives the reader of its first lines, so it drops output
that cannot be written and does not wait for a reader. For other commands the output is the purpose,
so output that cannot be written is an OutputError.
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

#: Milliseconds that a server waits for a slow reader; then not at all until it reads again.
_READER_TIMEOUT = 1000


class OutputError(Exception):
    """Standard output cannot be written; the text says why.

    Attributes:
        broken: it is a pipe whose reader has quit.
    """

    def __init__(self, message: str, *, broken: bool = False) -> None:
        self.broken = broken
        super().__init__(f"standard output{message}")


def set_up(*, serving: bool) -> None:
    """Make the three streams of this process usable.

    Args:
        serving: for a server; otherwise output that cannot be written is an error.
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
    """Raise OutputError if standard output was closed at start."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Output):
        raw.check()


def _occupy() -> set[int]:
    """Open closed standard descriptors on /dev/null; return which were closed."""
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
            # There is no /dev: use something that can be neither read nor written.
            null = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        if null == fd:
            # Programs started by this one need it, too.
            os.set_inheritable(fd, True)
        else:
            os.dup2(null, fd)
            os.close(null)
    return closed


def _text(raw: _DescriptorStream, before: TextIO | None) -> TextIO:
    """Return a text stream with the encoding of another; it escapes what it cannot encode."""
    encoding = "utf-8" if before is None else before.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True
    )


class _DescriptorStream(io.RawIOBase):
    """A descriptor to which writing never fails; output that cannot be written is dropped."""

    def __init__(self, fd: int, *, waits: bool = False) -> None:
        self._fd = fd
        self._waits = waits
        self._timeout = _READER_TIMEOUT

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what can be written and drop the rest; return the size of all."""
        with memoryview(data) as view, view.cast("B") as octets:
            with contextlib.suppress(OSError):
                self._write(octets)
            return len(octets)

    def _write(self, rest: memoryview) -> None:
        # A pipe that poll(2) reports as writable takes this much without blocking (pipe(7)).
        while rest and self._wait():
            rest = rest[os.write(self._fd, rest[: select.PIPE_BUF]) :]

    def _wait(self) -> bool:
        """Wait until it can be written; return False if that takes too long for a server."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        ready = bool(poll.poll(None if self._waits else self._timeout))
        self._timeout = _READER_TIMEOUT if ready else 0
        return ready


class _Output(_DescriptorStream):
    """Standard output of a command whose purpose is its output.

    Args:
        fd: the descriptor.
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
        """Write everything.

        Raises:
            OutputError: that failed. Raised once; afterwards nothing is written.
        """
        with memoryview(data) as view, view.cast("B") as octets:
            if not self._failed:
                self.check()
                try:
                    self._write(octets)
                except OSError as error:
                    # The buffering layers above will write the same again when they are closed.
                    self._failed = True
                    broken = error.errno == errno.EPIPE
                    raise OutputError(f": {error.strerror}", broken=broken) from None
            return len(octets)
