"""`fastlisten account add|passwd|alias|remove|list`: the accounts file, from the command line.

Rules of this file: messages, and where passwords come from. They are typed twice on a terminal,
read from the first line of standard input (`--password-stdin`) or generated (`--generate`), but
never arguments, which any user on the host could read. account_file.py changes the file. Exit
codes: 0 success, 1 a system error, 2 the name, the password or the file is invalid.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from getpass import getpass
from pathlib import Path
from typing import TextIO

from fastlisten.cli import account_file
from fastlisten.errors import ConfigurationError, FastlistenError
from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.passwords import generate
from fastlisten.mail.accounts.roster import Account, Roster, parse_alias, read_accounts
from fastlisten.mail.address import AddressError, parse_mailbox

__all__ = [
    "PasswordError",
    "add",
    "add_alias",
    "ask",
    "generate",
    "list_accounts",
    "passwd",
    "remove",
]

_Path = str | os.PathLike[str]

#: What is printed about an account without a password.
_NO_LOGIN = "nobody can log in"


class PasswordError(FastlistenError):
    """There is no usable password; the text says why."""


def add(name: str, accounts_file: _Path, out: TextIO, err: TextIO, *, password: str = "") -> int:
    """Add an account; create the file if there is none.

    Args:
        name: the account's address.
        accounts_file: the accounts file.
        out: receives what was done.
        err: receives errors.
        password: its password; empty for an account that receives mail but has no login.

    Returns:
        The exit code.
    """

    def edit(text: str, canonical: str) -> str:
        phc = passwords.hash_password(password) if password else ""
        return account_file.add_account(text, canonical, phc, str(accounts_file))

    said = "added {} to {}"
    if not password:
        said += f", without a password: it receives mail, but {_NO_LOGIN}"
    return _change(name, accounts_file, edit, said, "{} was not added", out, err)


def passwd(name: str, accounts_file: _Path, password: str, out: TextIO, err: TextIO) -> int:
    """Change the password of an account; return the exit code."""

    def edit(text: str, canonical: str) -> str:
        phc = passwords.hash_password(password)
        return account_file.set_password(text, canonical, phc, str(accounts_file))

    said = "changed the password of {} in {}"
    return _change(name, accounts_file, edit, said, "the password of {} was not changed", out, err)


def add_alias(name: str, alias: str, accounts_file: _Path, out: TextIO, err: TextIO) -> int:
    """Add an alias to an account; return the exit code."""

    def edit(text: str, canonical: str) -> str:
        parse_alias(alias)
        return account_file.add_alias(text, canonical, alias, str(accounts_file))

    said = f"{{}} now gets the mail for {alias}, in {{}}"
    return _change(name, accounts_file, edit, said, "no alias was added to {}", out, err)


def remove(
    name: str,
    accounts_file: _Path,
    mail: _Path,
    out: TextIO,
    err: TextIO,
    *,
    delete_mail: bool = False,
) -> int:
    """Remove an account.

    Args:
        name: the account's address.
        accounts_file: the accounts file.
        mail: the directory that contains the Maildirs.
        out: receives what was done.
        err: receives errors.
        delete_mail: delete its Maildir, too. Otherwise it stays, and a new account with this name
            gets it.

    Returns:
        The exit code.
    """
    removed: list[Account] = []

    def edit(text: str, canonical: str) -> str:
        text, account = account_file.remove_account(text, canonical, str(accounts_file))
        removed.append(account)
        return text

    said = "removed {} from {}"
    if code := _change(name, accounts_file, edit, said, "{} was not removed", out, err):
        return code
    maildir = Path(mail, removed[-1].directory)
    if not maildir.exists():
        out.write("it had no mail\n")
    elif delete_mail:
        try:
            shutil.rmtree(maildir)
        except OSError as error:
            err.write(f"cannot delete its mail: {error}\n")
            return 1
        out.write(f"deleted its mail in {maildir}\n")
    else:
        out.write(f"its mail stays in {maildir}\n")
    return 0


def list_accounts(accounts_file: _Path, out: TextIO, err: TextIO) -> int:
    """Print a line for each account: its name, its aliases if it has any, and a note in parentheses
    if it has no password, separated by tabs.

    Returns:
        The exit code.
    """
    try:
        roster = Roster.parse(read_accounts(accounts_file), str(accounts_file))
    except ConfigurationError as error:
        err.write(f"{error}\n")
        return 2
    except FileNotFoundError:
        err.write(f"{accounts_file} does not exist: there are no accounts yet\n")
        return 1
    except OSError as error:
        err.write(f"{accounts_file}: {error.strerror}\n")
        return 1
    for account in roster.accounts:
        mark = "" if account.password else f"(no password: {_NO_LOGIN})"
        columns = (account.name, ", ".join(account.aliases), mark)
        out.write("\t".join(filter(None, columns)) + "\n")
    return 0


def ask(source: TextIO, *, from_stdin: bool, needed: bool) -> str:
    """Read a password from standard input, or ask for one if that is a terminal.

    Args:
        source: standard input.
        from_stdin: read the first line, terminal or not.
        needed: an empty password is an error. If false, the password is empty if none is typed or
            standard input is not a terminal.

    Raises:
        PasswordError: there is no password, or the two that were typed differ.
    """
    try:
        if from_stdin:
            password = source.readline().rstrip("\r\n")
            if not password:
                raise PasswordError("the first line of standard input is empty")
            return password
        if source.isatty():
            password = getpass("Password: " if needed else "Password (empty for none): ")
            if password and getpass("Password again: ") != password:
                raise PasswordError("the two passwords differ")
            if needed and not password:
                raise PasswordError("the password must not be empty")
            return password
    except (EOFError, UnicodeDecodeError) as error:
        raise PasswordError("cannot read a password from standard input") from error
    if needed:
        raise PasswordError(
            "cannot ask for a password without a terminal; use --password-stdin or --generate"
        )
    return ""


def _change(
    name: str,
    accounts_file: _Path,
    edit: Callable[[str, str], str],
    said: str,
    not_done: str,
    out: TextIO,
    err: TextIO,
) -> int:
    """Change the accounts file and print the result; return the exit code.

    Args:
        name: the account's address, as given.
        accounts_file: the accounts file.
        edit: called with the file's text and the canonical address; returns the new text.
        said: printed on success; a format string for the address and the file.
        not_done: printed on failure; a format string for the address.
        out: receives `said`.
        err: receives `not_done` and the error.
    """
    path = Path(os.path.realpath(accounts_file))
    try:
        canonical = parse_mailbox(name).canonical
    except AddressError as error:
        err.write(f"{error}\n")
        return 2
    try:
        account_file.change(path, lambda text: edit(text, canonical))
    except UnicodeDecodeError as error:
        err.write(f"{not_done.format(canonical)}:\n{path}: {error}\n")
        return 2
    except (FastlistenError, ValueError) as error:  # the file, the password, an alias
        err.write(f"{not_done.format(canonical)}:\n{error}\n")
        return 2
    except OSError as error:
        err.write(f"{path}: {error.strerror}\n")
        return 1
    out.write(said.format(canonical, path) + "\n")
    return 0
