"""Writes docs/configuration.md from the option table.

    python -m fastlisten.config.document_options [--check] [FILE]

Rules of this file: what is said of a key comes from its row; the text around it is
`configuration.md.in` beside this file, where each line ``<!-- table: NAME -->`` becomes a table.
With --check nothing is written, and the exit code is 1 if the file is not what would be written.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files

from fastlisten.config.load import default_text
from fastlisten.config.protocols import PROTOCOLS
from fastlisten.config.rows.listener import CERTIFICATE_OPTIONS, LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.config.values.grammar import format_duration
from fastlisten.config.values.kinds import describe, write
from fastlisten.option import Option

__all__ = ["document", "main"]

_FILE = "docs/configuration.md"
_TABLE = re.compile(r"^<!-- table: (\S+) -->$", re.MULTILINE)
_RELOAD = {"live": "at once", "rebind": "new socket", "restart": "restart"}


def document() -> str:
    """Return the text of the page."""
    template = files("fastlisten.config").joinpath("configuration.md.in")
    text = template.read_text(encoding="utf-8").replace("<!-- default.toml -->\n", default_text())
    return _TABLE.sub(lambda match: _table(_rows(match[1])), text)


def _rows(name: str) -> Iterable[tuple[str, str, Option]]:
    """Return key, place and row of everything that one of the page's tables holds."""
    if name == "process":
        return [(row.key, "process", row) for row in PROCESS_OPTIONS]
    if name == "certificate":
        return [(row.key, "`[certificate]`", row) for row in CERTIFICATE_OPTIONS]
    if name in PROTOCOLS:
        place = f"`[{name}]`, listener"
        return [(row.key, place, row) for row in PROTOCOLS[name].options]
    grouped = [row for row in LISTENER_OPTIONS if row.key.rpartition(".")[0] == name.strip("-")]
    return [(row.key, _place(row), row) for row in grouped]


def _place(row: Option) -> str:
    return "listener, `[server]`" if "server" in row.scopes else "listener"


def _table(rows: Iterable[tuple[str, str, Option]]) -> str:
    lines = ["| key | value | default | where | reload | meaning |", "|---|---|---|---|---|---|"]
    for key, place, row in rows:
        text = row.text if row.available else f"{row.text} *Not in this version yet.*"
        value = describe(row)
        if row.unit and row.unit not in value and row.kind != "duration":
            value += f" ({row.unit})"
        cells = (f"`{key}`", value, _default(row), place, _RELOAD[row.reload], text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _default(row: Option) -> str:
    if text := row.extra.get("default-text"):
        return str(text)
    shown = "not set" if row.default is None else f"`{write(row, row.default)}`"
    by_protocol = {
        protocol: format_duration(value)
        for protocol, value in row.extra.get("by-protocol", {}).items()
    }
    for value in dict.fromkeys(by_protocol.values()):
        names = ", ".join(name for name in by_protocol if by_protocol[name] == value)
        shown += f'; {names} `"{value}"`'
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check that it is current.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        0, or 1 if a check finds the page out of date.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastlisten.config.document_options",
        description="Write docs/configuration.md from the option table.",
    )
    parser.add_argument("file", nargs="?", default=_FILE)
    parser.add_argument("--check", action="store_true", help="only say whether it is current")
    options = parser.parse_args(arguments)
    text = document()
    if not options.check:
        with open(options.file, "w", encoding="utf-8") as file:
            file.write(text)
        return 0
    try:
        with open(options.file, encoding="utf-8") as file:
            current = file.read() == text
    except FileNotFoundError:
        current = False
    if not current:
        print(f"{options.file} is out of date: run {parser.prog}", file=sys.stderr)
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
