"""Loading configurations for a fixed machine.

Rules of this file: no test in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from fastlisten.config import Config, ListenerSettings, Machine, loads
from fastlisten.errors import ConfigurationError, Problem

MACHINE = Machine(
    hostname="this.example.org",
    environ={"HOME": "/home/mail", "PORT": "2525", "YES": "true", "BYTES": "\udcff"},
    somaxconn=4096,
    processors=4,
    tls13_choice=False,
)


def load_text(text: str, *, machine: Machine = MACHINE) -> Config:
    return loads(text, machine=machine)


def listener(body: str, *, before: str = "", machine: Machine = MACHINE) -> ListenerSettings:
    """Return the one listener of a text; `body` may leave out bind and protocol."""
    return load_text(before + listener_table("it", body), machine=machine).listeners[0]


def listener_table(id: str, body: str) -> str:
    text = f'\n[server.listener."{id}"]\n'
    if not re.search("^protocol", body, re.MULTILINE):
        text += 'protocol = "smtp"\n'
    if not re.search("^bind", body, re.MULTILINE):
        text += 'bind = "127.0.0.1:2525"\n'
    return text + body + "\n"


def problems(text: str, *, machine: Machine = MACHINE) -> tuple[Problem, ...]:
    """Return the problems of a text, which must have some."""
    with pytest.raises(ConfigurationError) as caught:
        load_text(text, machine=machine)
    return caught.value.problems


def only_problem(text: str, *, machine: Machine = MACHINE) -> Problem:
    """Return the problem of a text, which must have exactly one."""
    found = problems(text, machine=machine)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def listener_problem(body: str, *, before: str = "", machine: Machine = MACHINE) -> Problem:
    return only_problem(before + listener_table("it", body), machine=machine)


def machine_with(**changes: object) -> Machine:
    values: Mapping[str, object] = {
        "hostname": MACHINE.hostname,
        "environ": MACHINE.environ,
        "somaxconn": MACHINE.somaxconn,
        "processors": MACHINE.processors,
        "tls13_choice": MACHINE.tls13_choice,
        "refused_hostname": MACHINE.refused_hostname,
    }
    return Machine(**{**values, **changes})  # type: ignore[arg-type]
