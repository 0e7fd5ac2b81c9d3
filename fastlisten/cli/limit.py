"""`fastlisten limit ID N`: change the `max-connections` of a listener until the next start.

Rules of this file: the command line's side; runtime/control.py says what it means.
"""

from __future__ import annotations

from typing import TextIO

from fastlisten.cli.control_client import ControlClient
from fastlisten.config.notation import quote

__all__ = ["run"]


def run(client: ControlClient, id: str, limit: int, out: TextIO) -> int:
    """Change the limit of a listener. Connections above a lower limit stay open.

    Args:
        client: of the server.
        id: the listener's id.
        limit: the new limit.
        out: receives the result.

    Returns:
        0.

    Raises:
        ControlError: it failed.
    """
    client.ask("limit", id=id, limit=limit)
    text = f"listener {quote(id)}: max-connections = {limit} until the server restarts"
    print(text, file=out)
    return 0
