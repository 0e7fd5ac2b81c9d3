"""Candidate: this package's http handler, served by the listener code of `fastlisten serve`.

Requests are not logged, as in the other candidates.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.candidates.http_hello import application, application_with_bodies
from benchmarks.candidates.serve import run_until_told, until_told
from fastlisten import new_event_loop, testing
from fastlisten.handlers.base import HandlerSettings
from fastlisten.handlers.http import HttpHandler


async def serve(bodies: bool) -> None:
    """Serve until standard input ends."""
    settings = HandlerSettings(
        listener="bench",
        protocol="http",
        hostname="www.example.org",
        options={"access-log": False},
        extra={"app": application_with_bodies if bodies else application},
    )
    async with testing.serve(HttpHandler(settings), max_connections=15_000) as at:
        await until_told(at.port)
        # Connections may still be open; closing them one by one is not part of the measurement.
        os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bodies", action="store_true", help="read bodies, serve websockets")
    given = parser.parse_args()
    run_until_told(lambda: serve(given.bodies), new_event_loop)
