"""An inherited socket stays with the server: programs that it starts do not get it."""

from __future__ import annotations

import os
import socket

from fastlisten.runtime.sockets.inherited_descriptors import take_descriptor


def test_it_is_not_inherited_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        number = os.dup(made.fileno())
    os.set_inheritable(number, True)
    with take_descriptor(number) as sock:
        assert sock.fileno() == number
        assert not os.get_inheritable(number)
