"""`fastlisten status [--json|--watch]`: what a running server is doing.

Rules of this file: the table for people. The JSON document is the server's answer as it is
(runtime/control_socket/protocol.py).
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TextIO

from fastlisten.cli.control_client import ControlClient
from fastlisten.config.notation import quote

__all__ = ["INTERVAL", "run"]

#: Seconds between two tables of `--watch`.
INTERVAL = 1.0

#: Home, and clear what is below (ECMA-48): no flicker, as `clear` would cause.
_REFRESH = "\x1b[H\x1b[J"

#: Workers whose connections are listed one by one.
_MAX_WORKERS = 8

_HEAD = ("LISTENER", "STATE", "ADDRESSES", "CONNECTIONS", "LIMIT", "ACCEPTED", "REFUSED", "WORKERS")

#: Columns that are aligned to the right.
_NUMBERS = range(3, 7)


def run(client: ControlClient, mode: Literal["text", "json", "watch"], out: TextIO) -> int:
    """Print the state of a server.

    Args:
        client: of the server.
        mode: ``text``; ``json``; ``watch`` for a new table each second until it is interrupted.
        out: receives the table or the document.

    Returns:
        0.

    Raises:
        ControlError: it failed.
    """
    while True:
        answer = client.ask("status")
        if mode == "json":
            del answer["ok"]
            json.dump(answer, out, indent=2)
            out.write("\n")
            return 0
        text = "\n".join(_lines(answer, time.time()))
        if mode == "text":
            print(text, file=out)
            return 0
        print((_REFRESH if out.isatty() else "") + text, file=out, flush=True)
        if not out.isatty():
            print(file=out, flush=True)
        time.sleep(INTERVAL)


def _lines(answer: Mapping[str, Any], now: float) -> Iterator[str]:
    server = answer["server"]
    yield _server_line(server)
    if stale := [str(one["number"]) for one in server["workers"] if not one["responding"]]:
        several = len(stale) > 1
        yield (
            f"worker{'s' if several else ''} {', '.join(stale)} {'do' if several else 'does'} not "
            "answer; the last known values are shown"
        )
    if not server["reload-succeeded"]:
        yield "the last reload failed; the log says why"
    yield from _certificates(server["certificate-expiry"], now)
    yield ""
    yield from _table([_HEAD, *map(_row, answer["listeners"])])


def _server_line(server: Mapping[str, Any]) -> str:
    workers = server["workers"]
    restarts = sum(worker["restarts"] for worker in workers)
    count = "1 worker" if len(workers) == 1 else f"{len(workers)} workers"
    ended = f", {restarts} replaced" if restarts else ""
    return f"PID {server['pid']}, {count}{ended}, {server['config'] or 'the embedded default'}"


def _certificates(expiry: Mapping[str, Mapping[str, float]], now: float) -> Iterator[str]:
    """Yield a line for each certificate that has expired."""
    ends = {name: end for certificates in expiry.values() for name, end in certificates.items()}
    for name, end in sorted(ends.items()):
        if end < now:
            day = datetime.datetime.fromtimestamp(end, datetime.UTC)
            what = f"certificate {quote(name)}" if name else "the self-signed certificate"
            yield f"{what} expired on {day:%Y-%m-%d}"


def _row(listener: Mapping[str, Any]) -> tuple[str, ...]:
    refused = sum(listener["refused"].values())
    return (
        _plain(listener["id"]),
        listener["state"],
        " ".join(map(_plain, listener["addresses"])) or "-",
        str(listener["connections"]),
        str(listener["limit"]),
        str(listener["accepted"]),
        str(refused),
        _workers([worker["connections"] for worker in listener["workers"]]),
    )


def _workers(connections: Sequence[int]) -> str:
    """Return the connections of each worker; of many workers, the least and the most."""
    if len(connections) <= _MAX_WORKERS:
        return " ".join(map(str, connections))
    return f"{len(connections)}, with {min(connections)} to {max(connections)}"


def _plain(text: str) -> str:
    """Return a text that does not disturb the table or the terminal."""
    plain = text and text.isprintable() and not any(map(str.isspace, text))
    return text if plain else quote(text)


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if index in _NUMBERS else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
