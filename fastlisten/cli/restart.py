"""`fastlisten restart`: replace the workers of a running server, one after the other.

Rules of this file: the command line's side; runtime/supervisor does the work.
"""

from __future__ import annotations

from typing import TextIO

from fastlisten.cli.control_client import FAILED, ControlClient

__all__ = ["run"]


def run(client: ControlClient, out: TextIO, err: TextIO) -> int:
    """Replace all workers; return when the last new one serves. The old ones may still drain.

    Args:
        client: of the server.
        out: receives the result.
        err: receives why it was not done.

    Returns:
        0, or 1 if a new worker could not start: the old ones that are left go on serving.

    Raises:
        ControlError: it failed.
    """
    found = client.ask("restart")["restart"]
    if not found["succeeded"]:
        print(
            "a new worker could not start, so workers that were not replaced go on serving; the "
            "server's log says more",
            file=err,
        )
        return FAILED
    print(f"{found['workers']} workers replaced", file=out)
    return 0
