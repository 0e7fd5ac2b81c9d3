"""Candidate: this package's http handler, served by the listener code of `fastlisten serve`.

Requests are not logged, as in the other candidates.
"""

from __future__ import annotations

import os

from benchmarks.candidates.http_hello import application
from benchmarks.candidates.serve import run_until_told, until_told
from fastlisten import new_event_loop, testing
from fastlisten.handlers.base import HandlerSettings
from fastlisten.handlers.http import HttpHandler


async def serve() -> None:
    """Serve until standard input ends."""
    settings = HandlerSettings(
        listener="bench",
        protocol="http",
        hostname="www.example.org",
        options={"access-log": False},
        extra={"app": application},
    )
    async with testing.serve(HttpHandler(settings), max_connections=15_000) as at:
        await until_told(at.port)
        # Connections may still be open; closing them one by one is not part of the measurement.
        os._exit(0)


if __name__ == "__main__":
    run_until_told(serve, new_event_loop)
