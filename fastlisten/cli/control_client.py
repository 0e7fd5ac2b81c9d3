"""The client of the control socket, for the commands that ask a running server.

Rules of this file: it finds the server, sends requests and returns answers; what fails is a
`ControlError` with the exit code. The commands print. It blocks, but never for longer than a
timeout.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, TextIO

from fastlisten.cli.check import CONFIGURATION_ERROR, read_config
from fastlisten.config import default_config
from fastlisten.errors import FastlistenError
from fastlisten.runtime.control_socket.socket_file import possible_paths

__all__ = ["FAILED", "NO_SERVER", "TIMEOUT", "ControlClient", "ControlError", "find"]

#: The server refused the request, or did not answer.
FAILED = 1

#: No server could be reached.
NO_SERVER = 3

#: Seconds to wait for an answer. The server's loop makes it in milliseconds.
TIMEOUT = 10.0

#: A reload reads and checks files, opens sockets and waits for worker processes. A restart waits
#: for one worker after the other, each of which may take seconds to start. An upgrade checks the
#: new program before that.
_TIMEOUTS = {"reload": 60.0, "restart": 600.0, "upgrade": 660.0}

#: Seconds between attempts to connect while the server's backlog is full.
_RETRY = 0.1

_CREDENTIALS = struct.Struct("iII")


class ControlError(FastlistenError):
    """A request failed.

    Attributes:
        code: the exit code of the command.
    """

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


class _UnreachableError(ControlError):
    """No server answers at a path."""


class ControlClient:
    """A connection to a server, made with the first request.

    Args:
        paths: where its control socket may be; the first that is the right server's is used.
        config: the path of the configuration file it must have been started with; empty for any.
    """

    def __init__(self, paths: list[str], config: str = "") -> None:
        self._paths = paths
        self._config = os.path.realpath(config) if config else ""
        self._sock: socket.socket | None = None
        self._received = b""

    def ask(self, command: str, **values: object) -> dict[str, Any]:
        """Send a request; return the answer.

        Raises:
            ControlError: no server can be reached, it refuses the request or does not answer.
        """
        request: dict[str, object] = {"command": command, **values}
        if self._config:
            request["config"] = self._config
        if self._sock is not None:
            return _checked(self._exchange(self._sock, request))
        failures: list[str] = []
        for path in self._paths:
            try:
                sock = _connect(path)
            except _UnreachableError as error:
                failures.append(str(error))
                continue
            self._sock = sock
            answer = self._exchange(sock, request)
            if answer.get("error") != "wrong-server":
                return _checked(answer)
            failures.append(f"{path}: {answer.get('message')}")
            self.close()
        raise ControlError(NO_SERVER, f"no running server found: {'; '.join(failures)}")

    def close(self) -> None:
        """Close the connection."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._received = b""

    def _exchange(self, sock: socket.socket, request: dict[str, object]) -> dict[str, Any]:
        timeout = _TIMEOUTS.get(str(request["command"]), TIMEOUT)
        try:
            sock.settimeout(timeout)
            sock.sendall(json.dumps(request).encode() + b"\n")
            line = b"".join(self._line(sock))
        except TimeoutError:
            text = f"the server{_pid(sock)} has not answered within {timeout:g} s"
            raise ControlError(FAILED, text) from None
        except OSError as error:
            text = f"the connection to the server{_pid(sock)} was lost: {error.strerror}"
            raise ControlError(FAILED, text) from None
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ControlError(FAILED, "the server closed the connection before it had answered")
        return answer

    def _line(self, sock: socket.socket) -> Iterator[bytes]:
        """Yield the parts of a line, without its end."""
        while True:
            line, end, rest = self._received.partition(b"\n")
            yield line
            self._received = rest
            if end:
                return
            self._received = sock.recv(1 << 20)
            if not self._received:
                return


def find(file: str | None, path: str | None, err: TextIO) -> ControlClient:
    """Return a client of the server that the command line means.

    Args:
        file: the configuration it was started with; None for any.
        path: its control socket; None to look where servers have it by default.
        err: receives mistakes in the configuration.

    Raises:
        ControlError: the configuration cannot be used.
    """
    if path is not None:
        return ControlClient([path], file or "")
    config = default_config() if file is None else read_config(file, err)
    if config is None:
        raise ControlError(CONFIGURATION_ERROR, "")
    return ControlClient(possible_paths(config), file or "")


def _connect(path: str) -> socket.socket:
    """Return a connection.

    Raises:
        ControlError: the user may not connect, or the server does not accept.
        _UnreachableError: there is no server.
    """
    sock = socket.socket(socket.AF_UNIX)
    ends = time.monotonic() + TIMEOUT
    sock.settimeout(TIMEOUT)
    try:
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:  # its backlog is full
                if time.monotonic() > ends:
                    text = f"the server at {path} has not accepted within {TIMEOUT:g} s"
                    raise ControlError(FAILED, text) from None
                time.sleep(_RETRY)
    except PermissionError:
        sock.close()
        who = "run this as root or as the server's user"
        raise ControlError(NO_SERVER, f"permission denied for {path}: {who}") from None
    except OSError as error:
        sock.close()
        why = "no process listens" if error.errno == errno.ECONNREFUSED else error.strerror
        raise _UnreachableError(NO_SERVER, f"{path}: {why or error}") from None
    except BaseException:
        sock.close()
        raise


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if answer.get("ok") is True:
        return answer
    code = NO_SERVER if answer.get("error") == "wrong-server" else FAILED
    raise ControlError(code, str(answer.get("message", "the server refused the request")))


def _pid(sock: socket.socket) -> str:
    """Return the process that listens, in parentheses; empty if it is in another namespace."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid = _CREDENTIALS.unpack(data)[0]
    return f" (PID {pid})" if pid else ""
