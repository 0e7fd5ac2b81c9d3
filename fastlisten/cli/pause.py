"""`fastlisten pause ID`: stop accepting until `fastlisten resume`.

Rules of this file: the command line's side; runtime/control.py says what it means.
"""

from __future__ import annotations

from typing import TextIO

from fastlisten.cli.control_client import ControlClient
from fastlisten.config.notation import quote

__all__ = ["run"]


def run(client: ControlClient, id: str, out: TextIO) -> int:
    """Pause a listener. New clients wait in the backlog; open connections stay open.

    Args:
        client: of the server.
        id: the listener's id.
        out: receives the result.

    Returns:
        0.

    Raises:
        ControlError: it failed.
    """
    client.ask("pause", id=id)
    print(f"listener {quote(id)}: paused", file=out)
    return 0
