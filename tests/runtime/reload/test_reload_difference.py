"""The difference between two configurations: what it says, and what stays as it is.

Rules of this file: configurations only; nothing is served.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from support.config import MACHINE

from fastlisten.config import Config, loads
from fastlisten.runtime.reload.difference import Difference, difference


def config(server: str = "", *listeners: str) -> Config:
    text = f"[server]\n{server}\n"
    for number, lines in enumerate(listeners or ("",)):
        text += f'[server.listener.l{number}]\nprotocol = "smtp"\n'
        if "bind" not in lines:
            text += f'bind = "127.0.0.1:{2500 + number}"\n'
        text += f"{lines}\n"
    return loads(text, machine=MACHINE)


def changes(found: Difference) -> list[str]:
    return [change.text for change in found.changes]


def test_no_difference() -> None:
    assert difference(config(), config()).empty


def test_spelling_is_no_difference() -> None:
    """Nor is a value that is written and was the default."""
    before = config("", 'bind = ["127.0.0.1:25", "2001:db8::1"]')
    after = config("", 'bind = ["127.0.0.1", "[2001:db8:0::1]:25"]\nmax-connections = "8192"')
    assert changes(difference(before, after)) == []


def test_change_of_a_default_is_one_line() -> None:
    before, after = (config(line, *[""] * 5) for line in ("", "max-connections = 9"))
    assert changes(difference(before, after)) == [
        'listeners "l0", "l1", "l2" and 2 more: max-connections = 9 (was 8192)'
    ]
    before, after = (config(f'hostname = "{name}"', "", "") for name in ("a", "b"))
    found = difference(before, after)
    assert changes(found) == ['server.hostname = "b" (was "a")']
    assert found.changed == ("l0", "l1")


def test_secrets_are_compared_but_not_shown() -> None:
    lines = 'smtp.relay = "127.0.0.1:26"\nsmtp.relay-user = "u"\nsmtp.relay-password = "%s"'
    found = difference(config("", lines % "geheim"), config("", lines % "streng"))
    assert changes(found) == ['listener "l0": smtp.relay-password has changed']
    found = difference(config("", 'smtp.relay = "127.0.0.1:26"'), config("", lines % "geheim"))
    assert not any("geheim" in line for line in changes(found))


def test_what_needs_a_restart_keeps_its_value() -> None:
    """Also in a listener that changes otherwise."""
    before = config('[log]\nformat = "text"', "")
    after = config('[log]\nformat = "json"', "socket.reuse-port = true\nmax-connections = 5")
    found = difference(before, after)
    assert found.config.process["log.format"] == "text"
    (listener,) = found.config.listeners
    assert (listener["socket.reuse-port"], listener["max-connections"]) == (False, 5)
    assert listener.origin("socket.reuse-port") == "default"
    assert found.changed == ("l0",)
    only = difference(before, config('[log]\nformat = "text"', "socket.reuse-port = true"))
    assert only.changed == ()
    assert changes(only) == [
        'listener "l0": socket.reuse-port = true needs a stop and a start of the server; '
        "still false"
    ]


def test_listeners_come_and_go() -> None:
    found = difference(config("", "", ""), config("", ""))
    assert (found.added, found.removed) == ((), ("l1",))
    found = difference(config("", ""), config("", "", ""))
    assert (found.added, found.removed) == (("l1",), ())


def test_another_listener_changes_what_an_address_means() -> None:
    """`[::]:25` leaves IPv4 to `0.0.0.0:25`, and needs another socket for that."""
    wide = 'bind = "[::]:25"'
    found = difference(config("", wide), config("", wide, 'bind = "0.0.0.0:25"'))
    assert changes(found) == ['listener "l0": bind = "[::]:25" (IPv6 only) (was "[::]:25")']


def test_environment_is_no_difference() -> None:
    """`server.run-as` changes HOME, and with it the default of the data directory."""
    before = config()
    moved: Mapping[str, object] = {
        **before.process,
        "server.data-directory": "/elsewhere",
        "server.accounts": "/elsewhere/accounts.toml",
    }
    found = difference(before, dataclasses.replace(before, process=moved))
    assert found.empty
    assert found.config.process == before.process
