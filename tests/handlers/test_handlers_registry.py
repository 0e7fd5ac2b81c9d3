"""From a name to a handler: entry points, named classes, async functions, and their errors."""

from __future__ import annotations

import asyncio
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import serving_handlers
from support.loops import on_loops
from support.program import program
from support.registered import registered
from support.server import connect, read_all, read_some, served

import fastlisten
from fastlisten.config import loads
from fastlisten.errors import ConfigurationError
from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings, Reason
from fastlisten.handlers.importing import HandlerNotFoundError, named_handler
from fastlisten.handlers.installed import HANDLERS_GROUP
from fastlisten.handlers.registry import handler_class, registered_handler
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.handlers.streams import StreamHandler
from fastlisten.runtime.server import Server

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return a function that makes an importable module; it takes and returns the name."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def module(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        names.append(name)
        return name

    yield module
    for name in names:
        sys.modules.pop(name, None)


# --- by protocol ------------------------------------------------------------------------------


def test_smtp_is_registered() -> None:
    assert registered_handler("smtp") is SmtpHandler
    assert registered_handler("SMTP") is SmtpHandler
    assert handler_class("smtp") is SmtpHandler


def test_smtp_without_package_metadata() -> None:
    with registered():
        assert registered_handler("smtp") is SmtpHandler


def test_package_registers_a_protocol() -> None:
    with registered(handlers={"Echo": "support.serving_handlers:Echo"}):
        for word in ("echo", "Echo", "ECHO"):
            assert registered_handler(word) is serving_handlers.Echo


def test_package_replaces_smtp() -> None:
    with registered(handlers={"smtp": "support.serving_handlers:Echo"}):
        assert registered_handler("smtp") is serving_handlers.Echo


def test_unknown_protocol_is_an_error() -> None:
    with pytest.raises(HandlerNotFoundError, match="no handler is installed for protocol 'gopher'"):
        registered_handler("gopher")


def test_broken_package_is_an_error(write: Write) -> None:
    name = write("broken_package", "raise OSError('no licence')")
    with (
        registered(handlers={"gopher": f"{name}:Gopher"}),
        pytest.raises(HandlerNotFoundError) as caught,
    ):
        registered_handler("gopher")
    assert str(caught.value) == (
        "handler 'broken_package:Gopher': importing it raised OSError: no licence"
    )


def test_package_serves_its_own_protocol(tmp_path: Path) -> None:
    """The package is on the path with its metadata, as if installed; nothing else names it."""
    info = tmp_path / "gopher-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gopher\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{HANDLERS_GROUP}]\ngopher = gopher_server:Gopher\n")
    (tmp_path / "gopher_server.py").write_text(
        "import support.serving_handlers\nclass Gopher(support.serving_handlers.LazyEcho):\n"
        "    name = 'gopher'\n    default_port = 70\n"
    )
    tests = str(Path(__file__).parents[1])
    package = str(Path(fastlisten.__file__).parent.parent)
    text = '[server.listener.it]\nprotocol = "Gopher"\nbind = "127.0.0.1:0"\n'
    environ = {"PYTHONPATH": f"{tmp_path}:{package}:{tests}"}
    with program(tmp_path, text, environ=environ) as started:
        assert 'listener "it": gopher on 127.0.0.1:' in started.out
        assert started.stop() == 0


# --- by name ----------------------------------------------------------------------------------


def test_class_by_name() -> None:
    assert named_handler("support.serving_handlers:Echo") is serving_handlers.Echo
    assert handler_class("support.serving_handlers:Echo") is serving_handlers.Echo
    assert handler_class(serving_handlers.Echo) is serving_handlers.Echo


def test_nested_class(write: Write) -> None:
    name = write(
        "nested_handlers",
        """
        from fastlisten import Handler
        class Outer:
            class Inner(Handler):
                name = "inner"
        """,
    )
    assert named_handler(f"{name}:Outer.Inner").name == "inner"


@pytest.mark.parametrize("name", ["", "module", "module:", ":Class", "a.b.c"])
def test_name_must_have_two_parts(name: str) -> None:
    with pytest.raises(HandlerNotFoundError) as caught:
        named_handler(name)
    assert str(caught.value) == f'handler = {name!r}: write "package.module:Class"'


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:Class", 'no module "no_such_module"; it must be installed'),
        ("support.serving_handlers.deeper:Class", 'no module "support.serving_handlers.deeper"'),
        (
            "support.serving_handlers:Nothing",
            "module 'support.serving_handlers' has no attribute 'Nothing'",
        ),
        ("support.serving_handlers:Echo.nothing", "type object 'Echo' has no attribute 'nothing'"),
        ("support.serving_handlers:NOT_A_HANDLER", "neither a subclass of fastlisten.Handler"),
        ("support.serving_handlers:EchoProtocol", "neither a subclass of fastlisten.Handler"),
        ("support.serving_handlers:no_coroutine", "nor an async function of (reader, writer)"),
    ],
)
def test_unusable_handler_says_why(name: str, words: str) -> None:
    with pytest.raises(HandlerNotFoundError) as caught:
        named_handler(name)
    assert str(caught.value).startswith(f"handler {name!r}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "importing it raised ZeroDivisionError: division by zero"),
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("class Handler(:", "importing it raised SyntaxError: "),
        ("raise KeyError('setting')", "importing it raised KeyError: 'setting'"),
    ],
)
def test_failed_import_says_why(write: Write, text: str, words: str) -> None:
    name = write("does_not_import", text)
    with pytest.raises(HandlerNotFoundError) as caught:
        named_handler(f"{name}:Handler")
    assert str(caught.value).startswith("handler 'does_not_import:Handler': ")
    assert words in str(caught.value)
    assert caught.value.__cause__ is not None


def test_module_is_imported_only_when_needed(write: Write) -> None:
    name = write("costly_module", "from support.serving_handlers import Echo")
    text = '[server.listener.it]\nbind = "127.0.0.1:0"\nprotocol = '
    with registered(handlers={"costly": f"{name}:Echo"}):
        Server(loads(text + '"lmtp"\ntls.enable = false\n'))
        assert name not in sys.modules
        Server(loads(text + '"costly"\n'))
        assert name in sys.modules


def test_error_names_listener_and_line() -> None:
    text = (
        '[server.listener."in.coming"]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
        'handler = "support.serving_handlers:Nothing"\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        Server(loads(text, file="mail.toml"))
    assert str(caught.value) == (
        'mail.toml:4: server.listener."in.coming".handler = "support.serving_handlers:Nothing": '
        "handler 'support.serving_handlers:Nothing': "
        "module 'support.serving_handlers' has no attribute 'Nothing'"
    )


# --- async functions --------------------------------------------------------------------------


def test_async_function_becomes_a_handler() -> None:
    for kind in (
        named_handler("support.serving_handlers:shout"),
        handler_class("support.serving_handlers:shout"),
        handler_class(serving_handlers.shout),
    ):
        assert issubclass(kind, StreamHandler)
        assert kind.name == "shout"
        assert not kind.lazy
        assert not kind.server_speaks_first


@on_loops
async def test_configuration_serves_an_async_function() -> None:
    text = (
        '[server.listener.it]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
        'handler = "support.serving_handlers:shout"\n'
    )
    async with served(text) as server:
        with await connect("127.0.0.1", server.listeners[0].sockets[0].port) as client:
            client.send(b"hello\nthere\n")
            assert await read_some(client, 12) == b"HELLO\nTHERE\n"


@on_loops
async def test_exception_in_async_function_is_logged_with_its_listener(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = (
        '[server.listener.it]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
        'handler = "support.serving_handlers:fail"\n'
    )
    async with served(text) as server:
        with await connect("127.0.0.1", server.listeners[0].sockets[0].port) as client:
            client.send(b"nonsense\n")
            assert await read_all(client) == b""
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert record.getMessage() == 'listener "it": fail failed'
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "nonsense\n"


@on_loops
async def test_running_functions_are_cancelled_at_the_end() -> None:
    ended = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    handler = handler_class(waits)(HandlerSettings("it", "waits", "host"))
    protocol: Any = handler.connection(ConnectionInfo("it", "127.0.0.1", 1))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, ours)
        await asyncio.sleep(0)
        assert not ended.is_set()
        await handler.stop()
        assert ended.is_set()


# --- the base class ---------------------------------------------------------------------------


def test_base_class_defaults() -> None:
    settings = HandlerSettings("it", "word", "host")
    handler = Handler(settings)
    assert handler.settings is settings
    assert handler.greeting == b""
    assert [handler.refusal(reason) for reason in Reason] == [b""] * len(Reason)
    assert [handler.farewell(reason) for reason in Reason] == [b""] * len(Reason)
    assert handler.notes() == ()
    with pytest.raises(NotImplementedError, match="Handler does not implement"):
        handler.connection(ConnectionInfo("it", "", 0))
    assert asyncio.run(handler.start()) is None
    assert asyncio.run(handler.stop()) is None
