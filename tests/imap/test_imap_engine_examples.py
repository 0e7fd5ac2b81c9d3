"""Command lines of the examples in the RFCs, as our engine and as Dovecot take them.

Rules of this file: the engine takes every example. Of odd lines it refuses what Dovecot refuses,
and more: the table below lists what Dovecot takes although it is against a grammar.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.imap_driver import ImapDriver
from support.imap_lines import BEFORE_LOGIN, EXAMPLES, variants
from support.marks import external
from support.other_user import NOBODY, user_directory

from fastlisten.handlers.imap.engine.commands import Cancelled, Refusal
from fastlisten.handlers.imap.engine.engine import Limits
from fastlisten.handlers.imap.engine.session_states import State

DOVECOT = "/usr/lib/dovecot/imap"

#: More than any message number in the lines that is right, so that Dovecot refuses none of them.
MESSAGES = 20

CONFIGURATION = """
protocols = imap
mail_location = maildir:{mail}
mail_uid = {user}
mail_gid = {group}
default_internal_user = {user}
default_login_user = {user}
first_valid_uid = 0
first_valid_gid = 0
ssl = no
log_path = /dev/stderr
namespace inbox {{
  inbox = yes
}}
"""

#: What we refuse and Dovecot takes, by our words, with the grammar that knows no such thing.
STRICTER = {
    "Too many arguments": "RFC 3501 9: each command ends after its arguments",
    "Missing arguments": "RFC 3501 9: store-att-flags; RFC 5161 4: ENABLE has names; RFC 6154 6",
    "Missing ')'": "RFC 6154 6: create-param",
    "Expected an atom": "RFC 6154 6: create-param",
    "Expected '('": "RFC 4466 6: select-params and create-params",
    "Unknown parameter": "RFC 6154 6: create-param",
    "Invalid flag": "RFC 3501 9: flag-list",
    "Invalid arguments": "RFC 3501 9: append",
    "Invalid internal date": "RFC 3501 9: date-time",
    "Invalid search date parameter": "RFC 3501 9: date-day begins at 1",
    "Invalid messageset": "RFC 3501 9: nz-number is below 2^32 and has no leading zero",
    "Invalid quoted string": "RFC 3501 9: quoted-specials alone are escaped",
    "Empty list of patterns": "RFC 5258 6: patterns",
    "Expected a string": "RFC 3501 9: list-mailbox",
    "Line ended by a bare LF; lines must end with CR LF": "RFC 3501 2.2",
}


def verdict(line: bytes) -> str:
    """Return why the engine answers a line with BAD; empty if it does not."""
    driver = ImapDriver()
    driver.engine.enable(frozenset({"QRESYNC"}))
    driver.send(b"t " + line + b"\r\n")
    refusals = [event.text for event in driver.events if isinstance(event, Refusal)]
    return refusals[0] if b"BAD " in driver.output else ""


@pytest.mark.parametrize("rfcs", EXAMPLES)
def test_examples_are_taken(rfcs: str) -> None:
    assert {line: verdict(line) for line in EXAMPLES[rfcs] if verdict(line)} == {}


def test_examples_before_login_are_taken() -> None:
    for line in BEFORE_LOGIN:
        driver = ImapDriver(
            State.NOT_AUTHENTICATED, Limits(starttls=True), encrypted=line != b"STARTTLS"
        )
        driver.send(b"t " + line + b"\r\n")
        assert not any(isinstance(event, Refusal | Cancelled) for event in driver.events), line


def in_dovecot(directory: Path, lines: list[bytes]) -> list[bytes]:
    """Return what Dovecot, which root may not run, answers to each line: OK, NO or BAD."""
    person = NOBODY if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    for name in ("mail", "mail/cur", "mail/new", "mail/tmp"):
        (directory / name).mkdir()
    for number in range(MESSAGES):
        (directory / "mail" / "cur" / f"{number}.x.y:2,S").write_text("From: a@b\n\ntext\n")
    configuration = directory / "dovecot.conf"
    configuration.write_text(
        CONFIGURATION.format(mail=directory / "mail", user=person.pw_name, group=person.pw_gid)
    )
    for path in directory.rglob("*"):
        os.chown(path, person.pw_uid, person.pw_gid)
    said = b"".join(
        b"s%d SELECT INBOX\r\nt%d %b\r\n" % (number, number, line)
        for number, line in enumerate(lines)
    )
    done = subprocess.run(
        [DOVECOT, "-c", configuration],
        input=b"e ENABLE QRESYNC\r\n%bz LOGOUT\r\n" % said,
        capture_output=True,
        env={"USER": person.pw_name, "HOME": str(directory)},
        timeout=100,
        check=False,
        user=person.pw_uid if os.getuid() == 0 else None,
        group=person.pw_gid if os.getuid() == 0 else None,
        extra_groups=[] if os.getuid() == 0 else None,
    )
    assert b"\r\nz OK " in done.stdout, (done.stderr, done.stdout[-500:])
    answers = dict(re.findall(rb"^t(\d+) (OK|NO|BAD) ", done.stdout, re.MULTILINE))
    return [answers[b"%d" % number] for number in range(len(lines))]


def odd_lines() -> Iterable[bytes]:
    for examples in EXAMPLES.values():
        for line in examples:
            yield line
            # A literal that is cut short would swallow the next command.
            for variant in variants(line):
                if b"}" not in line or variant.endswith(line[-3:]):
                    yield variant


@external(DOVECOT)
def test_dovecot_refuses_the_same_or_less() -> None:
    lines = list(dict.fromkeys(line for line in odd_lines() if line.strip()))
    assert len(lines) > 1500
    with user_directory() as directory:
        answers = in_dovecot(directory, lines)
    unexplained = {}
    used = set()
    both = 0
    for line, answer in zip(lines, answers, strict=True):
        refusal = verdict(line)
        if (answer == b"BAD") == bool(refusal):
            both += answer == b"BAD"
        elif refusal in STRICTER:
            used.add(refusal)
        elif b"CHARSET" not in line:  # which Dovecot looks at after the keys, and we before them
            unexplained[line] = (answer, refusal)
    assert unexplained == {}
    assert both > 500
    assert sorted(STRICTER.keys() - used) == []
