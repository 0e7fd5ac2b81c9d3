"""The reload column of docs/configuration.md with two workers: all rows at once.

Rules of this file: what is expected is what one process does, as tests/runtime/reload shows row by
row (test_reload_column.py). Each worker tells what it uses while the other one is stopped.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.accounts import write_accounts
from support.certificates import authority, write
from support.program import Program, program, run
from support.reload_cases import CASES, ROWS, shown
from support.reload_looks import ids
from support.reloading import Reloadable
from support.waiting import PATIENCE
from support.workers import patched, stopped, workers

#: Keys that this test needs itself. They need a restart, and test_workers_reload_changes.py shows
#: it for the workers.
OWN = {"server.workers", "server.control-socket"}

KEYS = [key for key in ROWS if key not in OWN]

LOOKS = """
[server.listener.looks]
protocol = "http"
bind = "127.0.0.1:0"
handler = "support.reload_looks:Looks"
"""

#: A worker that is stopped for a while is not said to hang.
PATIENT = """
import fastlisten.runtime.supervisor.heartbeat as it
it.HUNG_AFTER = 3600.0
"""


def configuration(place: Path, count: int, new: bool) -> str:
    """Return a configuration with one listener for each key, all with the former or new values."""
    process = {
        "server.workers": str(count),
        "server.control-socket": f'"{place / "control"}"',
        "server.hostname": '"mx"',
        "server.data-directory": '"data"',
    }
    certificates = {"default": _certificate("mail"), "other": _certificate("other")}
    certificates["default"]["default"], certificates["other"]["default"] = "true", "false"
    listeners = []
    for key, id in ids().items():
        if key not in KEYS:
            continue
        case = CASES[key]
        value = case.after if new else case.before
        bind = case.bind.replace("PLACE", str(place)).replace("ID", id)
        own = {"protocol": f'"{case.protocol}"', "bind": bind}
        if key == "certificate.default":
            certificates["default"]["default"] = value
            certificates["other"]["default"] = "false" if value == "true" else "true"
        elif key.startswith("certificate."):
            name = value.removeprefix('"file://').partition(".")[0]  # both files must match
            certificates[id] = _certificate(name)
            own["tls.certificate"] = f'"{id}"'
        elif ROWS[key].scopes == ("process",):
            process[key] = value
        else:
            own[key] = value
        listeners.append(f"[server.listener.{id}]\n{_lines(own)}{case.more}\n")
    tables = [f"[certificate.{name}]\n{_lines(own)}" for name, own in certificates.items()]
    return _lines(process) + "".join(tables) + "".join(listeners) + LOOKS


def _certificate(name: str) -> dict[str, str]:
    return {"cert": f'"file://{name}.crt"', "private-key": f'"file://{name}.key"'}


def _lines(table: dict[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in table.items() if value)


class Elsewhere(Reloadable):
    """A listener in another process, for looks that are clients'."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.of_listener = address

    def address(self, id: str = "", index: int = 0) -> tuple[str, int]:
        return self.of_listener


def looked(port: int) -> dict[str, str]:
    """Return what the process uses that serves new clients."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"look\n")  # the first octet makes the connection's object
        said = b"".join(iter(lambda: client.recv(65536), b""))
    found = json.loads(said)
    for key, value in found.items():
        if isinstance(value, list):
            it = Elsewhere((value[0], value[1]))
            found[key] = repr(asyncio.run(shown(it, key, CASES[key])))
    assert isinstance(found, dict)
    return found


Looks = Callable[[Program], list[dict[str, str]]]


def rounds(
    place: Path, started: Program, count: int, look: Looks
) -> tuple[list[list[dict[str, str]]], subprocess.CompletedProcess[str]]:
    """Reload the former values, the new ones, the former ones; return what was seen each time.

    Returns:
        And what the command has said about the new ones.
    """
    seen, said = [], []
    for new in (False, True, False):
        (place / "mail.toml").write_text(configuration(place, count, new))
        done = run("reload", "--socket", place / "control", TOLD=str(place))
        assert done.returncode == 0, done.stderr
        seen.append(look(started))
        said.append(done)
    return seen, said[1]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("mail", "other"):
        write(tmp_path, authority().sign(f"{name}.example"), name)
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    alice, bob = ('[account."alice@example.org"]\n', '[account."bob@example.org"]\n')
    write_accounts(tmp_path / "accounts.toml", alice)
    write_accounts(tmp_path / "bob.toml", alice + bob)
    return tmp_path


def test_all_rows_in_every_worker(place: Path) -> None:
    head = f'control-socket = "{place / "control"}"\n'
    with program(place, head + LOOKS, environ={"TOLD": str(place)}) as one:
        expected, said_by_one = rounds(place, one, 1, lambda it: [looked(it.port("looks"))])
        assert one.stop() == 0
    (before,), (after,), (again,) = expected
    assert before.keys() == set(KEYS)
    assert again == before
    for key in KEYS:
        restart, both = ROWS[key].reload == "restart", CASES[key].shown
        unchanged = restart or (both is not None and both[0] == both[1])
        assert (before[key] == after[key]) == unchanged, key

    with workers(place, 2, LOOKS, head=head, environ=patched(place, PATIENT)) as two:
        pids = two.pids

        def look(it: Program) -> list[dict[str, str]]:
            found = []
            for pid in pids:
                with stopped(*(one for one in pids if one != pid)):
                    found.append(looked(it.port("looks")))
            return found

        seen, said = rounds(place, two.program, 2, look)
        for of_workers, (of_one,) in zip(seen, expected, strict=True):
            for number, found in enumerate(of_workers):
                differs = {key: found.get(key) for key in of_one if found.get(key) != of_one[key]}
                assert differs == {}, (number, {key: of_one[key] for key in differs})
        assert two.pids == pids
        assert sorted(said.stdout.splitlines()) == sorted(said_by_one.stdout.splitlines())
        restarts = [line for line in said.stderr.splitlines() if "needs a stop and a start" in line]
        for key in KEYS:
            if ROWS[key].reload == "restart":
                assert any(f"{key} = " in line for line in restarts), key
        assert two.end() == 0
