"""What a configuration's meaning takes from the machine it is loaded on.

Rules of this file: everything that is read from outside the text is read here and passed on as
one value, so that loading is a function of text and machine.
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
        hostname: the name that servers greet with when none is configured.
        environ: environment variables, for macros and for the data directory.
        somaxconn: the kernel's limit of a backlog, None if it is not known.
        processors: how many the process may use.
        tls13_choice: Python's ssl module can choose TLS 1.3 cipher suites.
        refused_hostname: the kernel's host name where it is no domain name, so that `hostname` is a
            fallback; else empty.
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
            # New in Python 3.15; before, TLS 1.3 suites are OpenSSL's own choice.
            tls13_choice=hasattr(ssl.SSLContext, "set_ciphersuites"),
            refused_hostname=refused,
        )


def _somaxconn() -> int | None:
    try:
        with open(_SOMAXCONN) as file:
            return int(file.read())
    except (OSError, ValueError):
        # No /proc, as in some containers: the kernel clamps without a word from us.
        return None
