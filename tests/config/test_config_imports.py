"""What is imported when: reading a configuration needs neither an event loop nor a native module.

Rules of this file: each statement runs in its own interpreter, which then reports what it has
loaded. Which module may import which is tested in tests/project/test_architecture.py; here is the
outcome.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fastlisten
from fastlisten import handlers
from fastlisten.config.known_protocols import known_protocols

#: Modules that a program which only reads a file should not have to load.
LOOPS = frozenset({"asyncio", "concurrent.futures", "uvloop"})

#: Modules of extras; a configuration that does not use them is read without them.
EXTRAS = frozenset(
    {"argon2", "cryptography", "httptools", "prometheus_client", "starlette", "websockets"}
)

PACKAGE = Path(fastlisten.__file__).parent

#: The packages of protocols; only their settings are needed to read a configuration.
PROTOCOLS = sorted(
    path.parent.name for path in Path(handlers.__file__).parent.glob("*/__init__.py")
)


def loaded(statements: str, *arguments: str) -> set[str]:
    """Return the modules that an interpreter has loaded after running some statements."""
    script = f"import json, sys\n{statements}\nprint(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(json.loads(done.stdout.splitlines()[-1]))


def heavy(modules: set[str]) -> set[str]:
    """Return those of some modules that a program without a server should not load."""
    native = {name for name in modules if name.startswith("fastlisten._") and "__" not in name}
    return (modules & (LOOPS | EXTRAS)) | native


@pytest.mark.parametrize(
    "statements",
    [
        "import fastlisten",
        "import fastlisten.config",
        "import fastlisten.config as c; c.find_unavailable(c.default_config())",
        "import fastlisten.cli.check, fastlisten.cli.show, fastlisten.cli.account",
        "from fastlisten import ConfigurationError, Problem, StartError",
        *(f"import fastlisten.handlers.{name}.settings" for name in PROTOCOLS),
    ],
)
def test_configuration_imports_no_loop_and_no_native_module(statements: str) -> None:
    assert heavy(loaded(statements)) == set()


@pytest.mark.parametrize(
    "command",
    [["show"], ["show", "--json"], ["show", "--toml"], ["check"]],
    ids=" ".join,
)
def test_commands_import_no_loop_and_no_native_module(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "mail.toml"
    binds = {"smtp": "127.0.0.1:25", "lmtp": "127.0.0.1:24", "http": "127.0.0.1:80"}
    path.write_text(
        # Making a self-signed certificate would load an extra.
        f"server.tls.enable = false\nserver.data-directory = '{tmp_path}'\n"
        + "".join(
            f"[server.listener.{name}]\nprotocol = '{name}'\nbind = '{bind}'\n"
            for name, bind in binds.items()
        )
    )
    modules = loaded(
        "from fastlisten.cli.main import main\nassert main(sys.argv[1:]) == 0",
        *command,
        str(path),
    )
    assert heavy(modules) == set()


def test_heavy_imports_are_detected() -> None:
    modules = loaded("from fastlisten import create_server")
    assert heavy(modules) >= {"asyncio", "fastlisten._core"}


#: Those that have a handler; of the others only settings exist.
SERVED = [name for name in PROTOCOLS if known_protocols().definitions[name].handler]


@pytest.mark.parametrize("package", ["fastlisten", *(f"fastlisten.handlers.{p}" for p in SERVED)])
def test_public_names_are_imported_lazily(package: str) -> None:
    """Importing the package loads nothing more; each of its names loads its module."""
    own = {name for name in loaded(f"import {package}") if name.startswith("fastlisten")}
    parts = package.split(".")
    assert own == {".".join(parts[: i + 1]) for i in range(len(parts))}
    names = loaded(
        f"import {package} as package\n"
        "assert package.__all__\n"
        "for name in package.__all__:\n"
        "    value = getattr(package, name)\n"
        "    assert value.__module__.startswith('fastlisten.'), value\n"
        "    assert value.__name__ == name\n"
        "    assert name in dir(package)\n"
        "assert not hasattr(package, 'nothing_of_this_name')\n"
    )
    assert any(name.startswith(package + ".") for name in names)
