"""Writes docs/configuration.md from the option table.

    python -m fastlisten.config.document_options [--check] [FILE]
    python -m fastlisten.config.document_options --protocol NAME

The second form prints the documentation of one protocol, which may be another package's.
With --check nothing is written, and the exit code is 1 if the page is out of date.

Rules of this file: what the page says about a key comes from its row, what it says about a
protocol from its `Protocol`. The rest is in `configuration.md.in` beside this file, in which each
line ``<!-- table: NAME -->`` is replaced by a table. The page covers the protocols of this
package, whatever else is installed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files

from fastlisten.config.known_protocols import known_protocols, own_rows
from fastlisten.config.load import default_text
from fastlisten.config.rows.listener import CERTIFICATE_OPTIONS, LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.config.values.kinds import describe, write
from fastlisten.handlers.installed import ProtocolError, installed_protocols
from fastlisten.handlers.protocol import Protocol
from fastlisten.option import Option

__all__ = ["PageError", "document", "document_protocol", "main"]

_FILE = "docs/configuration.md"
_TEMPLATE = "configuration.md.in"
_TABLE = re.compile(r"^<!-- table: (\S+) -->$", re.MULTILINE)
# Key, place and row.
_Row = tuple[str, str, Option]

_RELOAD = {"live": "at once", "rebind": "new socket", "restart": "restart"}


class PageError(Exception):
    """The page would be incomplete; the text says what is missing and where to add it."""


def document(template: str | None = None) -> str:
    """Return the page.

    Args:
        template: the text around the tables; None: `configuration.md.in`.

    Raises:
        PageError: a protocol of this package cannot be used, rows have no place on the page, or a
            table has no rows.
    """
    if template is None:
        template = files("fastlisten.config").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    protocols = _own_protocols()
    missing = _rows_by_table(protocols)

    def table(match: re.Match[str]) -> str:
        if match[1] == "protocols":
            return _protocols(protocols)
        if match[1] not in missing:
            raise PageError(f"{_TEMPLATE}: {match[0]} is there twice, or there are no such rows")
        return _table(missing.pop(match[1]), protocols)

    text = _TABLE.sub(table, template)
    if missing:
        lines = ", ".join(f"<!-- table: {name} -->" for name in missing)
        raise PageError(f"{_TEMPLATE} has no section for some rows; add one, with a line {lines}")
    return text.replace("<!-- default.toml -->\n", default_text())


def document_protocol(protocol: Protocol) -> str:
    """Return the documentation of one protocol: its properties, then the keys that it adds."""
    parts = [f"## {protocol.name}", _protocols([protocol])]
    if rows := _rows_of(protocol):
        parts.append(_table(rows, [protocol]))
    return "\n\n".join(parts) + "\n"


def _own_protocols() -> list[Protocol]:
    """Return the protocols of this package, in order of name."""
    known = known_protocols()
    own = sorted(installed_protocols().own)
    for name in own:
        if name in known.broken:
            raise PageError(f"protocol {name}: {known.broken[name]}")
    return [known.definitions[name] for name in own]


def _rows_by_table(protocols: Iterable[Protocol]) -> dict[str, list[_Row]]:
    """Return key, place and row of each line, by the name of its table.

    The tables of listeners are named for the groups of their keys, as `socket`; that of keys
    without a group is `listener`.
    """
    tables: dict[str, list[_Row]] = {}
    for row in LISTENER_OPTIONS:
        group = row.key.rpartition(".")[0] or "listener"
        tables.setdefault(group, []).append((row.key, _place(row), row))
    tables["process"] = [(row.key, "process", row) for row in PROCESS_OPTIONS]
    tables["certificate"] = [(row.key, "`[certificate]`", row) for row in CERTIFICATE_OPTIONS]
    tables.update((each.name, rows) for each in protocols if (rows := _rows_of(each)))
    return tables


def _rows_of(protocol: Protocol) -> list[_Row]:
    rows = [(row.key, _place(row), row) for row in protocol.listener_options]
    place = f"`[{protocol.name}]`, listener"
    return rows + [(row.key, place, row) for row in own_rows(protocol)]


def _protocols(protocols: Iterable[Protocol]) -> str:
    """Return the table of protocols."""
    lines = [
        "| protocol | port | port with `tls.implicit` | speaks first | STARTTLS | other defaults |",
        "|---|---|---|---|---|---|",
    ]
    rows = {row.key: row for row in known_protocols().listener_options}
    starttls = {True: "yes", False: "no", None: "if the listener has a certificate"}
    for protocol in protocols:
        name = f"`{protocol.name}`" + (
            "" if protocol.handler else " (*not available in this version*)"
        )
        defaults = (
            f"`{key} = {write(rows[key], value)}`" for key, value in protocol.defaults.items()
        )
        cells = (
            name,
            str(protocol.port or "none"),
            str(protocol.standard_port(True) or "none"),
            "the server" if protocol.server_speaks_first else "the client",
            starttls[protocol.starttls],
            ", ".join(defaults) or "none",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _place(row: Option) -> str:
    return "listener, `[server]`" if "server" in row.scopes else "listener"


def _table(rows: Iterable[_Row], protocols: Sequence[Protocol]) -> str:
    lines = ["| key | value | default | where | reload | meaning |", "|---|---|---|---|---|---|"]
    for key, place, row in rows:
        text = row.text if row.available else f"{row.text} *Not available in this version.*"
        value = describe(row)
        if row.unit and row.unit not in value and row.kind != "duration":
            value += f" ({row.unit})"
        reload = _RELOAD[row.reload] if row.available else "-"
        cells = (f"`{key}`", value, _default(row, protocols), place, reload, text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _default(row: Option, protocols: Iterable[Protocol]) -> str:
    if text := row.extra.get("default-text"):
        return str(text)
    shown = "not set" if row.default is None else f"`{write(row, row.default)}`"
    by_protocol = {
        protocol.name: write(row, protocol.defaults[row.key])
        for protocol in protocols
        if row.key in protocol.defaults
    }
    for value in dict.fromkeys(by_protocol.values()):
        names = ", ".join(name for name in by_protocol if by_protocol[name] == value)
        shown += f"; {names} `{value}`"
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or check that it is up to date.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        0; 1 if the page is out of date or cannot be written, or the protocol is not installed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastlisten.config.document_options",
        description="Write docs/configuration.md from the option table.",
    )
    parser.add_argument("file", nargs="?", default=_FILE)
    parser.add_argument(
        "--check", action="store_true", help="only check whether the page is up to date"
    )
    parser.add_argument(
        "--protocol", metavar="NAME", help="print the documentation of one protocol instead"
    )
    options = parser.parse_args(arguments)
    if options.protocol is not None:
        return _print_protocol(options.protocol.lower())
    try:
        text = document()
    except PageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
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


def _print_protocol(name: str) -> int:
    try:
        protocol = known_protocols().find(name)
    except ProtocolError as error:
        print(f"protocol {name}: {error}", file=sys.stderr)
        return 1
    if protocol is None:
        known = ", ".join(known_protocols().names)
        print(f"protocol {name} is not installed; installed: {known}", file=sys.stderr)
        return 1
    print(document_protocol(protocol), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
