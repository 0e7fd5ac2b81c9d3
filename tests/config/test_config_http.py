"""What the configuration checks of an http listener: settings that would have no effect."""

from __future__ import annotations

import pytest
from support.config import listener_problem, listener_table, load_text

HTTP = 'protocol = "http"\nbind = "127.0.0.1:8080"\n'
APP = HTTP + 'app = "package.module:app"\n'


def warned(text: str) -> list[str]:
    return [problem.key for problem in load_text(text).warnings]


def test_allowed_hosts_with_an_app_is_an_error() -> None:
    problem = listener_problem(APP + 'http.allowed-hosts = "mail.example.org"')
    assert problem.key == "server.listener.it.http.allowed-hosts"
    assert "package.module:app must check the Host header itself" in problem.message
    assert problem.value == '"mail.example.org"'
    assert problem.line == 6


def test_lifespan_without_an_app_warns() -> None:
    (problem,) = load_text(listener_table("it", HTTP + 'http.lifespan = "off"')).warnings
    assert problem.key == "server.listener.it.http.lifespan"
    assert "without app" in problem.message
    assert problem.line == 5


@pytest.mark.parametrize(
    "body",
    [
        APP + 'http.lifespan = "off"',
        HTTP + 'http.allowed-hosts = "mail.example.org"',
        HTTP + 'http.access-log = false\nhttp.max-body-size = "1m"',
        APP + 'http.access-log = false\nhttp.max-body-size = "1m"',
    ],
)
def test_settings_that_have_an_effect(body: str) -> None:
    assert warned(listener_table("it", body)) == []


def test_no_warnings_for_a_custom_handler() -> None:
    body = HTTP + 'handler = "support.serving_handlers:Echo"\nhttp.lifespan = "off"\n'
    assert warned(listener_table("it", body)) == []
    assert warned('[http]\nlifespan = "off"\n' + listener_table("it", body)) == []


def test_invalid_app_causes_no_further_problems() -> None:
    body = HTTP + 'app = "nothing"\nhttp.lifespan = "off"\nhttp.allowed-hosts = "a.org"'
    assert listener_problem(body).key == "server.listener.it.app"


@pytest.mark.parametrize(
    ("key", "value", "needed", "other"),
    [("allowed-hosts", '["a.org"]', HTTP, APP), ("lifespan", '"on"', APP, HTTP)],
)
def test_unused_defaults_warn(key: str, value: str, needed: str, other: str) -> None:
    table = f"[http]\n{key} = {value}\n"
    assert warned(table + listener_table("it", other)) == [f"http.{key}"]
    assert warned(table + listener_table("it", needed)) == []
    both = listener_table("it", other) + listener_table("two", needed.replace("8080", "8081"))
    assert warned(table + both) == []
    assert warned(table + listener_table("mail", "")) == [f"http.{key}"]
