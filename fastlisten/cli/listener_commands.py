"""`fastlisten pause|resume|drain ID` and `fastlisten limit ID N`: what is done to one listener.

Rules of this file: the command line's side; runtime/control.py says what each request means.
"""

from __future__ import annotations

from typing import TextIO

from fastlisten.cli.control_client import ControlClient
from fastlisten.config.notation import quote

__all__ = ["run"]

#: What is printed when a request has been carried out.
_DONE = {
    "pause": "paused",
    "resume": "accepting again",
    "drain": "draining",
    "limit": "max-connections = {limit} until the server stops or a reload brings another",
}


def run(client: ControlClient, command: str, id: str, out: TextIO, **values: int) -> int:
    """Send a request about a listener, and print that it was carried out.

    Args:
        client: of the server.
        command: "pause", "resume", "drain" or "limit".
        id: the listener's id.
        out: receives the result.
        values: the request's other values: `limit`.

    Returns:
        0.

    Raises:
        ControlError: it failed.
    """
    client.ask(command, id=id, **values)
    print(f"listener {quote(id)}: {_DONE[command].format(**values)}", file=out)
    return 0
