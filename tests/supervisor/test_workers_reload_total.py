"""A total of connections in a server with several workers whose configuration is reloaded.

Rules of this file: the total is exact at every moment, so the test looks while the workers have the
new configuration and the supervisor has not finished.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from pathlib import Path

from support.waiting import PATIENCE, until
from support.workers import WHO, Workers, line, patched, workers

TOTAL = "total-connections = 10\n"

#: The supervisor waits after all workers have the new configuration, while there is a file `hold`.
HOLD = """
import os, pathlib, time
import fastlisten.runtime.plan as it
hold = pathlib.Path(os.environ["TOLD"], "hold")
commit = it.Plan.commit
def held(self, former, arena):
    while hold.exists():
        time.sleep(0.01)
    commit(self, former, arena)
it.Plan.commit = held
"""


def more(directory: Path) -> str:
    """Return a listener with a reserve, whose socket appears when it has been bound."""
    text = WHO.replace("listener.it", "listener.more") + "reserve = 3\n"
    return text.replace("127.0.0.1:0", f"unix:{directory / 'more.sock'}")


def connected(directory: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(directory / "more.sock"))
    return client


def said_to(server: Workers) -> bytes:
    """Return what a new client of the first listener hears."""
    with server.connect() as client:
        return line(client)


def said_by_more(server: Workers) -> bytes:
    with connected(server.directory) as client:
        return line(client)


def rewrite(server: Workers, text: str) -> None:
    (server.directory / "mail.toml").write_text(text)
    server.signal(signal.SIGHUP)


def reloads(server: Workers) -> int:
    return server.err.count("fastlisten: reloaded ")


def test_new_reserve_counts_before_anybody_accepts(tmp_path: Path) -> None:
    environ = patched(tmp_path, HOLD)
    with workers(tmp_path, 2, head=TOTAL, environ=environ) as two, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(two.connect()) for _ in range(10)]
        assert all(line(client).strip().isdigit() for client in clients)
        (tmp_path / "hold").touch()
        rewrite(two, (tmp_path / "mail.toml").read_text() + more(tmp_path))
        until(lambda: (tmp_path / "more.sock").exists(), "the socket of the new listener")
        # It is answered once a worker accepts there; the supervisor still waits.
        with connected(tmp_path) as eleventh:
            assert line(eleventh) == b"refused: limit\n"
        assert reloads(two) == 0
        (tmp_path / "hold").unlink()
        until(lambda: reloads(two), "the reload")
        assert said_by_more(two) == b"refused: limit\n"
        clients.pop().close()
        until(lambda: said_by_more(two).strip().isdigit(), "the place of the one that has left")
        assert two.end() == 0


def test_reserve_of_a_removed_listener_comes_back_with_its_last_connection(tmp_path: Path) -> None:
    with workers(tmp_path, 2, head=TOTAL) as two, contextlib.ExitStack() as stack:
        before = (tmp_path / "mail.toml").read_text()
        rewrite(two, before + more(tmp_path))
        until(lambda: reloads(two) == 1, "the reload")
        staying = stack.enter_context(connected(tmp_path))
        assert line(staying).strip().isdigit()
        staying.sendall(b"begin")
        assert staying.recv(5) == b"begin"
        rewrite(two, before)
        until(lambda: reloads(two) == 2, "the next reload")
        for _ in range(7):
            client = stack.enter_context(two.connect())
            assert line(client).strip().isdigit()
        assert said_to(two) == b"refused: limit\n"
        staying.sendall(b"end")
        assert staying.recv(3) == b"end"
        staying.close()
        # The supervisor looks every second.
        for _ in range(3):
            client = stack.enter_context(two.connect())
            while not (said := line(client)).strip().isdigit():
                assert said == b"refused: limit\n"
                client = stack.enter_context(two.connect())
        assert said_to(two) == b"refused: limit\n"
        assert two.end() == 0
