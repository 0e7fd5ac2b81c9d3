"""Sockets for several workers: one that all share, or with `socket.reuse-port` one for each.

Rules of this file: real sockets in this process. What several workers do with them is in
tests/supervisor/test_workers_queues.py.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.forked import exit_status
from support.marks import needs_ipv6
from support.without_ipv6 import forbid_ipv6

from fastlisten.config import Config, loads
from fastlisten.errors import StartError
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.opening import listen_all, open_all
from fastlisten.runtime.sockets.queues import close_queues, open_queues
from fastlisten.runtime.sockets.reopening import reopen

pytestmark = pytest.mark.usefixtures("descriptors_back")


def config(*binds: str, reuse_port: bool = True, lines: str = "") -> Config:
    listed = ", ".join(f'"{bind}"' for bind in binds)
    return loads(
        f'[server.listener.it]\nprotocol = "smtp"\nbind = [{listed}]\n'
        f"socket.reuse-port = {'true' if reuse_port else 'false'}\n{lines}"
    )


@contextmanager
def opened(found: Config, workers: int = 3) -> Iterator[list[BoundSocket]]:
    sockets = open_all(found.listeners, workers=workers)
    try:
        listen_all(sockets)
        yield sockets
    finally:
        close_all(sockets)


def test_each_worker_has_a_socket_of_each_address() -> None:
    with opened(config("127.0.0.1:0", "127.0.0.2:0")) as sockets:
        assert [bound.worker for bound in sockets] == [0, 1, 2] * 2
        assert len({bound.address for bound in sockets[:3]}) == 1
        assert len({bound.address for bound in sockets[3:]}) == 1
        assert sockets[0].bind.text == "127.0.0.1:0"
        assert [bound.is_for(1) for bound in sockets] == [False, True, False] * 2


def test_all_share_a_socket_without_the_option() -> None:
    with opened(config("127.0.0.1:0", reuse_port=False)) as (bound,):
        assert bound.worker is None
        assert all(bound.is_for(number) for number in range(3))


def test_one_worker_has_one_socket() -> None:
    with opened(config("127.0.0.1:0"), workers=1) as (bound,):
        assert bound.worker is None
        assert bound.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_unix_socket_is_shared(tmp_path: Path) -> None:
    with opened(config("127.0.0.1:0", f"unix:{tmp_path}/sock")) as sockets:
        assert [bound.worker for bound in sockets] == [0, 1, 2, None]


@needs_ipv6
def test_wildcard_of_both_families_has_queues() -> None:
    with opened(config("[::]:0")) as sockets:
        port = sockets[0].port
        assert [bound.worker for bound in sockets] == [0, 1, 2]
        assert {bound.address for bound in sockets} == {f"[::]:{port}"}


def test_host_without_ipv6_has_queues_and_says_so_once() -> None:
    def work() -> bool:
        forbid_ipv6()
        notes: list[str] = []
        sockets = open_all(config("[::]:0").listeners, notes, workers=3)
        address = f"0.0.0.0:{sockets[0].port}"
        found = [(bound.worker, bound.address) for bound in sockets]
        return found == [(number, address) for number in range(3)] and len(notes) == 1

    assert exit_status(work) == 0


def test_address_in_use_is_reported_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError) as caught:
            open_all(config(f"127.0.0.1:{port}").listeners, workers=3)
    (failure,) = caught.value.failures
    assert (failure.operation, failure.address) == ("bind", f"127.0.0.1:{port}")


def test_closed_queue_gets_no_clients_and_keeps_its_port() -> None:
    with opened(config("127.0.0.1:0")) as sockets:
        address = ("127.0.0.1", sockets[0].port)
        close_queues(sockets, 0)
        close_queues(sockets, 0)
        assert [bound.listens for bound in sockets] == [False, True, True]
        for _ in range(30):
            socket.create_connection(address, 20).close()
        # A program that wants the port does not get it.
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
        for bound in sockets[1:]:
            close_queues(sockets, bound.worker or 0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 20)
        open_queues(sockets, 0)
        assert [bound.listens for bound in sockets] == [True, False, False]
        assert sockets[0].port == address[1]
        with socket.create_connection(address, 20), sockets[0].sock.accept()[0]:
            pass


def test_reload_keeps_the_queues_and_opens_those_of_new_addresses() -> None:
    before = config("127.0.0.1:0", lines="socket.backlog = 50\n")
    with opened(before) as sockets:
        after = config("127.0.0.1:0", "127.0.0.2:0", lines="socket.backlog = 60\n")
        found = reopen([(before.listeners[0], sockets)], after.listeners, workers=3)
        try:
            assert [bound.sock for bound in found.sockets[:3]] == [one.sock for one in sockets]
            assert [bound.worker for bound in found.sockets] == [0, 1, 2] * 2
            assert {bound.backlog for bound in found.sockets} == {60}
            assert [bound.worker for bound in found.opened] == [0, 1, 2]
            assert all(bound.listens for bound in found.opened)
            assert found.gone == []
            found.commit()
        finally:
            close_all(found.opened)


def test_reload_does_not_open_a_closed_queue() -> None:
    before = config("127.0.0.1:0", lines="socket.backlog = 50\n")
    after = config("127.0.0.1:0", lines="socket.backlog = 60\n")
    with opened(before) as sockets:
        close_queues(sockets, 1)
        found = reopen([(before.listeners[0], sockets)], after.listeners, workers=3)
        assert [bound.listens for bound in found.sockets] == [True, False, True]
        found.undo()
        assert [bound.listens for bound in sockets] == [True, False, True]
        # With the backlog of the file in use, once its worker is started.
        found = reopen([(before.listeners[0], sockets)], after.listeners, workers=3)
        found.commit()
        open_queues(found.sockets, 1)
        assert [(one.listens, one.backlog) for one in found.sockets] == [(True, 60)] * 3


def test_reload_gives_up_all_queues_of_an_address() -> None:
    before, after = config("127.0.0.1:0", "127.0.0.2:0"), config("127.0.0.2:0")
    with opened(before) as sockets:
        found = reopen([(before.listeners[0], sockets)], after.listeners, workers=3)
        assert [one.sock for one in found.gone] == [one.sock for one in sockets[:3]]
        assert [one.sock for one in found.sockets] == [one.sock for one in sockets[3:]]
        found.commit()


def test_queues_move_to_another_address_on_the_same_port() -> None:
    """Old and new queues are bound beside each other until the old ones are closed."""
    with opened(config("127.0.0.1:0")) as first:
        port = first[0].port
        before = config(f"127.0.0.1:{port}")
    with opened(before) as sockets:
        after = config(f"0.0.0.0:{port}")
        found = reopen([(before.listeners[0], sockets)], after.listeners, workers=3)
        found.commit()
        try:
            assert {bound.address for bound in found.opened} == {f"0.0.0.0:{port}"}
            assert [bound.worker for bound in found.opened] == [0, 1, 2]
            assert len(found.gone) == 3
        finally:
            close_all(found.opened)
