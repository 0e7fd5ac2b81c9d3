"""Finds where the secrets of a configuration are: in files that it names, or in itself.

Rules of this file: it reads the document, including other programs' tables, and no files. It uses
the stricter of the two functions in `secret_names`, because a match leads to a warning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from fastlisten.config.document import Document
from fastlisten.config.notation import KeyPath, dotted
from fastlisten.config.secret_names import is_password_name

__all__ = ["SecretPlaces", "find_secrets"]

_MACRO = re.compile(r"%\{([a-z]+):([^{}]*)\}%")
_FILE = "file://"


class SecretPlaces(NamedTuple):
    """Where secrets are.

    Attributes:
        files: paths of files that contain a secret, each with the key that names it.
        inline: the first key whose secret is in the configuration itself, empty if there is none.
    """

    files: dict[str, str]
    inline: str


def find_secrets(document: Document) -> SecretPlaces:
    """Return where the secrets of a document are."""
    files: dict[str, str] = {}
    inline = ""
    for path, text in _texts(document.data):
        rest = text
        if text.startswith(_FILE):
            files.setdefault(os.path.join(document.directory, text[len(_FILE) :]), dotted(path))
            continue
        for kind, argument in _MACRO.findall(text):
            if kind == "file":
                files.setdefault(os.path.join(document.directory, argument), dotted(path))
        rest = _MACRO.sub("", text)
        if rest.strip() and not inline:
            inline = dotted(path)
    return SecretPlaces(files, inline)


def _texts(data: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and text of each string whose key is named like a secret."""
    left: list[tuple[KeyPath, Any]] = [((), data)]
    while left:
        path, value = left.pop()
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if isinstance(item, (dict, list)):
                left.append(((*path, key), item))
            elif isinstance(item, str) and isinstance(key, str) and is_password_name(key):
                yield (*path, key), item
