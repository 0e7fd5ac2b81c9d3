"""How often names failed: counted, forgotten, and not without end.

Rules of this file: the clock is a number.
"""

from __future__ import annotations

import pytest

from fastlisten.mail.logins import failed_names
from fastlisten.mail.logins.failed_names import FORGOTTEN, FailedNames


def test_failures_are_forgotten_some_time_after_the_last_one() -> None:
    clock = [0.0]
    names = FailedNames(lambda: clock[0])
    for _ in range(3):
        names.add("a")
        clock[0] += FORGOTTEN - 1
    assert (names.failures("a"), names.failures("b")) == (3, 0)
    clock[0] += 1
    assert names.failures("a") == 0
    names.add("a")
    assert names.failures("a") == 1


def test_name_that_failed_the_longest_ago_is_dropped_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failed_names, "SIZE", 3)
    names = FailedNames(lambda: 0.0)
    for name in "abcade":
        names.add(name)
    assert names.records.keys() == set("ade")
    assert names.failures("a") == 2
