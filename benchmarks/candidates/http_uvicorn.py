"""Candidate: uvicorn on uvloop, with httptools or with h11, set up as its command line does.

Requests are not logged.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import uvloop

from benchmarks.candidates.http_hello import application, application_with_bodies
from benchmarks.candidates.serve import listening_socket, run_until_told, until_told

try:
    import uvicorn
except ImportError as error:
    sys.exit(f"uvicorn is not installed: {error}")


async def serve(http: str, bodies: bool) -> None:
    """Serve until standard input ends."""
    config = uvicorn.Config(
        application_with_bodies if bodies else application,
        http=http,
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    sock = listening_socket()
    sock.listen(1024)
    serving = asyncio.ensure_future(uvicorn.Server(config).serve(sockets=[sock]))
    await until_told(sock.getsockname()[1])
    serving.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", choices=("httptools", "h11"), default="httptools")
    parser.add_argument("--bodies", action="store_true", help="read bodies, serve websockets")
    given = parser.parse_args()
    run_until_told(lambda: serve(given.http, given.bodies), uvloop.new_event_loop)
