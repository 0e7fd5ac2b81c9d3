"""TLS clients of a served configuration: Python's ssl, and `openssl s_client`.

Rules of this file: no test in it. Clients have timeouts for the case that the server hangs.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from support.certificates import authority
from support.program import Program
from support.waiting import PATIENCE

HOST = "127.0.0.1"


def context(*, check: bool = True, **settings: object) -> ssl.SSLContext:
    """Return a client's context that trusts the authority of the tests."""
    made = authority().client_context()
    made.check_hostname = check
    for name, value in settings.items():
        setattr(made, name, value)
    return made


@contextlib.contextmanager
def client(
    port: int,
    with_context: ssl.SSLContext | None = None,
    name: str | None = "mx.example.org",
    session: ssl.SSLSession | None = None,
) -> Iterator[ssl.SSLSocket]:
    """Connect and perform the handshake."""
    with (
        socket.create_connection((HOST, port), PATIENCE) as plain,
        (with_context or context()).wrap_socket(
            plain, server_hostname=name, session=session
        ) as encrypted,
    ):
        yield encrypted


def ask(connection: ssl.SSLSocket) -> dict[str, Any]:
    """Send ``tell`` to a handler `Tell`; return its answer."""
    connection.sendall(b"tell")
    line = b""
    while not line.endswith(b"\n"):
        data = connection.recv(65536)
        assert data, "the server closed"
        line += data
    told: dict[str, Any] = json.loads(line)
    return told


def read_to_end(connection: socket.socket) -> bytes:
    """Read to the end; a TLS connection must end with close_notify."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


@dataclass(frozen=True)
class Seen:
    """The output of `openssl s_client`.

    Attributes:
        code: its exit code; 0 after a handshake.
        text: all of it.
    """

    code: int
    text: str

    def field(self, pattern: str) -> str:
        found = re.search(pattern, self.text)
        return found[1].strip() if found else ""

    @property
    def cipher(self) -> str:
        return self.field(r"Cipher is (\S+)")


def s_client(port: int, *arguments: str | bytes) -> Seen:
    """Perform a handshake with `openssl s_client`, and send nothing more."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{HOST}:{port}", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return Seen(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))


def lines(started: Program, what: str) -> list[str]:
    """Return the lines of a program's log that contain a text, without date and time."""
    return [line[20:] for line in started.err.splitlines() if what in line]
