"""Candidate: uvloop's own accept path and transports, which others are compared with."""

from __future__ import annotations

import asyncio
import socket

import uvloop

from benchmarks.candidates.serve import BACKLOG, Served, run, settings


async def serve(sock: socket.socket) -> Served:
    """Return the listening server."""
    given = settings()
    return await asyncio.get_running_loop().create_server(
        given.factory(), sock=sock, backlog=BACKLOG, ssl=given.context()
    )


if __name__ == "__main__":
    run(serve, uvloop.new_event_loop)
