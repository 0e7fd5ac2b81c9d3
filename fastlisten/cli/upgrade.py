"""`fastlisten upgrade`: let a running server become the program that is installed now.

Rules of this file: the command line's side; runtime/supervisor does the work.
"""

from __future__ import annotations

from typing import TextIO

from fastlisten.cli.control_client import FAILED, ControlClient

__all__ = ["run"]


def run(client: ControlClient, out: TextIO, err: TextIO) -> int:
    """Replace the program and all workers; return when the last new worker serves.

    Args:
        client: of the server.
        out: receives the result.
        err: receives why it was not done.

    Returns:
        0, or 1 if the new program has taken over but a new worker could not start: the former
        ones that are left go on serving.

    Raises:
        ControlError: it failed.
    """
    found = client.ask("upgrade")["upgrade"]
    if not found["succeeded"]:
        print(
            "the new program has taken over, but a new worker could not start, so workers of the "
            "former one go on serving; the server's log says more",
            file=err,
        )
        return FAILED
    print(f"upgraded, {found['workers']} workers replaced", file=out)
    return 0
