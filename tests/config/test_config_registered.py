"""Protocols that installed packages register, and code that a listener names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest
from support.config import listener, listener_problem, listener_table, load_text, problems

from fastlisten.config import protocols
from fastlisten.option import Option

Register = Callable[..., None]


class Echo:
    name = "echo"
    default_port = 7
    default_tls_port = 8
    server_speaks_first = False
    options = (
        Option("shout", "boolean", False, "Answer in capitals."),
        Option("limit", "size", 100, "The longest line.", minimum=1),
    )


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Register classes as installed packages do."""
    points: dict[str, EntryPoint] = {}
    module = ModuleType("fastlisten_test_handlers")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def add(name: str, handler: Any = None, value: str = "") -> None:
        if handler is not None:
            setattr(module, handler.__name__, handler)
            value = f"{module.__name__}:{handler.__name__}"
        points[name] = EntryPoint(name, value, protocols.GROUP)

    for cached in (protocols.registered, protocols.load_registered):
        cached.cache_clear()
    monkeypatch.setattr(protocols, "entry_points", lambda group: tuple(points.values()))
    yield add
    for cached in (protocols.registered, protocols.load_registered):
        cached.cache_clear()


def test_a_registered_protocol(register: Register) -> None:
    register("Echo", Echo)
    it = listener(
        "protocol = 'ECHO'\nbind = ['127.0.0.1', '[::1]:9']\necho.shout = true",
        before="[echo]\nlimit = '1KiB'",
    )
    assert it.protocol == "echo"
    assert [bind.port for bind in it.bind] == [7, 9]
    assert it.handler_options == {"shout": True, "limit": 1024}
    assert it.origin("echo.limit") == "server"
    assert it.line("echo.limit") == 2
    assert not it.server_speaks_first
    config = load_text(listener_table("it", "protocol = 'echo'\nsocket.defer-accept = '1s'"))
    assert config.unavailable() == ()
    assert config.listeners[0]["timeout.idle"] == 300.0


def test_it_may_say_that_it_has_starttls(register: Register) -> None:
    class Secret(Echo):
        starttls = True

    register("echo", Echo)
    register("secret", Secret)
    assert not listener("protocol = 'echo'\nbind = '[::1]:9'").starttls
    assert listener("protocol = 'secret'\nbind = '[::1]:9'").starttls


def test_its_table_is_another_programs_where_nobody_speaks_it(register: Register) -> None:
    register("echo", Echo)
    config = load_text("[echo]\nnonsense = 1" + listener_table("it", ""))
    assert config.warnings[0].message.endswith("ignored: echo")


def test_its_keys_are_checked(register: Register) -> None:
    register("echo", Echo)
    text = "[echo]\nshot = true" + listener_table("it", "protocol = 'echo'\necho.limit = 0")
    found = problems(text)
    assert [(problem.key, problem.suggestion) for problem in found] == [
        ("echo.shot", "shout"),
        ("server.listener.it.echo.limit", ""),
    ]


def test_a_builtin_protocol_that_a_package_registers_is_served(register: Register) -> None:
    register("imap", value="nowhere:Nothing")
    assert load_text(listener_table("it", "protocol = 'imap'")).unavailable() == ()


class NoHandler:
    pass


class Unknown:
    default_port = default_tls_port = 0
    server_speaks_first = True
    options = (Option("x", "nonsense", 0, "X."),)


@pytest.mark.parametrize(
    ("name", "handler", "value", "says"),
    [
        ("echo", None, "nowhere_to_be_found:X", "cannot be loaded: ModuleNotFoundError"),
        ("echo", None, "os:nothing", "cannot be loaded: AttributeError"),
        ("echo", NoHandler, "", "is not a Handler"),
        ("echo", Unknown, "", "the unknown kind nonsense"),
        ("socket", Echo, "", "reserved name"),
    ],
)
def test_handlers_that_cannot_be_used(
    register: Register, name: str, handler: Any, value: str, says: str
) -> None:
    register(name, handler, value)
    assert says in listener_problem(f"protocol = '{name}'").message


def test_registered_protocols_are_among_those_that_are_named(register: Register) -> None:
    register("echo", Echo)
    problem = listener_problem("protocol = 'eco'")
    assert '"http", "echo"' in problem.allowed
    assert problem.suggestion == "echo"


def test_whoever_names_the_code_may_name_the_protocol() -> None:
    it = listener("protocol = 'finger'\nhandler = 'my.code:Finger'\nbind = '127.0.0.1:79'")
    assert (it.protocol, it["handler"]) == ("finger", "my.code:Finger")
    without_port = listener_problem("protocol = 'finger'\nhandler = 'a:B'\nbind = '127.0.0.1'")
    assert "has no standard one" in without_port.message
    slip = listener_problem("protocol = 'smpt'\nhandler = 'my.code:Finger'")
    assert slip.suggestion == "smtp"


def test_code_is_not_imported_when_it_is_only_named() -> None:
    assert listener("handler = 'nowhere_to_be_found:X'")["handler"] == "nowhere_to_be_found:X"
