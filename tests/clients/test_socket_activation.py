"""Sockets passed by systemd: `fastlisten serve` started by `systemd-socket-activate`.

Rules of this file: systemd-socket-activate listens, and starts the program in its place with the
first client.
"""

from __future__ import annotations

import contextlib
import os
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

from support.environment import clean_environment
from support.marks import external
from support.program import Program, program
from support.waiting import PATIENCE, until

CONFIG = """
[server.listener.{name}]
protocol = "lmtp"
bind = "systemd:{name}"
tls.enable = false
"""

ACTIVATE = "systemd-socket-activate"


def activating() -> list[str]:
    """Return the beginning of the command, which says what it passes on of the environment."""
    environment = clean_environment()
    command = [ACTIVATE, "-E", f"PYTHONPATH={environment['PYTHONPATH']}"]
    if "LD_PRELOAD" in environment:  # a sanitized build cannot be imported without it
        command += ["-E", "LD_PRELOAD", "-E", "ASAN_OPTIONS", "-E", "PYTHONMALLOC"]
    return command


@contextlib.contextmanager
def activated(directory: Path, text: str, **paths: str) -> Iterator[Program]:
    """Let systemd-socket-activate listen on a Unix socket for each name; none has a client yet."""
    wrapper = activating()
    for path in paths.values():
        wrapper += ["-l", path]
    wrapper.append(f"--fdname={':'.join(paths)}")
    with program(directory, text, listeners=-1, wrapper=wrapper) as started:
        yield started


def connected(path: str) -> socket.socket:
    """Connect as soon as somebody listens."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)

    def attempt() -> bool:
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    until(attempt, "systemd-socket-activate")
    return sock


@external(ACTIVATE)
def test_first_client_starts_the_program_and_is_served(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    text = CONFIG.format(name="one") + CONFIG.format(name="two")
    with activated(tmp_path, text, two=two, one=one) as started:
        with connected(one) as client:
            assert client.recv(4096).startswith(b"220 mx.example.org ")
            # Each name has its own socket.
            until(lambda: len(started.addresses) == 2, "the listeners")
            assert started.addresses == {"one": [f"unix:{one}"], "two": [f"unix:{two}"]}
            with smtplib.LMTP(two, timeout=PATIENCE) as lmtp:
                lmtp.sendmail("a@example.net", ["alice@example.org"], "Subject: hello\r\n\r\nhi")
        assert len(started.messages()) == 1
        assert started.stop() == 0
    # Whoever has made the sockets removes them.
    assert os.path.exists(one)
    assert os.path.exists(two)


@external(ACTIVATE)
def test_workers_serve_the_sockets_that_the_supervisor_was_passed(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    text = "workers = 2\n" + CONFIG.format(name="one") + CONFIG.format(name="two")
    with activated(tmp_path, text, two=two, one=one) as started:
        supervisor = started.process.pid
        with connected(one) as client:
            assert client.recv(4096).startswith(b"220 ")
        until(lambda: started.err.count(" serves\n") == 2, "both workers")
        # The manager knows one process only, the one that it has started.
        assert f"{supervisor}" == Path(f"/proc/{started.pid}/stat").read_text().split()[3]
        for path in (one, two):
            with smtplib.LMTP(path, timeout=PATIENCE) as lmtp:
                lmtp.sendmail("a@example.net", ["alice@example.org"], "Subject: hello\r\n\r\nhi")
        assert len(started.messages()) == 2
        started.process.terminate()
        assert started.ended() == 0
    assert os.path.exists(one)
    assert os.path.exists(two)


@external(ACTIVATE)
def test_name_that_systemd_does_not_pass_fails_the_start(tmp_path: Path) -> None:
    path = str(tmp_path / "one")
    with activated(tmp_path, CONFIG.format(name="onne"), one=path) as started:
        with connected(path):
            assert started.ended() == 3
        assert started.err.splitlines()[-1] == (
            'error: listener "onne" on systemd:onne: systemd: systemd has passed no socket named '
            '"onne"; did you mean "one"?'
        )


def test_sockets_of_another_process_are_not_taken(tmp_path: Path) -> None:
    """As in a program that a service has started, and that has inherited its environment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        environ = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "one", "LISTEN_PID": str(os.getpid())}
        with program(
            tmp_path,
            CONFIG.format(name="one"),
            listeners=0,
            environ=environ,
            pass_fds=(sock.fileno(),),
        ) as started:
            assert started.ended() == 3
            said = f"systemd has passed its sockets to PID {os.getpid()}, this is PID"
            assert said in started.err


@external(ACTIVATE)
def test_activated_service_is_ready_after_it_listens(tmp_path: Path) -> None:
    path, address = str(tmp_path / "one"), str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        manager.bind(address)
        wrapper = activating()
        wrapper += ["-E", f"NOTIFY_SOCKET={address}", "-l", path, "--fdname=one"]
        with program(tmp_path, CONFIG.format(name="one"), listeners=-1, wrapper=wrapper) as started:
            with connected(path) as client:
                assert manager.recv(4096).startswith(b"READY=1\n")
                assert client.recv(4096).startswith(b"220 ")
            assert started.stop() == 0
            assert manager.recv(4096).startswith(b"STOPPING=1\n")
