"""The environment in which tests run programs of others."""

from __future__ import annotations

import os

__all__ = ["own_environment"]


def own_environment() -> dict[str, str]:
    """Return this process's environment without what is preloaded into it.

    A sanitized build runs with the sanitizer's libraries in LD_PRELOAD; with them curl hangs at its
    start.
    """
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
