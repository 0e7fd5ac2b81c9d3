"""What a worker is given at a reload, through JSON as in a channel.

Rules of this file: configurations are loaded, nothing is bound but sockets of the test.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from typing import Any

import pytest

from fastlisten._core import OptionBatch
from fastlisten.config import Config, loads
from fastlisten.runtime.reload.difference import difference
from fastlisten.runtime.sockets.bound_socket import BoundSocket
from fastlisten.runtime.sockets.reopening import Reopened
from fastlisten.runtime.supervisor.channel import MAX_DESCRIPTORS
from fastlisten.runtime.supervisor.reload_messages import (
    PREPARE,
    SOCKETS,
    Preparation,
    inode,
    messages,
)
from fastlisten.runtime.tls.pem import FileRead


def config(*lines: str) -> Config:
    text = "\n".join(lines)
    return loads(
        f'[server]\nhostname = "mx.example.org"\n[server.listener.it]\nprotocol = "smtp"\n'
        f'bind = ["127.0.0.1:2525", "127.0.0.2:2525"]\n{text}\n'
    )


def through_json(value: Preparation) -> Preparation:
    return Preparation.decode(json.loads(json.dumps(value.encode())))


def test_worker_has_the_values_that_the_supervisor_has_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GREETING", "hello")
    found = difference(config(), config('greeting = "%{env:GREETING}%"', "max-connections = 7"))
    # It could not find out for itself.
    monkeypatch.delenv("GREETING")
    files = {"/etc/key.pem": FileRead("a2V5"), "/etc/gone.pem": FileRead(problem="no such file")}
    rows = {"it": (0, 2)}
    read = through_json(Preparation.of(found, files, rows, ()))
    (listener,) = read.difference.config.listeners
    (own,) = found.config.listeners
    assert (listener["greeting"], listener["max-connections"]) == ("hello", 7)
    assert dict(listener.settings) == dict(own.settings)
    assert listener.line("greeting") == own.line("greeting") > 0
    assert dict(read.difference.config.process) == dict(found.config.process)
    assert (read.difference.changed, read.difference.changes) == (("it",), found.changes)
    assert read.files == files
    assert {id: tuple(numbers) for id, numbers in read.rows.items()} == rows


def test_check_of_a_protocol_need_not_be_picklable() -> None:
    new = config()
    (own,) = new.listeners
    strange: Any = dataclasses.replace(own.definition, check=lambda protocol: None)
    new = dataclasses.replace(new, listeners=(dataclasses.replace(own, definition=strange),))
    read = through_json(Preparation.of(difference(config(), new), {}, {}, ()))
    definition = read.difference.config.listeners[0].definition
    assert (definition.check, definition.handler) == (None, own.definition.handler)


def bound(sock: socket.socket, place: int = 0) -> BoundSocket:
    bind = config().listeners[0].bind[place]
    return BoundSocket("it", bind, sock, 100, OptionBatch([]))


def test_sockets_are_known_by_their_inode() -> None:
    with socket.socket() as one, socket.socket() as other, other.dup() as copy:
        found = difference(config(), config("max-connections = 7"))
        read = through_json(Preparation.of(found, {}, {}, [bound(one), bound(copy, 1)]))
        assert read.sockets == [("it", 0, inode(one), False), ("it", 1, inode(other), False)]
        assert inode(other) == os.fstat(copy.fileno()).st_ino != inode(one)


def reopened(kept: list[BoundSocket], opened: list[BoundSocket]) -> Reopened:
    found = Reopened()
    found.sockets, found.opened = [*kept, *opened], opened
    return found


def test_no_message_has_too_many_descriptors() -> None:
    with socket.socket() as sock:
        fd = sock.fileno()
        for count, parts in ((0, []), (1, [1]), (300, [MAX_DESCRIPTORS, 300 - MAX_DESCRIPTORS])):
            sockets = reopened([], [bound(sock)] * count)
            found = Preparation.of(difference(config(), config()), {}, {}, sockets.sockets)
            *some, last = messages(7, found, sockets, {40: 0})[40]
            assert [(kind, list(fds)) for kind, _, fds in some] == [
                (SOCKETS, [fd] * part) for part in parts
            ]
            assert (last[0], last[1]["id"], tuple(last[2])) == (PREPARE, 7, ())


def test_each_worker_is_given_its_own_queues() -> None:
    with socket.socket() as shared, socket.socket() as first, socket.socket() as second:
        queues = [
            dataclasses.replace(bound(sock, 1), worker=number)
            for number, sock in enumerate((first, second))
        ]
        sockets = reopened([bound(shared)], queues)
        found = Preparation.of(difference(config(), config()), {}, {}, sockets.sockets)
        sent = messages(7, found, sockets, {40: 0, 41: 1})
        for key, own in ((40, first), (41, second)):
            (_, _, descriptors), (_, body, _) = sent[key]
            assert list(descriptors) == [own.fileno()]
            assert Preparation.decode(body).sockets == [
                ("it", 0, inode(shared), False),
                ("it", 1, inode(own), True),
            ]
