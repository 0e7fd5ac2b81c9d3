"""Reloads of a server with several workers, for tests.

Rules of this file: the file is really changed, and the command is a program of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.environment import clean_environment
from support.program import run
from support.waiting import PATIENCE, until
from support.workers import WHO, Workers, line

__all__ = [
    "append",
    "ask",
    "background",
    "commanded",
    "connected",
    "descriptors",
    "head",
    "listener",
    "refused",
    "reload",
    "reloads",
    "rewrite",
    "signalled",
    "status",
]


def head(directory: Path) -> str:
    """Return the keys of `[server]` that commands need."""
    return f'control-socket = "{directory / "control"}"\n'


def listener(directory: Path, id: str, lines: str = "") -> str:
    """Return a listener on a Unix socket with its id as the name; `connected` connects to it."""
    text = WHO.replace("listener.it", f"listener.{id}") + lines
    return text.replace("127.0.0.1:0", f"unix:{directory / id}.sock")


def connected(server: Workers, id: str) -> socket.socket:
    """Return a new client of such a listener."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(f"{server.directory / id}.sock")
    return client


def ask(server: Workers, id: str) -> bytes:
    """Return the first line that a new client of such a listener gets."""
    with connected(server, id) as client:
        return line(client)


# --- the file -------------------------------------------------------------------------------------


def rewrite(server: Workers, old: str, new: str) -> None:
    """Replace something in the configuration."""
    path = server.directory / "mail.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def append(server: Workers, text: str) -> None:
    """Add something to the end of the configuration."""
    with (server.directory / "mail.toml").open("a") as file:
        file.write(text)


# --- commands -------------------------------------------------------------------------------------


def commanded(server: Workers, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command for the server."""
    file = server.directory / "mail.toml"
    return run(*command, "--config", file, TOLD=str(server.directory))


@contextlib.contextmanager
def background(server: Workers, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command for the server, which ends within the block or is killed."""
    with subprocess.Popen(
        [sys.executable, "-m", "fastlisten", *command, "--config", server.directory / "mail.toml"],
        env=clean_environment(TOLD=str(server.directory)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def reload(server: Workers) -> subprocess.CompletedProcess[str]:
    """Run `fastlisten reload`."""
    return commanded(server, "reload")


def refused(server: Workers, *command: str) -> str:
    """Run a command, which is refused; return why."""
    # With the socket, because the command would read the file, too.
    done = run(*command, "--socket", server.directory / "control", TOLD=str(server.directory))
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def status(server: Workers) -> dict[str, dict[str, Any]]:
    """Return what `fastlisten status` says about each listener."""
    found = json.loads(commanded(server, "status", "--json").stdout)["listeners"]
    return {one["id"]: one for one in found}


# --- SIGHUP ---------------------------------------------------------------------------------------


def reloads(server: Workers) -> int:
    """Return how many reloads have changed something so far."""
    return server.err.count("fastlisten: reloaded ")


def signalled(server: Workers) -> None:
    """Reload by SIGHUP; wait for the end of the reload, which changes something."""
    before = reloads(server)
    server.signal(signal.SIGHUP)
    until(lambda: reloads(server) > before, "the reload")


def descriptors(server: Workers) -> list[int]:
    """Return how many descriptors the supervisor and each worker have."""
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (server.pid, *server.pids)]
