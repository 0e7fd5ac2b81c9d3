"""What the tests of the configuration share: a host that is the same everywhere, and short loads.

Rules of this file: no test in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from fastlisten.config import Config, Host, ListenerSettings, loads
from fastlisten.errors import ConfigurationError, Problem

HOST = Host(
    hostname="this.example.org",
    environ={"HOME": "/home/mail", "PORT": "2525", "YES": "true", "BYTES": "\udcff"},
    somaxconn=4096,
    processors=4,
    tls13_choice=False,
)


def load_text(text: str, *, host: Host = HOST) -> Config:
    return loads(text, host=host)


def listener(body: str, *, before: str = "", host: Host = HOST) -> ListenerSettings:
    """Return the one listener of a text; `body` may leave out bind and protocol."""
    return load_text(before + listener_table("it", body), host=host).listeners[0]


def listener_table(id: str, body: str) -> str:
    text = f'\n[server.listener."{id}"]\n'
    if not re.search("^protocol", body, re.MULTILINE):
        text += 'protocol = "smtp"\n'
    if not re.search("^bind", body, re.MULTILINE):
        text += 'bind = "127.0.0.1:2525"\n'
    return text + body + "\n"


def problems(text: str, *, host: Host = HOST) -> tuple[Problem, ...]:
    """Return the mistakes of a text, which must have some."""
    with pytest.raises(ConfigurationError) as caught:
        load_text(text, host=host)
    return caught.value.problems


def only_problem(text: str, *, host: Host = HOST) -> Problem:
    """Return the mistake of a text, which must have exactly one."""
    found = problems(text, host=host)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def listener_problem(body: str, *, before: str = "", host: Host = HOST) -> Problem:
    return only_problem(before + listener_table("it", body), host=host)


def host_with(**changes: object) -> Host:
    values: Mapping[str, object] = {
        "hostname": HOST.hostname,
        "environ": HOST.environ,
        "somaxconn": HOST.somaxconn,
        "processors": HOST.processors,
        "tls13_choice": HOST.tls13_choice,
        "refused_hostname": HOST.refused_hostname,
    }
    return Host(**{**values, **changes})  # type: ignore[arg-type]
