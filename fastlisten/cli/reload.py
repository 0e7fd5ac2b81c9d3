"""`fastlisten reload`: let a running server reload its configuration, and print what has changed.

Rules of this file: the command line's side; the server does the work, as with SIGHUP.
"""

from __future__ import annotations

from typing import TextIO

from fastlisten.cli.control_client import FAILED, ControlClient
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
    for line in (*found["warnings"], *found["restart"], *found["new_code"]):
        print(f"warning: {line}", file=err)
    for line in found["problems"]:
        print(f"error: {line}", file=err)
    for id in found["added"]:
        print(f"listener {quote(id)}: added", file=out)
    for id in found["removed"]:
        print(f"listener {quote(id)}: removed, draining", file=out)
    for line in (*found["changed"], *found["certificates"]):
        print(line, file=out)
    if not found["succeeded"]:
        print(found["summary"], file=err)
        return FAILED
    if not any(found[kind] for kind in ("added", "removed", "changed", "certificates")):
        print("nothing has changed", file=out)
    return 0
