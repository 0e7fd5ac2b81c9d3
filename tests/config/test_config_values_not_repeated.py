"""Values that may be secrets are not repeated where they stand in the wrong place."""

from __future__ import annotations

import pytest
from support.config import listener_problem, listener_table, load_text

CERTIFICATE = "[certificate.one]\ncert = '-----BEGIN CERTIFICATE-----'\nprivate-key = 'file:///k'\n"


@pytest.mark.parametrize("bind", ["192.0.2.1:hunter2@mail", "[2001:db8::1]:hunter2@mail"])
def test_what_may_be_a_url_with_a_password(bind: str) -> None:
    problem = listener_problem(f'bind = "{bind}"')
    assert "is not a port" in problem.message
    assert "hunter2" not in str(problem)


def test_a_flag_in_a_certificate() -> None:
    config = load_text(CERTIFICATE + "override = 'hunter2'\n" + listener_table("it", ""))
    assert any("override" in warning.key for warning in config.warnings)
    assert not any("hunter2" in str(warning) for warning in config.warnings)


def test_a_greeting_is_ascii() -> None:
    assert "only ASCII" in listener_problem('greeting = "Grüße"').message
