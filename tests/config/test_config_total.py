"""`server.total-connections` and `reserve`: what is allowed, and how they must fit."""

from __future__ import annotations

import pytest
from support.config import listener_table, load_text, only_problem

from fastlisten.config.export import to_toml


def text(total: str, *lines: str) -> str:
    """Return a configuration with these lines in `[server]` and a listener for each of the rest."""
    tables = [
        listener_table(f"l{number}", f"bind = '127.0.0.1:{number + 1}'\n{line}")
        for number, line in enumerate(lines)
    ]
    return f"[server]\n{total}\n" + "".join(tables)


def test_defaults_are_no_total_and_no_reserve() -> None:
    config = load_text(text("", ""))
    assert config.process["server.total-connections"] is None
    assert config.listeners[0]["reserve"] == 0
    assert config.warnings == ()


def test_values_are_written_out_again() -> None:
    config = load_text(text("total-connections = 1_000", "reserve = 20", ""))
    assert config.process["server.total-connections"] == 1000
    assert [listener["reserve"] for listener in config.listeners] == [20, 0]
    again = load_text(to_toml(config))
    assert again.process["server.total-connections"] == 1000
    assert [listener["reserve"] for listener in again.listeners] == [20, 0]


@pytest.mark.parametrize("reserves", [(10,), (4, 6), (0, 11)])
def test_reserves_must_leave_something_to_share(reserves: tuple[int, ...]) -> None:
    lines = [f"reserve = {reserve}" for reserve in reserves]
    problem = only_problem(text("total-connections = 10", *lines))
    assert problem.key == "server.total-connections"
    assert problem.line == 2
    kept = sum(reserves)
    assert problem.message == (
        f"the listeners' reserves add up to {kept}, which leaves nothing to share"
    )
    assert problem.allowed == f"more than {kept}"
    assert load_text(text(f"total-connections = {kept + 1}", *lines)).warnings == ()


def test_reserve_beyond_the_listeners_own_limit() -> None:
    written = text("total-connections = 100", "max-connections = 5\nreserve = 6", "")
    problem = only_problem(written)
    assert problem.key == "server.listener.l0.reserve"
    assert problem.message == ("this is more than the listener can use: its max-connections is 5")
    assert problem.allowed == "0 to 5"
    assert load_text(written.replace("= 6", "= 5")).warnings == ()


def test_reserve_without_a_total_warns() -> None:
    (warning,) = load_text(text("", "reserve = 5")).warnings
    assert warning.key == "server.listener.l0.reserve"
    assert warning.message == "this has no effect without server.total-connections"


@pytest.mark.parametrize("value", ["0", "-1", "2147483648", "'many'", "false"])
def test_total_must_be_a_number_of_connections(value: str) -> None:
    assert only_problem(text(f"total-connections = {value}", "")).key == "server.total-connections"


@pytest.mark.parametrize("value", ["-1", "1.5"])
def test_reserve_must_be_a_number_of_connections(value: str) -> None:
    problem = only_problem(text("total-connections = 9", f"reserve = {value}"))
    assert problem.key == "server.listener.l0.reserve"


def test_reserve_belongs_to_a_listener() -> None:
    assert "belongs to a listener" in only_problem(text("reserve = 5", "")).message
