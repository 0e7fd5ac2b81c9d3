"""Texts that are large, deep or odd: their cost grows no faster than their length.

Rules of this file: work is counted, never timed. What happens inside one call into C cannot be
counted; for that a text is so long that quadratic time would be days, in a process whose CPU time
is limited.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.config import (
    MACHINE,
    listener_problem,
    listener_table,
    machine_with,
    only_problem,
    problems,
)

from fastlisten.config import loads
from fastlisten.config.known_protocols import known_protocols, own_rows
from fastlisten.config.rows.listener import CERTIFICATE_OPTIONS, LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.config.suggest import likely
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError
from fastlisten.mail.accounts.roster import Roster

LISTENER = listener_table("it", "")


def calls(work: Callable[[], Any]) -> int:
    """Return how many functions are called, in Python and in C."""
    count = 0

    def event(frame: Any, what: str, argument: Any) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(event)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def attempt(text: str) -> None:
    likely.cache_clear()  # or suggestions found for another text would be free
    try:
        find_unavailable(loads(text, machine=MACHINE))
    except ConfigurationError as error:
        str(error)


def array(key: str, item: str, count: int) -> str:
    return f"{key} = [" + f'"{item}",' * count + "]"


SHAPES: dict[str, Callable[[int], str]] = {
    "macros": lambda n: listener_table("it", "greeting = '" + "%{env:PORT}%" * n + "'"),
    "unclosed macros": lambda n: listener_table("it", "greeting = '" + "%{a:" * n + "'"),
    "unknown keys": lambda n: LISTENER + "".join(f"x{i} = 1\n" for i in range(n)),
    "slips": lambda n: LISTENER + "".join(f"bind{i} = 1\n" for i in range(n)),
    "tables in dotted keys": lambda n: LISTENER + "".join(f"x.y{i}.z = 1\n" for i in range(n)),
    "foreign keys": lambda n: "".join(f"xyzzy{i} = 1\n" for i in range(n)) + LISTENER,
    "foreign tables": lambda n: LISTENER + "".join(f"[xyzzy.a{i}.b]\n" for i in range(n)),
    "arrays of tables": lambda n: LISTENER + "[[xyzzy]]\n" * n,
    "wrong binds": lambda n: listener_table("it", array("bind", "127.0.0.1:x", n)),
    "one bind again": lambda n: listener_table("it", array("bind", "127.0.0.1:1", n)),
    "networks": lambda n: listener_table("it", array("limits.deny", "10.0.0.0/8", n)),
    "names": lambda n: listener_table(
        "it",
        "tls.sni = ["
        + "".join(f"{{subject = 'a{i}.b', certificate = 'x'}}," for i in range(n))
        + "]",
    ),
    "certificates": lambda n: (
        LISTENER
        + "".join(f"[certificate.c{i}]\ncert = 'file://x'\nprivate-key = 'x'\n" for i in range(n))
    ),
    "listeners": lambda n: "".join(
        listener_table(f"l{i}", f"bind = 'unix:/{i}'\nxyzzy = 1") for i in range(n)
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_work_grows_linearly(shape: str) -> None:
    make = SHAPES[shape]
    attempt(make(3))  # creates what is created once
    # More than the number of suggestions that are looked for.
    small, large, larger = (calls(lambda: attempt(make(n))) for n in (300, 600, 900))  # noqa: B023
    assert larger - large <= (large - small) * 1.2 + 500


@pytest.mark.parametrize(
    "text", ['"%{a:" * n', '"%{" * n', '"%{a:" * n + "}%" * n', '"%{env:X}% " * n + "%{"']
)
def test_million_macros(text: str) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "from fastlisten.config.values.grammar import BadValueError\n"
        "from fastlisten.config.macros import expand\n"
        "n = 1_000_000\n"
        f"try: expand({text}, {{'X': ''}}, '/')\n"
        "except BadValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "macro" in done.stdout


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("%{a:%{env:PORT}%}%", "macros cannot be nested"),
        ("%{file:/x%{y}%", "macros cannot be nested"),
        ("%{env:PORT}% %{", "a macro is missing its closing }%"),
        ("%{" + "x" * 1000 + "}%", "unknown macro"),
        ("}% %{}%", 'unknown macro "%{}%"'),
    ],
)
def test_malformed_macros(value: str, says: str) -> None:
    problem = listener_problem(f'greeting = "{value}"')
    assert says in problem.message
    assert len(problem.message) < 150


def test_size_of_expanded_macros_is_limited() -> None:
    big = MACHINE.environ | {"BIG": "x" * (1 << 19)}  # type: ignore[operator]
    text = listener_table("it", 'greeting = "%{env:BIG}%%{env:BIG}%%{env:BIG}%"')
    problem = only_problem(text, machine=machine_with(environ=big))
    assert problem.message == "the macros expand to more than 1 MiB"


# --- numbers and depths -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "0x" + "f" * 5000,
        "0b" + "1" * 5000,
        "1e400",
        "-1e400",
        "inf",
        "-inf",
        "nan",
        "1e-400",
        "1979-05-27",
        "07:32:00",
        "1979-05-27T07:32:00Z",
        "'" + "9" * 5000 + "'",
        "'" + "9" * 5000 + "s'",
        "'" + "9" * 5000 + " / 5m'",
        "'0x" + "f" * 5000 + "'",
        "'٣'",
        "'²'",
        '"\\u0000"',
        '"\\U0010ffff"',
        "[" * 20 + "]" * 20,
        "{a.b.c.d.e.f.g.h.i = {}}",
    ],
)
def test_odd_values_of_every_key(value: str) -> None:
    for protocol in known_protocols().definitions.values():
        rows = (*LISTENER_OPTIONS, *protocol.listener_options, *own_rows(protocol))
        for row in rows:
            body = f"{row.key} = {value}\n"
            if row.key != "protocol":
                body += f"protocol = '{protocol.name}'\n"
            attempt(listener_table("it", body if row.key == "bind" else body + "bind = '[::1]:2'"))
    for row in PROCESS_OPTIONS:
        attempt(f"{row.key} = {value}\n{LISTENER}")
    for row in CERTIFICATE_OPTIONS:
        attempt(f"{LISTENER}[certificate.x]\n{row.key} = {value}\n")
    for place in ("account", "account.'a@b'", "account.'a@b'.password", "account.'a@b'.aliases"):
        with pytest.raises(ConfigurationError):
            Roster.parse(f"{place} = {value}\n")


@pytest.mark.parametrize(
    "text",
    ["x = " + "9" * 5000, "x = " + "[" * 9999, "\ud800", b"\xff", "a.b" + ".c" * 50 + " = 1"],
)
def test_configuration_and_accounts_report_alike(text: str | bytes) -> None:
    with pytest.raises(ConfigurationError) as one:
        loads(text, file="it", machine=MACHINE)
    with pytest.raises(ConfigurationError) as other:
        Roster.parse(text, "it")
    assert one.value.problems == other.value.problems


def test_number_of_suggestions_is_limited() -> None:
    found = problems(LISTENER + "".join(f"tls.implicit{i} = 1\n" for i in range(300)))
    assert [bool(problem.suggestion) for problem in found] == [True] * 200 + [False] * 100
