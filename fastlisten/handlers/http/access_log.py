"""The access log, a line for each request, and the log of the ends of connections.

Rules of this file: text that comes from clients cannot leave its quotes or its line, and what looks
like a secret is left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.log_events import log

__all__ = ["log_end", "log_request", "shown_target"]

logger = logging.getLogger("fastlisten.http")

#: Parameters of a query whose values are secret (RFC 6750 2.3 has access_token). Names are bounded,
#: so that the time for a long query is proportional to its length.
_SECRET = re.compile(
    rb"((?:^|[&;])[^=&;]{0,40}(?:token|passw|passphrase|secret|api_?-?key|signature)[^=&;]{0,40}=)[^&;]*",
    re.IGNORECASE,
)

#: Characters of a target that are shown.
_SHOWN = 1024


def shown_target(scope: Mapping[str, Any]) -> str:
    """Return path and query as the client sent them, escaped to stand between quotes in a log.

    They are printable ASCII already. The value of a parameter that is named like a secret is left
    out, because more people read a log than may know a password.

    Args:
        scope: of the request.
    """
    raw: bytes = scope.get("raw_path") or b""
    if scope["query_string"]:
        raw += b"?" + _SECRET.sub(rb"\1***", scope["query_string"])
    text = raw.decode("ascii", "backslashreplace").replace('"', "%22")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def log_request(
    name: str,
    info: ConnectionInfo,
    line: str,
    status: int,
    size: int | None,
    method: str = "",
    target: str = "",
) -> None:
    """Log a request and its response.

    Args:
        name: of the connection.
        info: where the request comes from.
        line: the request line; a hyphen if the request has none.
        status: of the response, 0 if there was none.
        size: bytes of the response's body; None for a websocket.
        method: as the client sent it.
        target: as `shown_target` returns it.
    """
    log(
        logger,
        logging.INFO,
        "http-request",
        '%s "%s" %s' if size is None else '%s "%s" %s %d',
        *((name, line, status or "-") if size is None else (name, line, status or "-", size)),
        listener=info.listener,
        peer=info.peer,
        port=info.port,
        method=method,
        target=target,
        status=status,
        bytes=size,
    )


def log_end(name: str, info: ConnectionInfo, reason: str, duration: float) -> None:
    """Log the end of a connection.

    Args:
        name: of the connection.
        info: of the connection.
        reason: why it has ended.
        duration: seconds since it was made.
    """
    log(
        logger,
        logging.DEBUG,
        "session-ended",
        "%s ended: %s; %.3f s",
        name,
        reason,
        duration,
        listener=info.listener,
        peer=info.peer,
        port=info.port,
        duration=round(duration, 3),
        reason=reason,
    )
