"""``uvicorn --loop fastlisten:new_event_loop``: the program, its signals, its worker processes.

Rules of this file: the program is started as its users start it, and stopped by a signal.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.environment import importing_environment
from support.foreign import foreign
from support.foreign_clients import Address, Certificate, make_certificate
from support.waiting import PATIENCE, until

uvicorn, _, httpx, pytestmark = foreign("uvicorn", "httptools", "httpx")
pytestmark += [pytest.mark.usefixtures("descriptors_back")]

APPLICATION = """
import asyncio, json, os
from fastlisten.loop.engines import engine_for

async def app(scope, receive, send):
    if scope["path"] == "/slow":
        open("arrived", "w").close()
        while not os.path.exists("go"):
            await asyncio.sleep(0.005)
    loop = asyncio.get_running_loop()
    found = {"loop": type(loop).__name__, "pid": os.getpid()}
    if hasattr(loop, "connect_accepted_socket") and "fastlisten" in type(loop).__module__:
        found["served"] = engine_for(loop).census()["served"]
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": json.dumps(found).encode()})
"""

OURS = ("--loop", "fastlisten:new_event_loop")


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)


@contextlib.contextmanager
def program(folder: Path, *options: str, pass_fds: tuple[int, ...] = ()) -> Iterator[Any]:
    """Run uvicorn in a folder with the application; yield the process, its log in `log`."""
    (folder / "application.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "uvicorn", "application:app", "--lifespan", "off", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=importing_environment(),
            stderr=log,
            stdout=log,
            pass_fds=pass_fds,
        )
    try:
        started = "Uvicorn running on"
        until(lambda: started in text(folder) or process.poll() is not None, "the start")
        assert process.poll() is None, text(folder)
        yield process
    finally:
        process.kill()
        process.wait()


def text(folder: Path) -> str:
    return (folder / "log").read_text()


def port(folder: Path) -> int:
    found = re.search(r"running on https?://127.0.0.1:(\d+)", text(folder))
    assert found, text(folder)
    return int(found[1])


def end(process: Any, folder: Path, number: int = signal.SIGTERM) -> int:
    """Send a signal; return the exit status. Checks that the log has no errors."""
    process.send_signal(number)
    status: int = process.wait(PATIENCE)
    for wrong in ("Traceback", "Error", "Warning", "error:"):
        assert wrong not in text(folder), text(folder)
    return status


@pytest.mark.parametrize(
    ("way", "protocol"),
    [("tcp", "h11"), ("tls", "httptools"), ("unix", "h11"), ("descriptor", "httptools")],
)
def test_program_serves_on_our_loop(
    way: str, protocol: str, tmp_path: Path, certificate: Certificate
) -> None:
    address = Address("unix" if way == "descriptor" else way, str(tmp_path / "s"), certificate)
    keys = ("--ssl-keyfile", str(certificate.key), "--ssl-certfile", str(certificate.certificate))
    with contextlib.ExitStack() as open_things:
        options: tuple[str, ...] = ("--port", "0")
        descriptors: tuple[int, ...] = ()
        if way == "tls":
            options += keys
        elif way == "unix":
            options = ("--uds", address.path)
        elif way == "descriptor":
            bound = open_things.enter_context(address.bind())
            options, descriptors = ("--fd", str(bound.fileno())), (bound.fileno(),)
        options += ("--http", protocol)
        process = open_things.enter_context(
            program(tmp_path, *OURS, *options, pass_fds=descriptors)
        )
        if way in ("tcp", "tls"):
            address.port = port(tmp_path)
        transport = httpx.HTTPTransport(
            verify=certificate.client_context() if way == "tls" else False,
            uds=address.path if address.way == "unix" else None,
        )
        base = address.url("http")
        with httpx.Client(transport=transport, base_url=base, trust_env=False) as client:
            for _ in range(3):
                found = client.get("/").json()
        assert found == {"loop": "UvloopLoop", "pid": process.pid, "served": 1}
        assert end(process, tmp_path) == -signal.SIGTERM
    assert "Finished server process" in text(tmp_path)


@pytest.mark.parametrize(
    ("loop", "number"),
    [
        ("fastlisten:new_event_loop", signal.SIGTERM),
        ("fastlisten:new_event_loop", signal.SIGINT),
        ("uvloop", signal.SIGTERM),
        ("asyncio", signal.SIGINT),
    ],
)
def test_requests_finish_after_a_signal(loop: str, number: int, tmp_path: Path) -> None:
    answers: list[Any] = []
    with program(tmp_path, "--loop", loop, "--port", "0") as process:
        url = f"http://127.0.0.1:{port(tmp_path)}/slow"
        asking = threading.Thread(
            target=lambda: answers.append(httpx.get(url, timeout=PATIENCE, trust_env=False))
        )
        asking.start()
        until((tmp_path / "arrived").exists, "the request")
        process.send_signal(number)
        until(lambda: "Waiting for connections to close" in text(tmp_path), "the drain")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port(tmp_path)), PATIENCE)
        (tmp_path / "go").touch()
        asking.join()
        # uvicorn ends by the signal that it was sent, except for SIGINT.
        assert process.wait(PATIENCE) == (0 if number == signal.SIGINT else -number)
    (answer,) = answers
    assert answer.status_code == 200
    assert answer.json()["pid"] == process.pid
    assert "Traceback" not in text(tmp_path).replace("KeyboardInterrupt", "")


def test_several_worker_processes(tmp_path: Path) -> None:
    def reachable() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port(tmp_path)), PATIENCE).close()
            return True
        return False

    with program(tmp_path, *OURS, "--port", "0", "--workers", "2") as process:
        until(lambda: text(tmp_path).count("Started server process") == 2, "the workers")
        until(reachable, "the first worker that listens")
        url = f"http://127.0.0.1:{port(tmp_path)}/"
        found = [httpx.get(url, trust_env=False).json() for _ in range(20)]
        assert {answer["loop"] for answer in found} == {"UvloopLoop"}
        assert process.pid not in {answer["pid"] for answer in found}
        assert end(process, tmp_path) == 0
    assert text(tmp_path).count("Finished server process") == 2
