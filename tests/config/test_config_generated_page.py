"""The generated page: current, complete, and with examples that load."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.config import MACHINE
from support.registered import registered

from fastlisten.config import loads
from fastlisten.config.document_options import PageError, document, main
from fastlisten.config.known_protocols import known_protocols, own_rows
from fastlisten.config.rows.listener import CERTIFICATE_OPTIONS, LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.handlers.installed import installed_protocols
from fastlisten.handlers.protocol import Protocol
from fastlisten.option import Option

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside these tests")
def test_page_is_current() -> None:
    assert PAGE.read_text() == document()


def test_page_has_every_key() -> None:
    text = document()
    rows = [*LISTENER_OPTIONS, *PROCESS_OPTIONS, *CERTIFICATE_OPTIONS]
    for protocol in known_protocols().definitions.values():
        rows += [*protocol.listener_options, *own_rows(protocol)]
        assert f"| `{protocol.name}`" in text
    for row in rows:
        assert f"| `{row.key}` |" in text
    assert "<!-- table" not in text


def test_examples_on_the_page_load() -> None:
    examples = re.findall(r"```toml\n(.*?)```", document(), re.DOTALL)
    assert len(examples) == 3
    listeners = [bool(loads(_complete(text), machine=MACHINE).listeners) for text in examples]
    assert listeners == [True] * 3


def _complete(example: str) -> str:
    """Return an example that loads: the one about certificates has no listener."""
    if "[server.listener." in example:
        return example
    return example + '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1"\n'


def test_tables_are_complete() -> None:
    for line in document().splitlines():
        if line.startswith("| `"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 7)


def test_write_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "page.md")
    assert main(["--check", file]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main([file]) == 0
    assert main(["--check", file]) == 0
    with open(file, "a") as page:
        page.write("more\n")
    assert main(["--check", file]) == 1


# --- a protocol that is new in this package ---------------------------------------------------

NEW = "fastlisten.handlers.gopher.settings"


@pytest.fixture
def gopher() -> Iterator[None]:
    """Register a protocol of this package, beside the others."""
    sys.modules[NEW] = ModuleType(NEW)
    options = (Option("menu", "path", None, "The file with the menu."),)
    sys.modules[NEW].__dict__["GOPHER"] = Protocol("gopher", port=70, options=options)
    own = {
        name: f"fastlisten.handlers.{module}.settings:{name.upper()}"
        for name in installed_protocols().own
        for module in (name.replace("lmtp", "smtp"),)
    }
    with registered(protocols={**own, "gopher": f"{NEW}:GOPHER"}):
        yield
    del sys.modules[NEW]


@pytest.mark.usefixtures("gopher")
def test_new_protocol_without_a_section_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    assert main([str(page)]) == 1
    assert not page.exists()
    assert "add one, with a line <!-- table: gopher -->" in capsys.readouterr().err


@pytest.mark.usefixtures("gopher")
def test_new_protocol_with_a_section_is_documented() -> None:
    tables = ["protocols", "listener", "process", "certificate", "gopher"]
    tables += sorted({row.key.partition(".")[0] for row in LISTENER_OPTIONS if "." in row.key})
    tables += ["smtp", "lmtp", "imap", "http", "jmap"]
    lines = [f"<!-- table: {name} -->" for name in tables]
    text = document("\n".join(lines))
    assert "| `gopher.menu` | a path |" in text
    assert "| `gopher` (*not available in this version*) | 70 |" in text
    with pytest.raises(PageError, match="table: gopher --> is there twice"):
        document("\n".join([*lines, lines[4]]))


@pytest.mark.usefixtures("gopher")
def test_broken_protocol_fails(capsys: pytest.CaptureFixture[str]) -> None:
    del sys.modules[NEW].__dict__["GOPHER"]
    assert main(["--check"]) == 1
    assert f"error: protocol gopher: its definition {NEW}:GOPHER" in capsys.readouterr().err


def test_table_without_rows_fails() -> None:
    with pytest.raises(PageError, match="no such rows"):
        document("<!-- table: gopher -->")
