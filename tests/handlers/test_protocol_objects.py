"""Protocols that packages register as objects.

Rules of this file: the package is outside the tree. It is found by its metadata on the path, as if
installed, or by made-up entry points if the test runs in this process. Handler classes are in
test_protocol_classes.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.config import listener, listener_problem, listener_table, load_text, problems
from support.environment import own_environment
from support.registered import registered

import fastlisten
from fastlisten.config.document_options import main as document
from fastlisten.handlers.installed import PROTOCOLS_GROUP, installed_protocols
from fastlisten.handlers.registry import registered_handler
from fastlisten.runtime.server import Server

SETTINGS = """
from fastlisten.handlers.protocol import Protocol
from fastlisten.option import Option

def check(gopher):
    for listener in gopher.listeners:
        if listener["gopher.menu"] is None and listener.sets("gopher.depth"):
            listener.error("gopher.depth", "there is no menu to go down")
        for bind in listener.binds:
            if not bind.is_loopback and not listener.starttls:
                bind.error("gopher needs TLS", "a loopback address")
        if listener["gopher-url"] is None:
            listener.set_default("gopher-url", f"gopher://{listener['hostname']}")
        if not listener.is_set("timeout.idle"):
            listener.warning("", "patience is short here")
    if gopher.table_sets("menu") and not gopher.listeners:
        gopher.table_warning("menu", "nobody shows it")

GOPHER = Protocol(
    name="gopher",
    handler="gopher_handler:Gopher",
    port=70,
    tls_port=7070,
    server_speaks_first=True,
    starttls=True,
    options=(
        Option("menu", "path", None, "The file with the menu."),
        Option("depth", "integer", 3, "How deep menus go.", minimum=1),
    ),
    listener_options=(Option("gopher-url", "string", None, "Where clients reach it."),),
    defaults={"timeout.idle": 7.0, "max-connections": 10},
    other_names={"gophers": "gopher with tls.implicit = true"},
    check=check,
)
BROKEN = 3
"""

HANDLER = """
from fastlisten import Handler
from support.serving_handlers import LazyEcho

class Gopher(LazyEcho):
    name = "gopher"
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder with a package's modules and installation metadata."""
    (tmp_path / "gopher_settings.py").write_text(SETTINGS)
    (tmp_path / "gopher_handler.py").write_text(HANDLER)
    info = tmp_path / "gopher-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gopher\nVersion: 1\n")
    entry = f"[{PROTOCOLS_GROUP}]\ngopher = gopher_settings:GOPHER\n"
    (info / "entry_points.txt").write_text(entry)
    return tmp_path


@pytest.fixture
def gopher(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the package available in this process."""
    monkeypatch.syspath_prepend(package)
    with registered(protocols={"gopher": "gopher_settings:GOPHER"}):
        yield
    for name in ("gopher_settings", "gopher_handler"):
        sys.modules.pop(name, None)


def run(package: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run one of our modules where the package is installed."""
    paths = (package, Path(fastlisten.__file__).parents[1], Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", *command],
        env={**own_environment(), "PYTHONPATH": ":".join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- found by its metadata ---------------------------------------------------------------------


def test_show_has_its_rows_defaults_and_starttls(package: Path) -> None:
    file = package / "mail.toml"
    file.write_text(
        "[gopher]\ndepth = 5\nmenu = 'menu'\n"
        "[server.listener.it]\nprotocol = 'Gopher'\nbind = '127.0.0.1'\n"
    )
    done = run(package, "fastlisten", "show", "--json", str(file))
    assert "patience is short here" in done.stderr
    (it,) = json.loads(done.stdout)["listeners"]
    assert it["protocol"] == "gopher"
    assert it["bind"][0]["port"] == 70
    assert it["gopher.depth"] == {"value": 5, "origin": "server"}
    assert it["timeout.idle"] == {"value": 7.0, "origin": "default"}
    assert it["max-connections"]["value"] == 10
    assert it["gopher-url"]["value"].startswith("gopher://")
    text = run(package, "fastlisten", "show", str(file)).stdout
    assert 'listener "it": gopher, plain text until STARTTLS' in text
    again = run(package, "fastlisten", "show", "--toml", str(file)).stdout
    assert "[gopher]\ndepth = 5\n" in again


def test_check_runs_its_own_checks(package: Path) -> None:
    file = package / "mail.toml"
    file.write_text(
        "[server.listener.it]\nprotocol = 'gopher'\ntls.enable = false\n"
        "bind = ['127.0.0.1', '192.0.2.1']\ngopher.depth = 2\n"
    )
    done = run(package, "fastlisten", "check", str(file))
    assert done.returncode == 2
    assert f"{file}:4: server.listener.it.bind[1]" in done.stderr
    assert "gopher needs TLS" in done.stderr
    assert f"{file}:5: server.listener.it.gopher.depth = 2: there is no menu" in done.stderr


def test_its_options_are_documented(package: Path) -> None:
    module = "fastlisten.config.document_options"
    done = run(package, module, "--protocol", "gopher")
    assert done.returncode == 0, done.stderr
    assert '| `gopher` | 70 | 7070 | the server | yes | `timeout.idle = "7s"`' in done.stdout
    assert "| `gopher.depth` | a whole number, 1 or more | `3` | `[gopher]`" in done.stdout
    assert "| `gopher-url` |" in done.stdout
    # The package's page is about its own protocols only, whatever else is installed.
    page = package / "page.md"
    assert run(package, module, str(page)).returncode == 0
    assert "gopher" not in page.read_text()


# --- in this process --------------------------------------------------------------------------


@pytest.mark.usefixtures("gopher")
def test_its_handler_is_not_imported() -> None:
    assert listener("protocol = 'gopher'\nbind = '127.0.0.1'").definition.port == 70
    assert "gopher_handler" not in sys.modules
    assert registered_handler("gopher").__module__ == "gopher_handler"


@pytest.mark.usefixtures("gopher")
def test_its_keys_are_rejected_for_other_protocols() -> None:
    found = listener_problem("gopher-url = 'x'")
    assert found.message == "this is only for gopher listeners; this listener speaks smtp"
    found = listener_problem("gopher.depth = 1")
    assert found.message == "this is only for gopher listeners; this listener speaks smtp"
    (slip,) = problems("[gopher]\ndeepth = 1" + listener_table("it", "protocol = 'gopher'"))
    assert slip.suggestion == "depth"
    default = load_text("[server]\ngopher-url = 'x'" + listener_table("it", "protocol = 'gopher'"))
    assert default.listeners[0]["gopher-url"] == "x"
    assert default.listeners[0].line("gopher-url") == 2


@pytest.mark.usefixtures("gopher")
def test_its_table_is_read_without_a_listener() -> None:
    config = load_text("[gopher]\nmenu = 'x'" + listener_table("it", ""))
    assert [warning.message for warning in config.warnings] == ["nobody shows it"]
    assert problems("[gopher]\nnonsense = 1" + listener_table("it", ""))[0].key == "gopher.nonsense"


@pytest.mark.usefixtures("gopher")
def test_its_aliases_are_suggested() -> None:
    assert listener_problem("protocol = 'gophers'").suggestion == "gopher with tls.implicit = true"


def test_entry_points_are_read_once() -> None:
    bodies = "".join(
        listener_table(f"it-{number}", f"bind = '127.0.0.{number}:0'\ntls.enable = false")
        for number in range(1, 4)
    )
    with registered() as asked:
        Server(load_text(bodies))
        load_text(bodies)
    assert sorted(asked) == ["fastlisten.handlers", "fastlisten.protocols"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("gopher", "nowhere_to_be_found:X", "cannot be imported: ModuleNotFoundError"),
        ("gopher", "gopher_settings:NOTHING", "cannot be imported: AttributeError"),
        ("gopher", "gopher_settings:BROKEN", "is not a Protocol"),
        ("burrow", "gopher_settings:GOPHER", "is that of 'gopher'"),
    ],
)
@pytest.mark.usefixtures("gopher")
def test_unusable_object_does_not_affect_others(name: str, value: str, says: str) -> None:
    with registered(protocols={name: value}):
        assert listener("").protocol == "smtp"
        assert says in listener_problem(f"protocol = '{name}'").message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("defaults={'no-key': 1}", "it has a default for no-key, which listeners do not have"),
        ("options=(Option('x', 'odd', 0, ''),)", "x is of unknown kind odd"),
        ("listener_options=(Option('bind', 'string', '', ''),)", "the key bind is already in use"),
        ("name='socket', options=(Option('x', 'string', 0, ''),)", "the name is reserved"),
    ],
)
@pytest.mark.usefixtures("gopher")
def test_object_with_unusable_rows(package: Path, change: str, says: str) -> None:
    name = "socket" if "socket" in change else "gopher"
    (package / "variant.py").write_text(
        "import dataclasses\nfrom fastlisten.option import Option\nfrom gopher_settings import *\n"
        f"IT = dataclasses.replace(GOPHER, {change})\n"
    )
    try:
        with registered(protocols={name: "variant:IT"}):
            assert says in listener_problem(f"protocol = '{name}'").message
    finally:
        sys.modules.pop("variant", None)


def test_unknown_protocol_is_not_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert document(["--protocol", "nonsense"]) == 1
    names = ", ".join(sorted(installed_protocols().definitions))
    message = f"protocol nonsense is not installed; installed: {names}"
    assert message in capsys.readouterr().err
