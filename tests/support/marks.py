"""Marks of tests that need a program, or IPv6.

Rules of this file: if that is missing, the test is skipped with the reason.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from typing import TypeVar

import pytest

__all__ = ["external", "needs_ipv6", "npm"]

_Test = TypeVar("_Test", bound=Callable[..., None])


def external(program: str) -> Callable[[_Test], _Test]:
    """Return the decorator of tests that need a program of another project."""
    missing = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin") is None
    skip = pytest.mark.skipif(missing, reason=f"needs the program {program}")
    return lambda test: pytest.mark.external(program)(skip(test))


def npm(package: str) -> Callable[[_Test], _Test]:
    """Return the decorator of tests that need a package of npm, in a directory of NODE_PATH."""
    places = filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep))
    missing = not any(os.path.isdir(os.path.join(place, package)) for place in places)
    return pytest.mark.skipif(missing, reason=f"needs npm's {package} in NODE_PATH")


def _has_ipv6() -> bool:
    """Return whether the loopback interface has IPv6, which it lacks in many containers."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


#: Mark of tests whose clients or servers have IPv6 addresses.
needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback address")
