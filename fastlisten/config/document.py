"""A TOML text, the line of each key, and the mistakes found in it.

Rules of this file: it knows TOML but none of our keys. Mistakes are collected, not raised, so that
all are reported together; only text that is not valid TOML raises at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from fastlisten.config.notation import KeyPath, dotted, show_value
from fastlisten.config.secret_names import is_secret_name
from fastlisten.errors import ConfigurationError, Problem
from fastlisten.files import read_stream
from fastlisten.toml_lines import Lines
from fastlisten.toml_text import TomlError, parse_toml

__all__ = ["NO_VALUE", "Document", "parse", "read_file"]

# 10,000 listeners take about 1 MiB; a file larger than this was named by mistake.
_MAX_FILE_SIZE = 64 << 20


class _NoValue:
    """The type of NO_VALUE."""


#: For problems that concern no value; None would not do, as a default of a key may be None.
NO_VALUE: Final = _NoValue()


@dataclass(frozen=True, slots=True)
class _Note:
    path: KeyPath
    message: str
    value: Any
    allowed: str
    suggestion: str


class Document:
    """One configuration text, and the list of its mistakes.

    Attributes:
        data: the parsed text.
        file: the file name as the user gave it, or empty.
        directory: the directory that relative paths are relative to.
        may_have_macros: False if no string in it can contain a macro.
        moved: the actual path of each key that is written with an older spelling.
    """

    def __init__(self, text: str, data: dict[str, Any], file: str) -> None:
        self.data = data
        self.file = file
        self.directory = _directory(file)
        # The first character of a macro may be written as an escape.
        self.may_have_macros = "%{" in text or "\\" in text
        self.moved: dict[KeyPath, KeyPath] = {}
        self._text = text
        self._errors: list[_Note] = []
        self._warnings: list[_Note] = []
        # Sets, because there may be thousands of listeners with a mistake each.
        self._wrong: set[KeyPath] = set()
        self._noticed: set[KeyPath] = set()

    @cached_property
    def _lines(self) -> Lines:
        return Lines(self._text)

    def line(self, path: KeyPath) -> int:
        """Return the line of a key, or of the nearest table around it; 0 if there is none."""
        return self._lines[self.moved.get(path, path)]

    def value_at(self, path: KeyPath) -> Any:
        """Return the value at a path, NO_VALUE if there is none."""
        value: Any = self.data
        for part in self.moved.get(path, path):
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return NO_VALUE
        return value

    def error(
        self,
        path: KeyPath,
        message: str,
        value: Any = NO_VALUE,
        allowed: str = "",
        suggestion: str = "",
    ) -> None:
        """Add a mistake; `check` will raise it.

        Args:
            path: the key.
            message: what is wrong.
            value: the value, as parsed.
            allowed: what would be accepted.
            suggestion: what was probably meant.
        """
        self._errors.append(_Note(path, message, value, allowed, suggestion))
        self._wrong.add(path)

    def warning(
        self, path: KeyPath, message: str, value: Any = NO_VALUE, suggestion: str = ""
    ) -> None:
        """Add a warning; arguments as for `error`."""
        self._warnings.append(_Note(path, message, value, "", suggestion))
        self._noticed.add(path)

    @property
    def has_errors(self) -> bool:
        """True once there is a mistake."""
        return bool(self._errors)

    def has_errors_at(self, *paths: KeyPath) -> bool:
        """Tell whether a mistake was reported for one of these keys."""
        return not self._wrong.isdisjoint(paths)

    def has_warning_at(self, path: KeyPath) -> bool:
        """Tell whether a key already has a warning."""
        return path in self._noticed

    def problem(
        self, path: KeyPath, message: str, value: str = "", allowed: str = "", suggestion: str = ""
    ) -> Problem:
        """Return a problem with this document's file and line; `value` is TOML text."""
        return Problem(
            message=message,
            file=self.file,
            line=self.line(path) if path else 0,
            key=dotted(path),
            value=value,
            allowed=allowed,
            suggestion=suggestion,
        )

    def warnings(self) -> tuple[Problem, ...]:
        """Return the warnings in order of line."""
        return self._report(self._warnings)

    def check(self) -> None:
        """Raise ConfigurationError if there are mistakes, with all of them in order of line."""
        if self._errors:
            raise ConfigurationError(self._report(self._errors), self.warnings())

    def _report(self, notes: list[_Note]) -> tuple[Problem, ...]:
        problems = (
            self.problem(
                note.path,
                note.message,
                "" if note.value is NO_VALUE or _is_secret(note.path) else show_value(note.value),
                note.allowed,
                note.suggestion,
            )
            for note in notes
        )
        return tuple(sorted(problems, key=lambda problem: problem.line))


def _is_secret(path: KeyPath) -> bool:
    """Tell whether the value at a path must not be shown, judging by the keys on the path."""
    return any(isinstance(part, str) and is_secret_name(part) for part in path)


def _directory(file: str) -> str:
    try:
        return os.path.dirname(os.path.abspath(file)) if file else os.getcwd()
    except OSError:
        # The working directory has been removed; opening relative paths will fail later.
        return ""


def parse(text: str | bytes, file: str = "") -> Document:
    """Return the document of a TOML text.

    Args:
        text: TOML, in UTF-8 if it is bytes.
        file: name for messages; relative paths are relative to its directory.

    Raises:
        ConfigurationError: the text is not valid TOML.
    """
    try:
        return Document(*parse_toml(text), file)
    except TomlError as error:
        raise _refusal(file, error.line, str(error)) from None


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return a file's bytes.

    Raises:
        ConfigurationError: if it cannot be read, or is too large to be a configuration.
    """
    name = os.fsdecode(path)
    try:
        return read_stream(path, _MAX_FILE_SIZE, "a configuration")
    except OSError as error:
        raise _refusal(name, 0, f"cannot be read: {error.strerror}") from None


def _refusal(file: str, line: int, message: str) -> ConfigurationError:
    return ConfigurationError([Problem(message=message, file=file, line=line)])
