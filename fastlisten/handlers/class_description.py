"""What a configuration needs to know about a handler class, found out without importing the class.

A server with several workers, or one that is going to change its user, must not import handlers in
the process that starts: it may be root, and workers forked later would never load newer code. So a
child imports the class, as the user that serves, and says what its class variables are.

Rules of this file: nothing of a class is imported in this process. The child runs other people's
code, so what it says is JSON (never pickle) and checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastlisten.option import Option, SocketOption
from fastlisten.privileges import Identity

if TYPE_CHECKING:
    from fastlisten.handlers.base import Handler

__all__ = [
    "IMPORT_SECONDS",
    "ClassDescription",
    "Describe",
    "DescriptionError",
    "describe_apart",
]

#: The most octets of a description; a class with a hundred rows has some 50,000.
_MAX_SIZE = 4 << 20

#: Seconds that a child has: fewer than the check of an upgrade (60) and a start under systemd (90),
#: so that the error names the handler. Applications that load a lot need some ten.
IMPORT_SECONDS = 45.0


class DescriptionError(Exception):
    """A class cannot be described; the text says why."""


@dataclass(frozen=True, slots=True)
class ClassDescription:
    """The class variables that decide how a listener is configured, as in `handlers.base.Handler`.

    Attributes:
        default_port: the port of a bind without one.
        default_tls_port: the same with `tls.implicit`.
        server_speaks_first: the server greets.
        starttls: the protocol can switch to TLS.
        options: its rows of the option table.
    """

    default_port: int
    default_tls_port: int
    server_speaks_first: bool
    starttls: bool
    options: tuple[Option, ...]

    @classmethod
    def of(cls, kind: type[Handler]) -> ClassDescription:
        """Return the description of a class."""
        return cls(
            kind.default_port,
            kind.default_tls_port,
            kind.server_speaks_first,
            kind.starttls,
            tuple(kind.options),
        )


#: Returns the description of the class that ``package.module:Class`` names; raises a
#: `DescriptionError`.
Describe = Callable[[str], ClassDescription]


def describe_apart(name: str, identity: Identity | None) -> ClassDescription:
    """Import a handler class in a child process, and return what it says about the class.

    Args:
        name: ``package.module:Class``.
        identity: the user as which the child imports it; None for that of this process.

    Raises:
        DescriptionError: the class cannot be imported within `IMPORT_SECONDS`, or is no handler.
        OSError: no process or descriptor left.
    """
    reader, writer = os.pipe()
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns where there are other threads; the child takes none of their locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except BaseException:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        try:
            os.close(reader)
            _tell(writer, name, identity)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        text = _said(reader)
    except TimeoutError:
        late = f"handler {name!r}: importing it has not ended within {IMPORT_SECONDS:g} s"
        raise DescriptionError(late) from None
    finally:
        os.close(reader)
        # Also when this process is told to stop in the meantime.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise DescriptionError(f"handler {name!r}: importing it ended the process") from None
    if isinstance(told, dict) and isinstance(told.get("error"), str):
        raise DescriptionError(told["error"])
    try:
        return _read(told)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise DescriptionError(f"handler {name!r}: its class variables are invalid") from None


def _said(reader: int) -> bytes:
    """Return what a child has written until its end.

    Raises:
        TimeoutError: it, or a process that it has forked, has not ended in time.
    """
    deadline = time.monotonic() + IMPORT_SECONDS
    said = bytearray()
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while len(said) <= _MAX_SIZE:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError
        data = os.read(reader, _MAX_SIZE + 1 - len(said))
        if not data:
            break
        said += data
    return bytes(said)


def _tell(writer: int, name: str, identity: Identity | None) -> None:
    """Be the child: import the class and write its description."""
    try:
        if identity is not None:
            identity.drop()
        from fastlisten.handlers.importing import HandlerNotFoundError, named_handler

        try:
            described = ClassDescription.of(named_handler(name))
            text = json.dumps(dataclasses.asdict(described))
        except HandlerNotFoundError as error:
            text = json.dumps({"error": str(error)})
        except (TypeError, ValueError) as error:
            text = json.dumps({"error": f"handler {name!r}: its class variables: {error}"})
    except BaseException as error:
        text = json.dumps({"error": f"handler {name!r}: {type(error).__name__}: {error}"})
    data = text.encode()
    while data:
        data = data[os.write(writer, data) :]


def _read(told: Mapping[str, Any]) -> ClassDescription:
    """Return a description; raise some kind of error for anything else."""
    ports = told["default_port"], told["default_tls_port"]
    flags = told["server_speaks_first"], told["starttls"]
    if not all(type(port) is int and 0 <= port < 65536 for port in ports):
        raise ValueError("a port")
    if not all(type(flag) is bool for flag in flags):
        raise ValueError("a flag")
    return ClassDescription(*ports, *flags, tuple(map(_option, told["options"])))


def _option(told: Mapping[str, Any]) -> Option:
    values = {name: _frozen(value) for name, value in told.items()}
    for name in ("key", "kind", "text", "unit"):
        if type(values[name]) is not str:
            raise ValueError(name)
    for name in ("minimum", "maximum"):
        if values[name] is not None and type(values[name]) not in (int, float):
            raise ValueError(name)
    if values["reload"] not in ("live", "rebind", "restart") or type(values["extra"]) is not dict:
        raise ValueError("reload or extra")
    values["sockets"] = tuple(SocketOption(**one) for one in told["sockets"])
    return Option(**values)


def _frozen(value: Any) -> Any:
    """Return a value with tuples, which JSON has made lists."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
