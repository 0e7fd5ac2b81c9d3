"""What is said about system calls on sockets that fail.

Rules of this file: it makes text, with the address, the option and its value.
"""

from __future__ import annotations

import errno
import os

from fastlisten.config import Bind, ListenerSettings, SocketSetting
from fastlisten.errors import SocketFailure
from fastlisten.privileges import given_up
from fastlisten.runtime.sockets.address_holders import describe_holder

__all__ = ["option_failure", "socket_failure"]


def socket_failure(
    listener: str, bind: Bind, operation: str, error: OSError, name: object = None
) -> SocketFailure:
    """Return the failure of a system call; `name` is the address of the socket, if it matters."""
    text = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        text += describe_holder(name)
    if error.errno == errno.EACCES and operation == "bind" and 0 < bind.port < 1024:
        text += " (ports below 1024 need CAP_NET_BIND_SERVICE)"
    if error.errno == errno.EACCES:
        text += given_up()
    return SocketFailure(listener, bind.text, operation, "", error.errno or 0, text)


def option_failure(
    settings: ListenerSettings, bind: Bind, setting: SocketSetting, number: int
) -> SocketFailure:
    """Return the failure of a setsockopt call, with its errno."""
    operation = f"{setting.option.key} ({setting.call.symbol})"
    value, text = str(setting.value), os.strerror(number)
    return SocketFailure(settings.id, bind.text, operation, value, number, text)
