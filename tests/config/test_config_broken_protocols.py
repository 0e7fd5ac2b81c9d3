"""Protocols with an unusable definition: one report, and none about the settings it would have.

Rules of this file: an entry point registers the definition as for an installed package, and its
module does not exist or has unusable rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from support.config import listener_problem, listener_table, load_text, problems
from support.registered import registered

from fastlisten.errors import ConfigurationError
from fastlisten.handlers.protocol import Protocol
from fastlisten.option import Option

FINGER = "protocol = 'finger'\nbind = '127.0.0.1:79'\n"
SETTINGS = "finger.plan = true\nfinger-url = 'x'"


@pytest.fixture(params=["missing", "invalid"])
def finger(request: pytest.FixtureRequest) -> Iterator[str]:
    """Register a definition that is missing or invalid; return what is reported about it."""
    module = ModuleType("finger_settings")
    module.__dict__["FINGER"] = Protocol(
        "finger",
        options=(Option("plan", "boolean", True, "Show plans."),),
        listener_options=(Option("finger-url", "no-such-kind", None, "Where it is."),),
    )
    name = "finger_settings" if request.param == "invalid" else "no_such_module"
    sys.modules["finger_settings"] = module
    with registered(protocols={"finger": f"{name}:FINGER"}):
        yield "unknown kind" if request.param == "invalid" else "cannot be imported"
    del sys.modules["finger_settings"]


def test_its_settings_cause_no_second_error(finger: str) -> None:
    problem = listener_problem(FINGER + SETTINGS)
    assert problem.key == "server.listener.it.protocol"
    assert finger in problem.message


def test_its_table_causes_no_second_report(finger: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_text("[finger]\nplan = true\n" + listener_table("it", FINGER))
    (problem,) = raised.value.problems
    assert finger in problem.message
    assert raised.value.warnings == ()


def test_other_mistakes_are_still_reported(finger: str) -> None:
    found = problems(listener_table("it", FINGER + "max-connections = 0"))
    assert [problem.key.rpartition(".")[2] for problem in found] == ["protocol", "max-connections"]
    assert finger in found[0].message


def test_its_table_without_a_listener_is_a_warning(finger: str) -> None:
    (warning,) = load_text("[finger]\nplan = true\n" + listener_table("it", "")).warnings
    assert warning.key == "finger"
    assert warning.message.startswith("ignored, because protocol finger cannot be used: ")
    assert finger in warning.message


def test_misspelt_protocol_makes_no_table_wrong() -> None:
    problem = listener_problem("protocol = 'smpt'\nsmtp.max-errors = 3")
    assert (problem.message, problem.suggestion) == ("unknown protocol", "smtp")


def test_misspelt_protocol_does_not_hide_misspelt_keys() -> None:
    found = problems(listener_table("it", "protocol = 'smpt'\nmax-conections = 3"))
    assert [problem.message for problem in found] == ["unknown protocol", "unknown key"]
