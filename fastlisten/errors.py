"""Errors, split by whose fault they are: the configuration author's, the system's, the peer's.

Rules of this file: it imports nothing of the package; every error has attributes for what callers
need, so that they need not parse its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "ConfigurationError",
    "FastlistenError",
    "PeerError",
    "Problem",
    "SettingError",
    "SocketFailure",
    "StartError",
]


class FastlistenError(Exception):
    """Base class of all errors that the package raises on purpose."""


# --- the configuration's author ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration, or one warning about it.

    Attributes:
        message: what is wrong.
        file: the file name as the user gave it, empty if there is none.
        line: 1-based line of the key, 0 if unknown.
        key: the dotted key in TOML notation, empty if the mistake concerns the whole file.
        value: the value in TOML notation, empty if there is none to show.
        allowed: what would be accepted.
        suggestion: the key or value that was probably meant.
    """

    message: str
    file: str = ""
    line: int = 0
    key: str = ""
    value: str = ""
    allowed: str = ""
    suggestion: str = ""

    @property
    def fields(self) -> dict[str, object]:
        """The fields of a log record about it (log_events.py)."""
        line = self.line or None
        return {"key": self.key, "value": self.value, "line": line, "error": self.message}

    def __str__(self) -> str:
        """Return ``file:line: key = value: what is wrong; what is allowed; did you mean``."""
        where = (
            f"{self.file or '<config>'}:{self.line}: "
            if self.line
            else f"{self.file or '<config>'}: "
        )
        subject = (
            f"{self.key} = {self.value}: " if self.value else f"{self.key}: " if self.key else ""
        )
        text = where + subject + self.message
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        if self.suggestion:
            text += f"; did you mean {self.suggestion}?"
        return text


class ConfigurationError(FastlistenError):
    """A configuration that cannot be used; reports all its mistakes at once.

    Attributes:
        problems: every mistake found, in order of line.
        warnings: what else was noticed; these alone would not be an error.
    """

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SettingError(FastlistenError):
    """Raised by a handler's constructor for a configured value that it cannot use.

    Attributes:
        key: the dotted key of the value on a listener: ``app``, ``smtp.relay``; empty if the
            handler cannot be used at all.
    """

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


# --- the operating system ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SocketFailure:
    """One system call that failed while sockets were set up.

    Attributes:
        listener: id of the listener, None for the control socket.
        address: the address as written in the configuration; the path of the control socket.
        operation: ``socket``, ``bind``, ``listen``, or the option's configuration key.
        value: the option's value, empty for other operations.
        errno: the kernel's error number.
        text: the error text, and which process uses the address if that is known.
    """

    listener: str | None
    address: str
    operation: str
    value: str
    errno: int
    text: str

    def __str__(self) -> str:
        """Return ``listener "id" on address: operation (value): text``."""
        if self.listener is None:
            return f"{self.operation}: {self.text}"
        what = f"{self.operation} = {self.value}" if self.value else self.operation
        return f'listener "{self.listener}" on {self.address}: {what}: {self.text}'


class StartError(FastlistenError):
    """Listening failed; reports the failures of all listeners together.

    Attributes:
        failures: every failed operation, in order of listener and bind.
    """

    def __init__(self, failures: Sequence[SocketFailure]) -> None:
        self.failures = tuple(failures)
        super().__init__("\n".join(str(failure) for failure in self.failures))


# --- the peer ---------------------------------------------------------------------------------


class PeerError(FastlistenError):
    """The peer violated the protocol.

    Attributes:
        reply: the protocol's reply to that, ready to be sent, or empty.
    """

    def __init__(self, message: str, reply: bytes = b"") -> None:
        self.reply = reply
        super().__init__(message)
