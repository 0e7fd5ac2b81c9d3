"""`fastlisten reload`: let a running server reload its configuration, and print what has changed.

Rules of this file: the command line's side; the server does the work, as with SIGHUP.
"""

from __future__ import annotations

from typing import TextIO

from fastlisten.cli.control_client import FAILED, ControlClient
from fastlisten.config.notation import quote
from fastlisten.config.notation import quote

__all__ = ["run"]


def run(client: ControlClient, out: TextIO, err: TextIO) -> int:
    """Reload a server.

    Args:
        client: of the server.
        out: receives what has changed.
        err: receives mistakes and warnings.

    Returns:
        0, or 1 if something could not be used: the server goes on with what it had before.

    Raises:
        ControlError: it failed.
    """
    found = client.ask("reload")["reload"]
    for line in found["warnings"]:
        print(f"warning: {line}", file=err)
    for line in found["problems"]:
        print(f"error: {line}", file=err)
    for kind in ("added", "removed"):
        for id in found[kind]:
            print(f"listener {quote(id)}: {kind}", file=out)
    for line in (*found["changed"], *found["certificates"]):
        print(line, file=out)
    for line in found["restart"]:
        print(f"a restart is needed: {line}", file=out)
    for line in found["new_code"]:
        print(line, file=out)
    if found["succeeded"]:
        print(found["summary"], file=out)
        return 0
    print(found["summary"], file=err)
    return FAILED
