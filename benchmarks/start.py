"""Measures how long a server with thousands of listeners takes to start, up to the last greeting.

Rules of this file: the whole program is measured, as an administrator starts it: interpreter,
imports, configuration, sockets. The last greeting is that of the listener that is set up last.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.build import ROOT
from benchmarks.process import MeasurementError

__all__ = ["LISTENERS", "address", "configuration", "free_port", "time_to_last_greeting"]

#: Each listener has a socket; a common limit is 20,000 descriptors per process.
LISTENERS = 10_000

#: Longest wait for the greeting, in seconds, and the pause between two attempts to connect.
PATIENCE, PAUSE = 60.0, 0.002


def address(number: int) -> str:
    """Return the address of a listener; all listeners use the same port."""
    return f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def free_port() -> int:
    """Return a port that is free on the first address and on the wildcard address."""
    with socket.create_server((address(1), 0)) as sock:
        return int(sock.getsockname()[1])


def configuration(listeners: int, port: int) -> str:
    """Return a configuration of smtp listeners, which are set up in the order of their ids."""
    head = "[server]\nhostname = 'mx.example.org'\n"
    return head + "".join(
        f'\n[server.listener."customer-{number:05}"]\n'
        f'bind = "{address(number)}:{port}"\n'
        'protocol = "smtp"\n'
        "max-connections = 1000\n"
        for number in range(1, listeners + 1)
    )


def _command(candidate: str, directory: Path, listeners: int, port: int) -> list[str]:
    if not candidate.startswith("fastlisten"):
        module = "benchmarks.candidates.many_servers"
        return [sys.executable, "-m", module, str(listeners), str(port), candidate]
    file = directory / "mail.toml"
    file.write_text(configuration(listeners, port))
    return [sys.executable, "-m", "fastlisten", "serve", str(file)]


def time_to_last_greeting(candidate: str, core: int, listeners: int = LISTENERS) -> float:
    """Return how many seconds a candidate takes from its start to its last greeting.

    Args:
        candidate: ``fastlisten``, or the name of an event loop.
        core: the core that the server runs on.
        listeners: number of listeners.

    Raises:
        MeasurementError: the server ended, or did not greet.
    """
    with tempfile.TemporaryDirectory(prefix="fastlisten-benchmarks-") as directory:
        port = free_port()
        command = _command(candidate, Path(directory), listeners, port)
        # Its output goes to a file, because an unread pipe could block it.
        with open(Path(directory) / "output", "w+", encoding="utf-8") as output:
            began = time.monotonic()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, "STATE_DIRECTORY": directory},
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
            try:
                _wait_for_greeting(process, (address(listeners), port), began + PATIENCE)
                return time.monotonic() - began
            except MeasurementError as error:
                output.seek(0)
                raise MeasurementError(f"{error}: {command}: {output.read()[-500:]}") from None
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(PATIENCE)
                finally:
                    process.kill()
                    process.wait()


def _wait_for_greeting(
    process: subprocess.Popen[bytes], last: tuple[str, int], until: float
) -> None:
    while time.monotonic() < until:
        try:
            with socket.create_connection(last, timeout=PATIENCE) as client:
                if client.recv(1024).startswith(b"220 "):
                    return
                raise MeasurementError("another greeting")
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise MeasurementError(f"ended with {process.returncode}") from None
            time.sleep(PAUSE)
        except OSError as error:
            raise MeasurementError(f"no greeting: {error}") from None
    raise MeasurementError("no greeting in time")
