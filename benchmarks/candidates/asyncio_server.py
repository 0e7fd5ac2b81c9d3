"""Candidate: the standard library's event loop, as a control: its figures should not change."""

from __future__ import annotations

import asyncio
import socket

from benchmarks.candidates.serve import BACKLOG, Served, run, settings


async def serve(sock: socket.socket) -> Served:
    """Return the listening server."""
    given = settings()
    return await asyncio.get_running_loop().create_server(
        given.factory(), sock=sock, backlog=BACKLOG, ssl=given.context()
    )


if __name__ == "__main__":
    run(serve, asyncio.new_event_loop)
