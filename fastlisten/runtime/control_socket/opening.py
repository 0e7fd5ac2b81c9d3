"""Opens the control socket of a server, or does without it.

Rules of this file: what is decided about the socket before the server starts, for one process and
for a supervisor.
"""

from __future__ import annotations

import errno
import logging

from fastlisten.config import Config
from fastlisten.errors import SocketFailure, StartError
from fastlisten.log_events import log
from fastlisten.runtime.control_socket.socket_file import ControlSocketError, ListeningFile

__all__ = ["open_control_socket"]

logger = logging.getLogger("fastlisten")


def open_control_socket(
    config: Config, path: str, owner: tuple[int, int] | None
) -> ListeningFile | None:
    """Create the control socket; do without one that is not configured.

    Args:
        config: the server's configuration.
        path: of the socket; empty for none.
        owner: user and group of the socket, None for those of this process.

    Raises:
        StartError: it is configured, and cannot be created.
    """
    if not path:
        return None
    try:
        return ListeningFile(path, owner)
    except ControlSocketError as error:
        text = str(error.strerror)
        if config.origin("server.control-socket") == "default":
            line = f"no control socket: {text}"
            # With `socket.reuse-port` nothing else tells of another server with the same file.
            taken = error.errno == errno.EADDRINUSE
            level = logging.WARNING if taken else logging.INFO
            log(logger, level, "no-control-socket", "%s", line, error=text)
            return None
        key = "server.control-socket"
        raise StartError([SocketFailure(None, path, key, "", error.errno or 0, text)]) from None
