"""Finds the line of each key: a scanner for TOML text that has already been parsed.

Rules of this file: tomli has accepted the text, so the scanner need not detect mistakes; it only
follows the same grammar (TOML 1.1, which includes 1.0). It keeps no values. It runs when the first
message needs a line number, so a file without mistakes costs nothing.

A key path is a tuple of table and key names and array indices:
``("server", "tls", "sni", 0, "subject")``.
"""

from __future__ import annotations

import re
from bisect import bisect_left

import tomli

__all__ = ["KeyPath", "Lines"]

#: A key path: table and key names, and indices of arrays.
KeyPath = tuple[str | int, ...]

# White space, line ends and comments: whatever may separate two tokens.
_GAP = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_BLANK = re.compile(r"[ \t]*+")
_KEY = re.compile(r"""([A-Za-z0-9_-]++)|"((?:[^"\\\n]++|\\.)*+)"|'([^'\n]*+)'""")
# One scalar. Up to two quotes before the closing delimiter of a multi-line string belong to the
# string. A date and a time separated by a space are one scalar, so spaces are included.
_SCALAR = re.compile(
    r'''"""(?:[^"\\]++|\\.|""?(?!"))*+""""{0,2}'''
    r"""|\'\'\'(?:[^']++|''?(?!'))*+\'\'\''{0,2}"""
    r'''|"(?:[^"\\\n]++|\\.)*+"'''
    r"""|'[^'\n]*+'"""
    r"""|[^,\]}#\n"'\[{]++""",
    re.DOTALL,
)


class Lines:
    """The lines of all key paths of a document.

    Args:
        text: a document that tomli accepts.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._found: dict[KeyPath, int] = {}
        # Index of the newest table of each array of tables.
        self._newest: dict[KeyPath, int] = {}
        self._scan()

    def __getitem__(self, path: KeyPath) -> int:
        """Return the 1-based line of a path, of its nearest parent that has one, or 0."""
        while path:
            if (line := self._found.get(path)) is not None:
                return line
            path = path[:-1]
        return 0

    def paths(self) -> dict[KeyPath, int]:
        """Return every path of the document with its line."""
        return dict(self._found)

    def _line(self, position: int) -> int:
        return bisect_left(self._ends, position) + 1

    def _scan(self) -> None:
        text, size = self._text, len(self._text)
        table: KeyPath = ()
        position = self._skip(0)
        while position < size:
            if text.startswith("[[", position):
                keys, end = self._keys(position + 2)
                table = self._array_table(keys, self._line(position))
                position = end + 2
            elif text[position] == "[":
                keys, end = self._keys(position + 1)
                table = self._table(keys, self._line(position))
                position = end + 1
            else:
                position = self._entry(table, position)
            position = self._skip(position)

    def _skip(self, position: int) -> int:
        match = _GAP.match(self._text, position)
        return match.end() if match else position

    def _keys(self, position: int) -> tuple[list[str], int]:
        """Return the parts of a dotted key, and the position after it and any blanks."""
        keys = []
        while True:
            position = self._blank(position)
            match = _KEY.match(self._text, position)
            if match is None:
                raise ValueError(f"no key at {position}: the text was not checked by tomli")
            bare, basic, literal = match.groups()
            if basic is not None:
                keys.append(tomli.loads(f'k = "{basic}"')["k"] if "\\" in basic else basic)
            else:
                keys.append(bare if bare is not None else literal)
            position = self._blank(match.end())
            if not self._text.startswith(".", position):
                return keys, position
            position += 1

    def _blank(self, position: int) -> int:
        match = _BLANK.match(self._text, position)
        return match.end() if match else position

    def _parents(self, keys: list[str], line: int) -> KeyPath:
        """Return the path of a header's last table but one, through the newest of each array."""
        path: KeyPath = ()
        for key in keys[:-1]:
            path = (*path, key)
            self._found.setdefault(path, line)
            if path in self._newest:
                path = (*path, self._newest[path])
        return path

    def _table(self, keys: list[str], line: int) -> KeyPath:
        path = (*self._parents(keys, line), keys[-1])
        # Prefer a table's own header to an earlier header of a table within it.
        self._found[path] = line
        return path

    def _array_table(self, keys: list[str], line: int) -> KeyPath:
        path = (*self._parents(keys, line), keys[-1])
        self._found.setdefault(path, line)
        self._newest[path] = self._newest.get(path, -1) + 1
        path = (*path, self._newest[path])
        self._found[path] = line
        return path

    def _entry(self, table: KeyPath, position: int) -> int:
        """Record ``key = value`` and everything in the value; return the position after it."""
        # Open arrays and inline tables: their path, and the next index, or -1 for a table.
        open_values: list[tuple[KeyPath, int]] = [(table, -1)]
        text = self._text
        while True:
            # A key of a table or an element of an array starts here.
            path, index = open_values[-1]
            if index < 0:
                keys, end = self._keys(position)
                line = self._line(position)
                for key in keys[:-1]:
                    path = (*path, key)
                    self._found.setdefault(path, line)
                path = (*path, keys[-1])
                position = self._blank(end + 1)
            else:
                line = self._line(position)
                open_values[-1] = (path, index + 1)
                path = (*path, index)
            self._found[path] = line
            if text[position] in "[{":
                open_values.append((path, 0 if text[position] == "[" else -1))
                position = self._skip(position + 1)
            else:
                match = _SCALAR.match(text, position)
                if match is None:
                    raise ValueError(f"no value at {position}: the text was not checked by tomli")
                position = match.end()
                if len(open_values) == 1:
                    return position
                position = self._skip(position)
            # The innermost array or table may end here, and so may those around it.
            while True:
                if text[position] == ",":
                    position = self._skip(position + 1)
                if text[position] not in "]}":
                    break
                open_values.pop()
                position += 1
                if len(open_values) == 1:
                    return position
                position = self._skip(position)
