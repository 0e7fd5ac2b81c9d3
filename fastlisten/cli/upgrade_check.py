"""`fastlisten upgrade-check [FILE]`: tell a running server whether this program can take over.

Rules of this file: a server that is to be upgraded runs it, people don't. It does what `check` does
and is stricter: what `serve` refuses would end the server. Nothing is bound or changed.
"""

from __future__ import annotations

import json
from typing import TextIO

from fastlisten.cli import check
from fastlisten.config.listener_reader import SERVE_FAILS
from fastlisten.config.unavailable import find_unavailable
from fastlisten.runtime.supervisor.upgrade import differences, shape

__all__ = ["run"]


def run(file: str | None, given: TextIO, out: TextIO, err: TextIO) -> int:
    """Check whether this program can take over a running server.

    Args:
        file: the configuration of the server.
        given: the `shape` of the server as JSON.
        out: receives the result of `check`.
        err: receives why it cannot.

    Returns:
        0 if it can, else 2.
    """
    if code := check.run(file, out, err):
        return code
    config = check.read_config(file, err)
    if config is None:
        return check.CONFIGURATION_ERROR
    refused = [str(one) for one in find_unavailable(config)]
    refused += [str(one) for one in config.warnings if one.message.endswith(SERVE_FAILS)]
    refused += differences(json.load(given), shape(config))
    for text in refused:
        print(f"error: {text}", file=err)
    return check.CONFIGURATION_ERROR if refused else 0
