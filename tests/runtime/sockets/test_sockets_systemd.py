"""`systemd:` binds: sockets that a service manager has passed, found by name.

Rules of this file: sockets are real; the environment is what systemd would set. The program itself
under `systemd-socket-activate` is in tests/clients.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence

import pytest
from support.config import load_text

from fastlisten.errors import StartError
from fastlisten.runtime.sockets import passed_sockets
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.opening import open_all
from fastlisten.runtime.sockets.passed_sockets import descriptors_named, passed_descriptors

pytestmark = pytest.mark.usefixtures("descriptors_back")


#: Above the descriptors of a test process.
_FREE = 900


class Passed:
    """Sockets passed under names, with numbers that the process does not use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.sockets: list[socket.socket] = []

    def __call__(self, *names: str, pid: int | None = None) -> list[socket.socket]:
        """Pass a TCP socket for each name."""
        for number, _ in enumerate(names, _FREE):
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                os.dup2(sock.fileno(), number, inheritable=False)
            self.sockets.append(socket.socket(fileno=number))
        self._patch.setattr(passed_sockets, "_FIRST", _FREE)
        self._patch.setenv("LISTEN_FDS", str(len(names)))
        self._patch.setenv("LISTEN_FDNAMES", ":".join(names))
        self._patch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))
        return self.sockets


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Passed]:
    given = Passed(monkeypatch)
    yield given
    for sock in given.sockets:
        sock.close()


def opened(*binds: str, notes: list[str] | None = None) -> list[BoundSocket]:
    """Open a listener for each bind."""
    text = "".join(
        f'[server.listener.l{number}]\nprotocol = "smtp"\nbind = "{bind}"\n'
        for number, bind in enumerate(binds)
    )
    return open_all(load_text(text).listeners, notes)


def failures(*binds: str) -> list[str]:
    with pytest.raises(StartError) as error:
        opened(*binds)
    return [str(failure) for failure in error.value.failures]


def given_away(sockets: Sequence[socket.socket]) -> None:
    """Let the listeners own the descriptors, as in a program that has inherited them."""
    for sock in sockets:
        sock.detach()


def test_sockets_are_found_by_name(passed: Passed) -> None:
    first, second = passed("smtp", "lmtp")
    addresses = [sock.getsockname() for sock in (first, second)]
    given_away((first, second))
    found = opened("systemd:lmtp", "systemd:smtp")
    assert [(bound.listener, bound.sock.getsockname()) for bound in found] == [
        ("l0", addresses[1]),
        ("l1", addresses[0]),
    ]
    assert not any(bound.sock.get_inheritable() for bound in found)
    close_all(found)


def test_name_of_several_sockets(passed: Passed) -> None:
    given = passed("smtp", "other", "smtp")
    addresses = [sock.getsockname() for sock in given]
    given_away((given[0], given[2]))
    notes: list[str] = []
    found = opened("systemd:smtp", notes=notes)
    assert [bound.sock.getsockname() for bound in found] == [addresses[0], addresses[2]]
    assert [bound.bind.text for bound in found] == ["systemd:smtp"] * 2
    close_all(found)
    (note,) = notes
    assert note.startswith('systemd has passed a socket named "other" that no listener uses')


def test_socket_used_by_its_number_is_not_reported(passed: Passed) -> None:
    (sock,) = passed("smtp")
    fd = sock.detach()
    notes: list[str] = []
    close_all(opened(f"fd:{fd}", notes=notes))
    assert notes == []


def test_name_that_was_not_passed(passed: Passed) -> None:
    passed("smtp", "smtps")
    first, second = failures("systemd:smpt", "systemd:submission")
    said = 'systemd: systemd has passed no socket named "smpt"; did you mean "smtp"?'
    assert first == f'listener "l0" on systemd:smpt: {said}'
    assert second.endswith('named "submission"; there are "smtp", "smtps"')


def test_descriptor_that_is_no_listening_socket(passed: Passed) -> None:
    (sock,) = passed("smtp")
    reader, writer = os.pipe()
    os.dup2(reader, sock.fileno())
    (failure,) = failures("systemd:smtp")
    assert failure.startswith('listener "l0" on systemd:smtp: systemd: ')
    assert "not a socket" in failure.lower() or "non-socket" in failure.lower()
    os.close(reader)
    os.close(writer)


def test_sockets_of_another_process(passed: Passed) -> None:
    passed("smtp", pid=1)
    (failure,) = failures("systemd:smtp")
    assert failure.endswith(f"passed its sockets to PID 1, this is PID {os.getpid()}")


def test_without_a_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    (failure,) = failures("systemd:smtp")
    assert failure.endswith("systemd has passed no sockets (LISTEN_FDS is not set)")


def environ(**values: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), **values}


def test_sockets_without_names() -> None:
    assert passed_descriptors(environ(LISTEN_FDS="2")) == {3: "unknown", 4: "unknown"}
    assert descriptors_named("unknown", environ(LISTEN_FDS="2")) == [3, 4]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"LISTEN_FDS": "x"}, "not a number: x"),
        ({"LISTEN_FDS": "-1"}, "not a number: -1"),
        ({"LISTEN_FDS": "9" * 10}, "not a number"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, "1 names for 2 sockets"),
    ],
)
def test_malformed_environment(values: dict[str, str], said: str) -> None:
    with pytest.raises(OSError, match=said):
        passed_descriptors(environ(**values))
