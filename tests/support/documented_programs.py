"""Programs of a documentation page: started on free ports, checked, interrupted.

Rules of this file: programs are started and interrupted as a user would do it.
"""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

from support.environment import importing_environment
from support.foreign_clients import make_certificate
from support.waiting import PATIENCE, until

__all__ = ["Check", "Ports", "run", "trust"]

#: Exit statuses of interrupted programs: their own, CPython's, or the signal.
INTERRUPTED = (0, 1, -signal.SIGINT)


class Ports:
    """A free port for each port of a program, kept until the program, with SO_REUSEADDR, has it."""

    def __init__(self) -> None:
        self.sockets: dict[int, socket.socket] = {}

    def __call__(self, written: re.Match[str]) -> str:
        return str(self[int(written[0])])

    def __getitem__(self, port: int) -> int:
        """Return the free port that replaces a port of the page."""
        if port not in self.sockets:
            sock = self.sockets[port] = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
        number: int = self.sockets[port].getsockname()[1]
        return number

    def replace(self, text: str) -> str:
        """Replace the ports of a text by free ones."""
        return re.sub(r"\b8\d\d\d\b", self, text)

    def close(self) -> None:
        """Release all ports."""
        for sock in self.sockets.values():
            sock.close()


Check = Callable[[Ports, Path], None]


def trust(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "certificate.pem")


def listens(port: int) -> bool:
    """Return whether a port of 127.0.0.1 is listening, without connecting."""
    wanted = [f"0100007F:{port:04X}", "00000000:0000", "0A"]
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return any(line.split()[1:4] == wanted for line in lines)


def run(command: list[str], folder: Path, ports: Ports, check: Check) -> None:
    """Start a program, check it, interrupt it; check that its log has no errors."""
    make_certificate(folder)
    log = folder / "log"
    with log.open("wb") as output:
        # If a shell started the tests in the background, SIGINT is ignored, which is inherited.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=importing_environment(),
            stdout=output,
            stderr=output,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        numbers = [ports[port] for port in ports.sockets]
        until(lambda: process.poll() is not None or all(map(listens, numbers)), "the start")
        assert process.poll() is None, log.read_text()
        check(ports, folder)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) in INTERRUPTED, log.read_text()
    finally:
        process.kill()
        process.wait()
        ports.close()
    said = log.read_text()
    assert "ResourceWarning" not in said
    assert "never retrieved" not in said
    assert set(re.findall(r"^(\w*(?:Error|Exception))\b", said, re.MULTILINE)) == set(), said
