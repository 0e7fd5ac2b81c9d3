"""A client that connects to a server again and again, and counts the attempts that fail.

Rules of this file: the client runs in a thread of the test until the end of a block; every attempt
that is not served counts as failed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from support.figures import show
from support.waiting import until
from support.workers import Workers, line

__all__ = ["Attempts", "attempts"]


class Attempts:
    """A client that connects again and again.

    Attributes:
        pids: of the workers that have served it, without repetitions.
        served: how often it was served.
        failed: why it was not, each time.
    """

    def __init__(self, server: Workers) -> None:
        self._server = server
        self._ends = threading.Event()
        self.pids: set[int] = set()
        self.served = 0
        self.failed: list[str] = []

    def run(self) -> None:
        """Connect until the end; each attempt is a greeting."""
        while not self._ends.is_set():
            try:
                with self._server.connect() as client:
                    said = line(client)
                self.pids.add(int(said))
                self.served += 1
            except (OSError, ValueError) as error:
                self.failed.append(repr(error))

    def more(self, count: int) -> None:
        """Wait until it has been served that often from now on."""
        wanted = self.served + count
        until(lambda: self.served >= wanted or self.failed, f"{count} clients")

    def end(self) -> None:
        """Let `run` return."""
        self._ends.set()


@contextlib.contextmanager
def attempts(server: Workers) -> Iterator[Attempts]:
    """Let a client connect again and again while the block runs, and show how often it did."""
    client = Attempts(server)
    thread = threading.Thread(target=client.run)
    thread.start()
    try:
        client.more(10)
        yield client
    finally:
        client.end()
        thread.join()
    show(
        f"{client.served:,} attempts served by {len(client.pids)} processes",
        f"{len(client.failed)} failed",
    )
