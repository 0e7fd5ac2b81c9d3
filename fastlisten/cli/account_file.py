"""Changes the accounts file line by line, so that comments and layout stay as they are.

Rules of this file: text in, text out, except for `change`; file_rewrite.py writes the file. Lines
are found by pattern, which can be wrong (a line may be part of a multi-line string). So the result
is parsed, and an edit counts only if the values are exactly those wanted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli

from fastlisten.cli.file_rewrite import rewrite
from fastlisten.errors import ConfigurationError, Problem
from fastlisten.mail.accounts.roster import Account, Roster, read_accounts
from fastlisten.mail.address import parse_mailbox

__all__ = ["add_account", "add_alias", "change", "remove_account", "set_password"]

#: The content of a file without accounts.
_NOBODY = "# There are no accounts.\n"

_HEADER = re.compile(r"\s*\[")
_PASSWORD = re.compile(r"""(\s*password\s*=\s*)("[^"\\]*"|'[^']*')""")
_ALIASES = re.compile(r"\s*aliases\s*=\s*\[")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def change(path: Path, edit: Callable[[str], str]) -> None:
    """Replace the text of the file by the result of `edit`; create the file if there is none.

    Raises:
        ConfigurationError: the file is invalid, or cannot be edited; it is unchanged.
        OSError: the file cannot be read or written; it is unchanged.
    """
    path = Path(os.path.realpath(path))  # replace the target of a symbolic link, not the link

    def edit_octets(content: bytes) -> bytes:
        Roster.parse(content, str(path))
        text = content.decode("utf-8-sig")  # keeps CRLF
        # Not an empty file: a server would take that for a copy that has just begun.
        return (edit(text) or _NOBODY).encode()

    rewrite(path, read_accounts, edit_octets)


def add_account(text: str, name: str, password: str, file: str) -> str:
    """Return the text with an account added at its end.

    Args:
        text: the text of the file.
        name: the account's address, in canonical form.
        password: the hash of its password, empty for none.
        file: the name of the file, for errors.
    """
    wanted = tomli.loads(text)
    if _key_of(text, name, file) is not None:
        raise ConfigurationError([Problem("the account already exists", file)])
    values = {"password": password} if password else {}
    wanted.setdefault("account", {})[name] = values
    lines = text if text.endswith("\n") or not text else text + "\n"
    lines += "\n" if text else ""
    lines += f"[account.{_string(name)}]\n"
    lines += "".join(f"{key} = {_string(value)}\n" for key, value in values.items())
    return _checked(lines, wanted, file)


def set_password(text: str, name: str, password: str, file: str) -> str:
    """Return the text with a new password for an account."""
    key, wanted = _existing(text, name, file)
    wanted["account"][key]["password"] = password
    lines, first, end = _section(text, key, file)
    for number in range(first + 1, end):
        if match := _PASSWORD.match(lines[number]):
            lines[number] = match[1] + _string(password) + lines[number][match.end() :]
            break
    else:
        _end_line(lines, first)
        lines.insert(first + 1, f"password = {_string(password)}\n")
    return _checked("".join(lines), wanted, file)


def add_alias(text: str, name: str, alias: str, file: str) -> str:
    """Return the text with an alias added to an account, before the others."""
    key, wanted = _existing(text, name, file)
    entry = wanted["account"][key]
    entry["aliases"] = [alias, *entry.get("aliases", ())]
    lines, first, end = _section(text, key, file)
    for number in range(first + 1, end):
        if match := _ALIASES.match(lines[number]):
            rest = lines[number][match.end() :]
            comma = "" if rest.lstrip().startswith("]") else "," if rest[0].isspace() else ", "
            lines[number] = match[0] + _string(alias) + comma + rest
            break
    else:
        _end_line(lines, first)
        lines.insert(first + 1, f"aliases = [{_string(alias)}]\n")
    return _checked("".join(lines), wanted, file)


def remove_account(text: str, name: str, file: str) -> tuple[str, Account]:
    """Return the text without an account, and the account.

    Comments after its last line are assumed to belong to what follows, and stay.
    """
    key, wanted = _existing(text, name, file)
    account = next(it for it in Roster.parse(text, file).accounts if it.name == name)
    del wanted["account"][key]
    lines, first, end = _section(text, key, file)
    while end > first + 1 and lines[end - 1].lstrip()[:1] in ("", "#"):
        end -= 1
    # Leave one empty line if there is one before and one after the account.
    while first and not lines[first - 1].strip() and not "".join(lines[end : end + 1]).strip():
        first -= 1
    after = "".join(lines[:first] + lines[end:])
    return _checked(after, wanted, file), account


# --- finding and checking -------------------------------------------------------------------------


def _key_of(text: str, name: str, file: str) -> str | None:
    """Return the key of an account's table, its address as written in the file; None if there is
    no such account."""
    table = tomli.loads(text).get("account", {})
    return next((key for key in table if parse_mailbox(key).canonical == name), None)


def _existing(text: str, name: str, file: str) -> tuple[str, dict[str, Any]]:
    """Return the key of an account's table, and the parsed text.

    Raises:
        ConfigurationError: there is no such account.
    """
    key = _key_of(text, name, file)
    if key is None:
        raise ConfigurationError([Problem("there is no such account", file, key=name)])
    return key, tomli.loads(text)


def _section(text: str, key: str, file: str) -> tuple[list[str], int, int]:
    """Return all lines, and the range of those that belong to an account's table.

    Raises:
        ConfigurationError: the table has no header line (it is an inline table, say).
    """
    lines = _LINE.findall(text)
    headers = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    for number in headers:
        if _is_header(lines[number], key):
            following = [other for other in headers if other > number]
            return lines, number, following[0] if following else len(lines)
    raise _cannot(file)


def _is_header(line: str, key: str) -> bool:
    try:
        return tomli.loads(line) == {"account": {key: {}}}
    except tomli.TOMLDecodeError:
        return False


def _end_line(lines: list[str], number: int) -> None:
    if not lines[number].endswith("\n"):
        lines[number] += "\n"


def _checked(text: str, wanted: dict[str, Any], file: str) -> str:
    """Return the text after checking that it parses to the wanted values.

    Raises:
        ConfigurationError: it does not, or the result is not a valid accounts file.
    """
    try:
        meant = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise _cannot(file) from error
    if _without_empty(meant) != _without_empty(wanted):
        raise _cannot(file)
    Roster.parse(text, file)
    return text


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without empty tables: `account` disappears with the last account."""
    return {key: value for key, value in document.items() if value != {}}


def _cannot(file: str) -> ConfigurationError:
    message = "this command cannot edit a file that is written this way; edit it by hand"
    return ConfigurationError([Problem(message, file)])


def _string(text: str) -> str:
    """Return a TOML basic string, which is the same as in JSON without control characters."""
    return json.dumps(text, ensure_ascii=False)
