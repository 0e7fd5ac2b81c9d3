"""What is killed at every system call, with what must be true of the account then.

Rules of this file: scenarios of support/killed_calls.py. Each begins with messages in INBOX and in
new/, tells what it would tell a client, and checks with a second process's eyes: what was told is
so, no message is missing or there twice, no UID has two meanings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store.absorb import look
from support.mail_store import (
    check_account,
    deliver,
    inbox,
    index_of,
    settled_look,
    uids_of,
)

Tell = Callable[[str], None]


def told_of(told: list[str]) -> list[Any]:
    """Return what was told; a kill may have cut nothing, because a line is one write."""
    return [json.loads(line) for line in told]


class Absorb:
    """New messages get UIDs; some were there before."""

    def prepare(self, place: str) -> None:
        with index_of(place) as index:
            deliver(index.maildir, b"one", "1.M1")
            look(index, inbox(index).id)
            for number in (10, 9, 8):
                deliver(index.maildir, b"more", f"1.M{number}")

    def work(self, place: str, tell: Tell) -> None:
        with index_of(place) as index:
            look(index, inbox(index).id)
            tell(json.dumps(uids_of(index, inbox(index).id)))

    def check(self, place: str, told: list[str], finished: bool) -> None:
        expected = {"1.M1": 1, "1.M8": 2, "1.M9": 3, "1.M10": 4}
        for uids in told_of(told):
            assert uids == expected
        assert bool(told) or not finished
        with index_of(place) as index:
            found = uids_of(index, inbox(index).id)
            assert found.items() <= expected.items()
            settled_look(index, inbox(index).id)
            assert uids_of(index, inbox(index).id) == expected
            check_account(index)


class First(Absorb):
    """The index is made, and everything gets UIDs."""

    def prepare(self, place: str) -> None:
        box = Maildir(place)
        for number in (10, 9, 1, 8):
            deliver(box, b"x", f"1.M{number}")
