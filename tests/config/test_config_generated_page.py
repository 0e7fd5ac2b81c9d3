"""The generated page: current, complete, and with examples that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.config import MACHINE

from fastlisten.config import loads
from fastlisten.config.document_options import document, main
from fastlisten.config.known_protocols import known_protocols, own_rows
from fastlisten.config.rows.listener import CERTIFICATE_OPTIONS, LISTENER_OPTIONS, PROCESS_OPTIONS

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
