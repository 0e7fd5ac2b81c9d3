"""The configuration knows no protocol by name, and all of ours are found through entry points.

Rules of this file: sources and pyproject.toml are read as text; docstrings and comments may name
protocols as examples.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from support.registered import registered

import fastlisten
from fastlisten.config.known_protocols import known_protocols
from fastlisten.handlers.installed import HANDLERS_GROUP, PROTOCOLS_GROUP

CONFIG = Path(fastlisten.__file__).parent / "config"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def named(source: str, names: frozenset[str]) -> list[str]:
    """Return the strings of a module that are the name of a protocol, or a key of its table."""
    texts = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [text for text in texts if text.partition(".")[0] in names]


def test_config_modules_name_no_protocol() -> None:
    names = frozenset(known_protocols().names)
    found = {
        str(file.relative_to(CONFIG)): texts
        for file in CONFIG.rglob("*.py")
        if (texts := named(file.read_text(encoding="utf-8"), names))
    }
    # URL schemes.
    assert found == {"values/network.py": ["http"]}


def test_protocol_names_are_detected() -> None:
    assert named('if protocol == "smtp": x["lmtp.y"]', frozenset({"smtp", "lmtp"})) == [
        "smtp",
        "lmtp.y",
    ]


@pytest.mark.skipif(not PROJECT.exists(), reason="pyproject.toml is not beside these tests")
def test_registered_protocols_are_those_in_the_tree() -> None:
    groups = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["entry-points"]
    with registered():
        in_tree = dict(known_protocols().definitions)
    with registered(protocols=groups[PROTOCOLS_GROUP], handlers=groups[HANDLERS_GROUP]):
        assert dict(known_protocols().definitions) == in_tree
        for name in groups[HANDLERS_GROUP]:
            # A class other than the object's would have to be imported to read a configuration.
            assert groups[HANDLERS_GROUP][name] == in_tree[name].handler
