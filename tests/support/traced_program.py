"""A server as a separate program, for tests that trace its system calls or make them fail.

    python support/traced_program.py '{"loop": "asyncio", "listeners": 2}'

Prints its addresses on one line, serves until its input ends, then prints its log and counters, all
as JSON.

Arguments: ``loop`` (asyncio, uvloop), ``listeners`` (the number of sockets), ``accepted`` (socket
options, each (level, name, value), set on accepted sockets), ``texts`` of the acceptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from typing import Any

from fastlisten._core import OptionBatch
from support.listener import listening
from support.loops import LOOPS

GREETING = b"220 hi\r\n"


class Lines(logging.Handler):
    """Keeps the messages of the package's logger."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def serve(arguments: dict[str, Any]) -> None:
    """Serve until the input ends."""
    log = Lines()
    logging.getLogger("fastlisten").addHandler(log)
    accepted = [
        (level, name, value.to_bytes(4, sys.byteorder))
        for level, name, value in arguments.get("accepted", ())
    ]
    async with contextlib.AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(
                listening(
                    listener=str(number),
                    greeting=GREETING,
                    options=OptionBatch(accepted) if accepted else None,
                    **{name: text.encode() for name, text in arguments.get("texts", {}).items()},
                )
            )
            for number in range(arguments["listeners"])
        ]
        print(json.dumps([listener.address for listener in listeners]), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        statistics = [listener.acceptor.statistics() for listener in listeners]
        errors = [listener.acceptor.accept_errors() for listener in listeners]
    told = {"lines": log.lines, "statistics": statistics, "accept_errors": errors}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    with asyncio.Runner(loop_factory=LOOPS[given["loop"]]) as runner:
        runner.run(serve(given))
