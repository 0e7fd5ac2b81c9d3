"""Loads a `Config` from a file, from text, or from the embedded default.

Rules of this file: nothing but these; the work is done by `resolve`.
"""

from __future__ import annotations

import os
from importlib.resources import files

from fastlisten.config.document import parse, read_file
from fastlisten.config.machine import Machine
from fastlisten.config.resolve import resolve
from fastlisten.config.settings import Config
from fastlisten.garbage import collector_paused

__all__ = ["default_config", "default_text", "load", "loads"]


def load(path: str | os.PathLike[str], *, machine: Machine | None = None) -> Config:
    """Return the configuration in a file.

    Args:
        path: the file; relative paths in it are relative to its directory.
        machine: the machine to load it for; None: this one.

    Raises:
        ConfigurationError: with all mistakes, or because the file cannot be read.
    """
    return _load(read_file(path), os.fsdecode(path), machine)


def loads(text: str | bytes, *, file: str = "", machine: Machine | None = None) -> Config:
    """Return the configuration in a text.

    Args:
        text: TOML; bytes are UTF-8.
        file: the name that messages use; relative paths are relative to its directory.
        machine: the machine to load it for; None: this one.

    Raises:
        ConfigurationError: with all mistakes.
    """
    return _load(text, file, machine)


def default_text() -> str:
    """Return the text of the embedded default."""
    return files("fastlisten.config").joinpath("default.toml").read_text(encoding="utf-8")


def default_config(data_directory: str | None = None, *, machine: Machine | None = None) -> Config:
    """Return the embedded default: every protocol, on loopback, on ports that need no privilege.

    Args:
        data_directory: the data directory; None: the default of this host.
        machine: the machine to load it for; None: this one.
    """
    return _load(default_text(), "", machine, data_directory or "")


def _load(
    text: str | bytes, file: str, machine: Machine | None, data_directory: str = ""
) -> Config:
    with collector_paused():
        return resolve(parse(text, file), machine or Machine.current(), data_directory)
