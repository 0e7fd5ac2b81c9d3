"""`fastlisten resume ID`: let a paused listener accept again.

Rules of this file: the command line's side; runtime/control.py says what it means.
"""

from __future__ import annotations

from typing import TextIO

from fastlisten.cli.control_client import ControlClient
from fastlisten.config.notation import quote

__all__ = ["run"]


def run(client: ControlClient, id: str, out: TextIO) -> int:
    """Resume a listener. It does nothing to a listener that is not paused.

    Args:
        client: of the server.
        id: the listener's id.
        out: receives the result.

    Returns:
        0.

    Raises:
        ControlError: it failed.
    """
    client.ask("resume", id=id)
    print(f"listener {quote(id)}: accepting again", file=out)
    return 0
