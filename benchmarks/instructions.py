"""User-mode instructions per operation, counted by callgrind.

Rules of this file: counts do not depend on how busy the machine is, but they ignore caches and the
kernel. Use them to compare two versions of a server rather than two servers. The cost of starting
cancels out: the count of an operation is the difference between a long run and a short one.

    python -m benchmarks.instructions             the whole process, and our own modules in it
    python -m benchmarks.instructions --limit     with a connection limit
    python -m benchmarks.instructions --only HTTP those whose title has a word

The engines of SMTP and IMAP are counted in the form that is built here (FASTLISTEN_PURE, see
setup.py); that of SMTP once in a server and once without sockets. "Our modules" are what is
compiled. For HTTP the same requests are counted with uvicorn, if it is installed
(`--only uvicorn`).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.build import ROOT, build
from benchmarks.deliveries import RUN, data_directory
from benchmarks.http_source import ask_exactly
from benchmarks.machine import facts
from benchmarks.mailboxes import write_mail
from benchmarks.process import Load, MeasurementError, Server
from benchmarks.workloads import CANDIDATES, GREETING, SOURCES, Mail

__all__ = ["main"]

#: The operations to count: title, candidate, mode of the load generator and its options, or "http"
#: and the kind of work, and the number of operations in the short run and in the long one.
_WORK: tuple[tuple[str, str, str, tuple[str, ...], int, int], ...] = (
    ("accept, greeting, close", "fastlisten", "silent", ("--in-flight", "8"), 2_000, 8_000),
    ("the same, lazy", "fastlisten lazy", "silent", ("--in-flight", "8"), 2_000, 8_000),
    ("echo of 64 octets", "fastlisten", "echo", ("--connections", "8"), 4_000, 24_000),
    ("SMTP session to a sink", "fastlisten SMTP", "smtp", ("--in-flight", "8"), 500, 2_000),
    ("SMTP session, the engine alone", "", "", (), 200, 1_200),
    ("IMAP NOOP", "fastlisten IMAP", "imap", ("NOOP",), 400, 2_400),
    ("IMAP SELECT, 1,000 messages", "fastlisten IMAP", "imap", ("SELECT INBOX",), 200, 1_000),
    ("IMAP FETCH 1:* (FLAGS), 1,000", "fastlisten IMAP", "imap", ("FETCH 1:* (FLAGS)",), 100, 500),
    (
        "IMAP FETCH of a message",
        "fastlisten IMAP",
        "imap",
        ("UID FETCH 1 (FLAGS BODY.PEEK[])",),
        400,
        2_400,
    ),
    ("HTTP request", "fastlisten HTTP", "http", ("hello",), 400, 2_400),
    ("HTTP request, ten fields", "fastlisten HTTP", "http", ("browser",), 400, 2_400),
    ("HTTP request, 1 KiB body", "fastlisten bodies", "http", ("body",), 400, 2_400),
    ("HTTP request, chunked", "fastlisten bodies", "http", ("chunked",), 400, 2_400),
    # Few, because a ping of the server, after 20 s, is not expected.
    ("HTTP websocket message", "fastlisten bodies", "http", ("websocket",), 80, 480),
    ("uvicorn: request", "uvicorn httptools", "http", ("hello",), 400, 2_400),
    ("uvicorn: request, ten fields", "uvicorn httptools", "http", ("browser",), 400, 2_400),
    ("uvicorn: request, 1 KiB body", "uvicorn bodies", "http", ("body",), 400, 2_400),
    ("uvicorn: request, chunked", "uvicorn bodies", "http", ("chunked",), 400, 2_400),
    ("uvicorn: websocket message", "uvicorn bodies", "http", ("websocket",), 80, 480),
)

#: The object file of the lines that follow (``ob``) or of the function that they call (``cob``).
#: Its name is written once; after that only its number is.
_OBJECT = re.compile(r"(c?)ob=\((\d+)\)(?: (.*))?")

#: The connections that HTTP requests come from.
_CONNECTIONS = 8

#: IMAP clients have a mailbox selected, whatever they ask for.
_SELECTED = ("--first", "SELECT INBOX", "--connections", "4", "--grace", "300")

#: More connections than the load generator opens at a time.
_LIMIT = 1_000


def _counts(path: Path) -> tuple[int, int]:
    """Return the instructions of a run: of the process, and of this package's modules."""
    objects: dict[str, str] = {}
    ours = in_ours = False
    own = total = 0
    called = False
    for line in path.read_text().splitlines():
        if found := _OBJECT.fullmatch(line):
            callee, number, name = found.groups()
            objects[number] = name or objects[number]
            if not callee:
                ours = "/fastlisten/" in objects[number]
        elif line.startswith("fn="):
            in_ours = ours
        elif line.startswith("calls="):
            called = True  # the next line has the cost of the called function
        elif line.startswith("totals:"):
            total = int(line.split()[1])
        elif line and line[0] in "+-*0123456789":
            _, *cost = line.split()  # a cost of 0 is not written
            if cost and in_ours and not called:
                own += int(cost[0])
            called = False
    return total, own


def _run(
    candidate: str, mode: str, options: Sequence[str], count: int, limited: bool
) -> tuple[int, int]:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        out = Path(directory, "counts")
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}"]
        if not candidate:
            engine = [sys.executable, "-m", "benchmarks.bench_smtp_engine", "--count", str(count)]
            subprocess.run([*valgrind, *engine], check=True, cwd=ROOT)
            return _counts(out)
        command = [*valgrind, *CANDIDATES[candidate]]
        if mode == "silent":
            command += ["--greeting", GREETING]
        if mode == "imap":
            data = stack.enter_context(data_directory("disk"))
            (Path(data) / RUN).mkdir()
            write_mail(Path(data), Mail(1000))
            command += ["--data", data]
            options = ("--command", *options, *_SELECTED)
        if limited and mode not in ("smtp", "imap", "http"):  # they have a limit of their own
            command += ["--limit", str(_LIMIT)]
        with Server(command, None) as server:
            if mode == "http":
                ask_exactly(server.port, options[0], _CONNECTIONS, count)
            else:
                _generate(server.port, mode, options, count)
        return _counts(out)


def _generate(port: int, mode: str, options: Sequence[str], count: int) -> None:
    """Run the load generator."""
    words = [*options, "--count", str(count), "--duration", "300", "--sources", str(SOURCES)]
    with Load(mode, port, None, words) as load:
        done = load.event("done", 300)
    if done["operations"] != count:
        raise MeasurementError(f"{done['operations']} operations were done, not {count}")


def main(words: Sequence[str] | None = None) -> int:
    """Count and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--limit", action="store_true", help="count with a connection limit")
    parser.add_argument("--only", default="", help="a word of the titles")
    given = parser.parse_args(words)
    if shutil.which("valgrind") is None:
        print("valgrind is not installed", file=sys.stderr)
        return 1
    build()
    print(f"SMTP engine: {facts()['SMTP engine']}, IMAP engine: {facts()['IMAP engine']}")
    print(f"{'instructions per operation':32}{'process':>10}{'our modules':>14}")
    for title, candidate, mode, options, short, long in _WORK:
        if given.only not in title:
            continue
        less, more = (_run(candidate, mode, options, count, given.limit) for count in (short, long))
        process, own = ((b - a) / (long - short) for a, b in zip(less, more, strict=True))
        print(f"{title:32}{process:10,.0f}{own:14,.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
