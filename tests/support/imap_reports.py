"""Runs cases of public bug reports: commands of one session, and patterns of their answers.

Rules of this file: no test in it. Each case has a mailbox of its own, `=BOX` in its commands, with
its messages, which is selected; a second session has it selected too if a step begins with ``2 ``.
A step's pattern must be found in all responses to the command, its tagged one included; one that
begins with ``!`` must not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from support.imap_server import ImapServer, Lines

__all__ = ["PLAIN", "Report", "carry_out", "named"]

#: A message that has nothing special.
PLAIN = (
    b"From: Bob <bob@example.com>\r\nTo: alice@example.org\r\nSubject: Hello\r\n"
    b"Date: Tue, 3 Feb 2026 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n\r\nbody text\r\n"
)


class Report(NamedTuple):
    """What was reported of other servers, and how to see that it is not so here.

    Attributes:
        source: the project and the report's number there.
        fault: what was wrong.
        steps: commands, each with a pattern.
        messages: what is in the mailbox.
    """

    source: str
    fault: str
    steps: Sequence[tuple[str | bytes, str]]
    messages: Sequence[bytes] = (PLAIN, PLAIN, PLAIN)


def named(reports: Sequence[Report]) -> list[str]:
    """Return the names of the tests."""
    return [f"{one.source}: {one.fault}" for one in reports]


def carry_out(server: ImapServer, report: Report, number: int) -> None:
    """Carry out the steps of a case; number is a different one for each."""
    box = f"case{number}"
    sessions = {"": server.lines()}
    first = sessions[""]
    first.ok(f"CREATE {box}")
    for content in report.messages:
        octets = content.replace(b"\n", b"\r\n") if b"\r" not in content else content
        first.ok(b"APPEND %b {%d+}\r\n%b" % (box.encode(), len(octets), octets))
    if any(step.startswith("2 ") for step, _ in report.steps if isinstance(step, str)):
        sessions["2 "] = server.lines(box)
    first.ok(f"SELECT {box}")
    for step, pattern in report.steps:
        octets = step if isinstance(step, bytes) else step.encode()
        who = "2 " if octets.startswith(b"2 ") else ""
        _check(sessions[who], octets.removeprefix(who.encode()), box.encode(), pattern)
    for one in sessions.values():
        one.say("LOGOUT")  # a user may have a few sessions only


def _check(client: Lines, command: bytes, box: bytes, pattern: str) -> None:
    answers = b"\r\n".join(client.say(command.replace(b"=BOX", box))) + b"\r\n"
    wanted = pattern.removeprefix("!").replace("=BOX", box.decode()).encode()
    found = re.search(wanted, answers, re.DOTALL | re.MULTILINE)
    assert (found is None) == pattern.startswith("!"), (command, answers, pattern)
