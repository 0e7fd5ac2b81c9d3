"""`app = "package.module:name"`: which names are loaded, and the errors for the others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.environment import clean_environment
from support.http import App, handler_of
from support.program import program, run

from fastlisten.config import loads
from fastlisten.errors import ConfigurationError
from fastlisten.handlers.base import SettingError
from fastlisten.handlers.http.application import load_application
from fastlisten.runtime.server import Server

MODULE = """\
class Inner:
    async def app(self, scope, receive, send): ...

async def app(scope, receive, send): ...
def make(): return app
def make_with(default=None): return Inner().app
def broken(): raise ValueError("no database")
def make_nothing(): return None
def wsgi(environ, start_response): ...
def asgi2(scope): ...
class Awaited:
    def __init__(self, scope, receive, send): ...
    def __await__(self): ...
class Class:
    def __init__(self, scope, receive, send): ...
async def more(scope, receive, send, another): ...
inner = Inner()
number = 3
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory that modules are imported from; they are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "some_app.py").write_text(MODULE)
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "__init__.py").write_text("")
    (tmp_path / "some_package" / "part.py").write_text(MODULE)
    (tmp_path / "raising.py").write_text("raise ValueError('no settings')")
    (tmp_path / "needing.py").write_text("import not_there_at_all")
    (tmp_path / "wrong.py").write_text("def f(:")
    (tmp_path / "leaving.py").write_text("from os import not_there")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name",
    [
        "some_app:app",
        "some_app:make()",
        "some_app:make_with()",
        "some_app:inner.app",
        "some_app:Awaited",
        "some_package.part:app",
    ],
)
def test_application_is_loaded_by_name(modules: Path, name: str) -> None:
    assert callable(load_application(name))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "not_there_at_all:app",
            'no module "not_there_at_all"; it must be installed or on PYTHONPATH',
        ),
        (
            "some_package.not_there:app",
            'no module "some_package.not_there"; it must be installed or on PYTHONPATH',
        ),
        (
            "not_there_at_all.part:app",
            'no module "not_there_at_all"; it must be installed or on PYTHONPATH',
        ),
        ("some_app:absent", "module some_app has no absent"),
        ("some_app:inner.absent", "module some_app has no inner.absent"),
        ("raising:app", "importing raising failed: ValueError: no settings"),
        ("needing:app", "importing needing failed: No module named 'not_there_at_all'"),
        ("wrong:app", "importing wrong failed: SyntaxError: "),
        ("leaving:app", "importing leaving failed: ImportError: cannot import name"),
        ("some_app:number", "number is not an application"),
        ("some_app:Class", "Class is a class and not an application"),
        ("some_app:make", "it looks like a function that makes one, write it with ()"),
        ("some_app:asgi2", "it looks like ASGI 2"),
        ("some_app:wsgi", "it looks like WSGI"),
        ("some_app:more", "it looks like something else"),
        ("some_app:broken()", "broken() failed: ValueError: no database"),
        ("some_app:app()", "app() failed: TypeError: "),
        ("some_app:make_nothing()", "make_nothing is not an application"),
    ],
)
def test_wrong_name_is_an_error_that_says_why(modules: Path, name: str, words: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_application(name)
    assert words in str(caught.value)
    assert caught.value.key == "app"


LISTENER = '[server.listener.web]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        Server(loads(text))
    return [str(problem) for problem in caught.value.problems]


def test_every_wrong_name_is_reported_with_its_line(modules: Path) -> None:
    text = LISTENER + 'app = "absent:app"\n' + LISTENER.replace("web", "other")
    assert problems_of(text + 'app = "some_app:wsgi"') == [
        '<config>:4: server.listener.web.app = "absent:app": no module "absent"; '
        "it must be installed or on PYTHONPATH",
        '<config>:8: server.listener.other.app = "some_app:wsgi": wsgi does not take '
        "scope, receive and send (ASGI 3); it looks like WSGI",
    ]


@pytest.mark.parametrize("value", ['"app"', '"a:b()()"', '"a:b(1)"', '":app"'])
def test_malformed_name_is_an_error(value: str) -> None:
    with pytest.raises(ConfigurationError, match="not the name of a Python object") as caught:
        loads(LISTENER + f"app = {value}")
    assert caught.value.problems[0].line == 4
    assert '"package.module:function()"' in caught.value.problems[0].allowed


def test_app_on_another_protocol_is_an_error() -> None:
    text = '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\napp = "a:b"\n'
    with pytest.raises(
        ConfigurationError, match="only http listeners can have an app; this listener speaks smtp"
    ):
        loads(text)


def test_application_object_is_served() -> None:
    assert handler_of(App()).notes() == ()
    assert handler_of(App(), max_body_size=None).notes() == ("request bodies have no size limit",)


def without(library: str, directory: Path) -> dict[str, str]:
    """Return an environment in which a library cannot be imported."""
    code = f"raise ModuleNotFoundError('missing', name={library!r})"
    (directory / f"{library}.py").write_text(code)
    return {"PYTHONPATH": f"{directory}:{clean_environment()['PYTHONPATH']}"}


@pytest.mark.parametrize("library", ["httptools", "starlette", "prometheus_client"])
def test_missing_library_exits_with_2(tmp_path: Path, library: str) -> None:
    (tmp_path / "it.toml").write_text(LISTENER)
    done = run("serve", tmp_path / "it.toml", **without(library, tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f'error: {tmp_path}/it.toml:2: server.listener.web.protocol = "http": '
        f'http needs the package {library}: pip install "fastlisten[http]"\n'
    )


def test_application_needs_neither_starlette_nor_prometheus(tmp_path: Path) -> None:
    environ: dict[str, Any] = without("starlette", tmp_path) | without(
        "prometheus_client", tmp_path
    )
    text = LISTENER + 'app = "support.http_application:app"\n'
    with program(tmp_path, text, environ=environ) as started:
        assert started.stop() == 0
