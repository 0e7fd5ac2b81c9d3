"""Handler classes registered by installed packages, and code named by a listener.

Packages that register protocol objects are tested in test_protocol_objects.py.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from support.config import listener, listener_problem, listener_table, load_text, problems
from support.registered import registered

from fastlisten import Handler
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError
from fastlisten.option import Option

Register = Callable[..., None]


class Echo(Handler):
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
    module = ModuleType("fastlisten_test_handlers")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    values: dict[str, str] = {}

    with contextlib.ExitStack() as stack:

        def add(name: str, handler: Any = None, value: str = "") -> None:
            if handler is not None:
                setattr(module, handler.__name__, handler)
                value = f"{module.__name__}:{handler.__name__}"
            values[name] = value
            stack.enter_context(registered(handlers=values))

        yield add


def test_registered_protocol(register: Register) -> None:
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
    assert find_unavailable(config) == ()
    assert config.listeners[0]["timeout.idle"] == 300.0


def test_registered_protocol_with_starttls(register: Register) -> None:
    class Secret(Echo):
        starttls = True

    register("echo", Echo)
    register("secret", Secret)
    assert not listener("protocol = 'echo'\nbind = '[::1]:9'").starttls
    assert listener("protocol = 'secret'\nbind = '[::1]:9'").starttls


def test_table_of_an_unused_protocol_is_ignored(register: Register) -> None:
    register("echo", Echo)
    config = load_text("[echo]\nnonsense = 1" + listener_table("it", ""))
    assert config.warnings[0].message.endswith("ignored: echo")


def test_keys_of_a_registered_protocol_are_checked(register: Register) -> None:
    register("echo", Echo)
    text = "[echo]\nshot = true" + listener_table("it", "protocol = 'echo'\necho.limit = 0")
    found = problems(text)
    assert [(problem.key, problem.suggestion) for problem in found] == [
        ("echo.shot", "shout"),
        ("server.listener.it.echo.limit", ""),
    ]


def test_package_serves_a_known_protocol(register: Register) -> None:
    """Its class adds to what is known about the protocol."""

    class Sieve(Echo):
        default_port = 0

    register("managesieve", Sieve)
    it = listener("protocol = 'managesieve'\nbind = '127.0.0.1'\nmanagesieve.shout = true")
    assert [bind.port for bind in it.bind] == [4190]
    assert it.starttls
    assert it.handler_options == {"shout": True, "limit": 100}
    assert find_unavailable(load_text(listener_table("it", "protocol = 'managesieve'"))) == ()


class NoHandler:
    pass


class Unknown(Handler):
    options = (Option("x", "nonsense", 0, "X."),)


@pytest.mark.parametrize(
    ("name", "handler", "value", "says"),
    [
        ("echo", None, "nowhere_to_be_found:X", 'no module "nowhere_to_be_found"'),
        ("echo", None, "os:nothing", "module 'os' has no attribute 'nothing'"),
        ("echo", NoHandler, "", "neither a subclass of fastlisten.Handler"),
        ("echo", Unknown, "", "unknown kind nonsense"),
        ("socket", Echo, "", "the name is reserved"),
    ],
)
def test_unusable_handlers(
    register: Register, name: str, handler: Any, value: str, says: str
) -> None:
    register(name, handler, value)
    assert says in listener_problem(f"protocol = '{name}'").message


def test_error_lists_registered_protocols(register: Register) -> None:
    register("echo", Echo)
    problem = listener_problem("protocol = 'eco'")
    assert '"echo", "http"' in problem.allowed
    assert problem.suggestion == "echo"


def test_handler_may_have_any_protocol_name() -> None:
    it = listener("protocol = 'finger'\nhandler = 'my.code:Finger'\nbind = '127.0.0.1:79'")
    assert (it.protocol, it["handler"]) == ("finger", "my.code:Finger")
    without_port = listener_problem("protocol = 'finger'\nhandler = 'a:B'\nbind = '127.0.0.1'")
    assert "has no standard port" in without_port.message


@pytest.mark.parametrize(
    ("name", "known"), [("smtps", "smtp"), ("lmtps", "lmtp"), ("imaps", "imap")]
)
def test_name_like_a_known_one_needs_a_handler(name: str, known: str) -> None:
    table = f"protocol = '{name}'\nbind = '127.0.0.1:79'\n"
    config = load_text("[server.listener.it]\n" + table + "handler = '" + __name__ + ":Echo'")
    assert config.listeners[0].protocol == name
    (warning,) = (one for one in config.warnings if one.key == "server.listener.it.protocol")
    assert warning.message.startswith(f'similar to "{known}"; taken as a new protocol')
    for handler in ("", "handler = 'no colon'", "handler = 3"):
        found = problems("[server.listener.it]\n" + table + handler)
        (problem,) = (one for one in found if one.key == "server.listener.it.protocol")
        assert (problem.message, problem.suggestion) == ("unknown protocol", known)


def test_missing_handler_class_is_no_error() -> None:
    """A file may be checked on another machine; only serving it fails."""
    assert listener("handler = 'nowhere_to_be_found:X'")["handler"] == "nowhere_to_be_found:X"


def test_missing_handler_class_warns_beside_unknown_keys() -> None:
    body = "protocol = 'finger'\nhandler = 'nowhere_to_be_found:X'\nfinger.shout = true"
    with pytest.raises(ConfigurationError) as caught:
        load_text(listener_table("it", body))
    (warning,) = caught.value.warnings
    assert warning.key == "server.listener.it.handler"
    assert 'no module "nowhere_to_be_found"' in warning.message
