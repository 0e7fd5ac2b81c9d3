"""From TOML tables to typed values, collecting mistakes.

Rules of this file: it looks at one value or key at a time. Rules between values are in `checks.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastlisten.config.document import NO_VALUE, Document
from fastlisten.config.machine import Machine
from fastlisten.config.macros import expand
from fastlisten.config.notation import KeyPath, dotted
from fastlisten.config.secret_names import Secret, gives_secret, hide_secrets, is_secret_name
from fastlisten.config.suggest import likely, near
from fastlisten.config.values.grammar import BadValueError
from fastlisten.config.values.kinds import KINDS, describe
from fastlisten.option import Option

__all__ = ["Reader", "Schema", "Values"]

#: Keys of one table: a row, or the keys of a table within it.
Tree = dict[str, "Option | Tree"]

# Unknown keys per file for which a suggestion is looked up.
_MAX_SUGGESTIONS = 200

_PARSERS: dict[str, Callable[[Option, Any], Any]] = {
    name: kind.parse for name, kind in KINDS.items()
}


class Schema:
    """The keys of one table.

    Args:
        rows: keys and rows: ``("hostname", row)`` for `server.hostname`.
        elsewhere: keys that do not belong here, with the message for each.
        others: keys that are allowed but read elsewhere.
        secret: values are never repeated in messages.

    Attributes:
        tree: rows by key, nested like the tables; includes older spellings of keys.
        keys: all dotted keys, then the names of nested tables.
    """

    def __init__(
        self,
        rows: Iterable[tuple[str, Option]],
        elsewhere: Mapping[str, str] | None = None,
        others: tuple[str, ...] = (),
        secret: bool = False,
    ) -> None:
        self.tree: Tree = {}
        keys = []
        self._secret_tables = set()
        for key, row in rows:
            keys.append(key)
            if row.kind == "secret":
                self._secret_tables.add(key.rpartition(".")[0])
            if older := row.extra.get("older"):
                self.tree[older] = row
            *groups, last = key.split(".")
            tree = self.tree
            for group in groups:
                inner = tree.setdefault(group, {})
                if not isinstance(inner, dict):
                    raise AssertionError(f"{group} is both a key and a table")
                tree = inner
            tree[last] = row
        groups = [name for name, node in self.tree.items() if isinstance(node, dict)]
        self.keys = (*keys, *groups, *others)
        self.elsewhere = elsewhere or {}
        self.secret = secret

    def may_be_secret(self, name: str, meant: str) -> bool:
        """Tell whether an unknown key may be meant for a secret.

        Args:
            name: the key.
            meant: the key that was probably meant, empty if none is similar.
        """
        return is_secret_name(meant) or name.rpartition(".")[0] in self._secret_tables


@dataclass(slots=True)
class Values:
    """The typed values of one table.

    Attributes:
        typed: by key.
        failed: keys whose value could not be parsed.
    """

    typed: dict[str, Any] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)


class Reader:
    """Reads the tables of one document.

    Attributes:
        foreign: paths of tables and keys that belong to another program's configuration.
    """

    def __init__(self, document: Document, machine: Machine) -> None:
        self.document = document
        self.foreign: list[KeyPath] = []
        self._environ = machine.environ
        self._suggestions = 0

    def table(self, data: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
        """Return the table at a path, empty if there is none; report anything that is no table.

        Args:
            data: the table around it.
            path: its path; the last part is its key in `data`.
        """
        value = data.get(str(path[-1]), {})
        if isinstance(value, dict):
            return value
        self._not_a_table(value, path)
        return {}

    def _not_a_table(self, value: Any, path: KeyPath) -> None:
        message = "this must be a table"
        if isinstance(value, list) and value and isinstance(value[0], dict):
            message = "this must be a table, not an array of tables"
        self.document.error(path, message, value, allowed=f"[{dotted(path)}]")

    def read(
        self,
        data: dict[str, Any],
        schema: Schema,
        path: KeyPath,
        into: Values,
        strict: bool = True,
    ) -> None:
        """Read one table.

        Args:
            data: the table as tomli returned it.
            schema: its keys.
            path: its path.
            into: receives the values.
            strict: unknown top-level keys are errors; otherwise only those that look like
                misspelt ones are, and the rest count as another program's.
        """
        self._read(data, schema.tree, path, into, schema, "" if strict else None)

    def _read(
        self,
        data: dict[str, Any],
        tree: Tree,
        path: KeyPath,
        into: Values,
        schema: Schema,
        prefix: str | None,
    ) -> None:
        for key, raw in data.items():
            node = tree.get(key)
            if node is None:
                self._unknown(key, raw, path, schema, prefix)
            elif isinstance(node, dict):
                if isinstance(raw, dict):
                    self._read(raw, node, (*path, key), into, schema, f"{prefix or ''}{key}.")
                else:
                    self._not_a_table(raw, (*path, key))
            else:
                self._value(node, raw, (*path, key), into, schema.secret)

    def _value(self, row: Option, raw: Any, path: KeyPath, into: Values, secret: bool) -> None:
        if path[-1] == row.extra.get("older"):
            newer = (*path[:-1], *row.key.split("."))
            if row.key in into.typed or row.key in into.failed or self._is_written(newer):
                message = f"this is an older spelling of {dotted(newer)}, which is also set"
                self.document.error(path, message, raw)
                return
            message = f"this is an older spelling of {dotted(newer)}"
            self.document.warning(path, message, raw)
            self.document.moved[newer] = path
        hidden = False
        try:
            given = self.expanded(raw)
            hidden = given is not raw and gives_secret(raw)
            value = _PARSERS[row.kind](row, given)
        except BadValueError as error:
            into.failed.add(row.key)
            allowed = describe(row) if error.allowed is None else error.allowed
            shown = NO_VALUE if secret or row.kind == "secret" else raw
            message, suggestion = error.message, error.suggestion
            if hidden:  # it may repeat the value
                message, suggestion = "the value of the macro is not allowed here", ""
            self.document.error(path, message, shown, allowed, suggestion)
            return
        if row.kind == "string" and value is not None and hide_secrets(value) != value:
            hidden = True  # aiosmtpd-args may contain a password
        if hidden and type(value) is str and row.kind != "pem":
            value = Secret(value)
        if row.kind == "path":
            value = os.path.join(self.document.directory, value)
        elif row.kind == "pem" and value.startswith("file://"):
            value = "file://" + os.path.join(self.document.directory, value[len("file://") :])
        into.typed[row.key] = value

    def _is_written(self, path: KeyPath) -> bool:
        table: Any = self.document.data
        for part in path:
            if not isinstance(table, dict) or part not in table:
                return False
            table = table[part]
        return True

    def expanded(self, raw: Any) -> Any:
        """Return a value with the macros in its strings replaced."""
        if not self.document.may_have_macros:
            return raw
        if isinstance(raw, str):
            if "%{" in raw:
                return expand(raw, self._environ, self.document.directory)
        elif isinstance(raw, list):
            return [self.expanded(item) for item in raw]
        elif isinstance(raw, dict):
            return {key: self.expanded(item) for key, item in raw.items()}
        return raw

    def _unknown(
        self, key: str, raw: Any, path: KeyPath, schema: Schema, prefix: str | None
    ) -> None:
        """Report an unknown key.

        Args:
            prefix: dotted name of the nested table, empty at the top of the schema, None at the
                top of a table that is shared with other programs.
        """
        here = (*path, key)
        name = f"{prefix or ''}{key}"
        raw = NO_VALUE if schema.secret or schema.may_be_secret(name, "") else raw
        if key == "override":
            self.document.warning(here, "this flag has no effect in any server; ignored", raw)
        elif name in schema.elsewhere or key == "acme":
            message = schema.elsewhere.get(name, _ACME)
            self.document.error(here, message, raw)
        elif prefix is None:
            if slip := near(key, schema.keys):
                shown = NO_VALUE if schema.may_be_secret(name, slip) else raw
                self.document.error(here, "unknown key", shown, suggestion=slip)
            else:
                self.foreign.append(here)
        else:
            # Finding a suggestion is the expensive part of reporting a mistake.
            slip = ""
            if self._suggestions < _MAX_SUGGESTIONS:
                self._suggestions += 1
                slip = likely(name, schema.keys) or likely(key, schema.keys)
            shown = NO_VALUE if schema.may_be_secret(name, slip) else raw
            self.document.error(here, "unknown key", shown, suggestion=slip)


_ACME = "ACME is not supported; use an external ACME client and name its files in [certificate]"
