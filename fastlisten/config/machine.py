"""What a configuration depends on besides its text: the machine it is loaded for.

Rules of this file: whatever loading reads from the system, apart from files that the text names,
is read here, so that the result depends only on the text and a `Machine`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastlisten.hostnames import local_hostname

__all__ = ["Machine"]

_SOMAXCONN = "/proc/sys/net/core/somaxconn"


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the process that a configuration is loaded for.

    Attributes:
        hostname: the default of `server.hostname`.
        environ: environment variables, for macros and for the data directory.
        somaxconn: the kernel's limit for the backlog, None if unknown.
        processors: how many the process may use.
        tls13_choice: whether Python's ssl module can choose TLS 1.3 cipher suites.
        refused_hostname: the kernel's host name if it is not a valid domain name and `hostname` is
            a fallback; else empty.
    """

    hostname: str
    environ: Mapping[str, str] = field(repr=False)
    somaxconn: int | None
    processors: int
    tls13_choice: bool
    refused_hostname: str = ""

    @classmethod
    def current(cls) -> Machine:
        """Return this machine."""
        name, refused = local_hostname()
        return cls(
            hostname=name,
            environ=os.environ,
            somaxconn=_somaxconn(),
            processors=len(os.sched_getaffinity(0)),
            # New in Python 3.15; before, OpenSSL alone chooses TLS 1.3 suites.
            tls13_choice=hasattr(ssl.SSLContext, "set_ciphersuites"),
            refused_hostname=refused,
        )


def _somaxconn() -> int | None:
    try:
        with open(_SOMAXCONN) as file:
            return int(file.read())
    except (OSError, ValueError):
        # No /proc, as in some containers: there is no warning then.
        return None
