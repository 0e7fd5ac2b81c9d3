"""`fastlisten drain ID`: close a listener; idle clients get a farewell, busy ones may finish.

Rules of this file: the command line's side; runtime/control.py says what it means.
"""

from __future__ import annotations

from typing import TextIO

from fastlisten.cli.control_client import ControlClient
from fastlisten.config.notation import quote

__all__ = ["run"]


def run(client: ControlClient, id: str, out: TextIO) -> int:
    """Drain a listener. Only a restart opens it again.

    Args:
        client: of the server.
        id: the listener's id.
        out: receives the result.

    Returns:
        0.

    Raises:
        ControlError: it failed.
    """
    client.ask("drain", id=id)
    print(f"listener {quote(id)}: draining", file=out)
    return 0
