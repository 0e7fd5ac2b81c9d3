"""`fastlisten account add|list`: the accounts file, from the command line.

Rules of this file: the file is the administrator's, so that what is in it, comments and all, stays
as it is: an account is added by appending its table. Written atomically and durably, and one at a
time. Exit codes: 0 done, 1 the system failed, 2 the name or the file is not right.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from fastlisten.errors import ConfigurationError, Problem
from fastlisten.mail.accounts import Roster
from fastlisten.mail.address import AddressError, parse_mailbox
from fastlisten.mail.maildir import sync_directory, write_all

__all__ = ["add", "list_accounts"]


def add(name: str, accounts_file: str | os.PathLike[str], out: TextIO, err: TextIO) -> int:
    """Add an account, and make the file if there is none.

    Args:
        name: the account's address.
        accounts_file: the accounts file.
        out: where to say what was done.
        err: where to say what is wrong.

    Returns:
        The exit code.
    """
    path = Path(os.path.realpath(accounts_file))  # what a symbolic link leads to is replaced
    try:
        canonical = parse_mailbox(name).canonical
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path):
            text = path.read_text("utf-8") if path.exists() else ""
            before = Roster.parse(text, str(path))
            if any(account.name == canonical for account in before.accounts):
                raise ConfigurationError([Problem("it is there already", str(path))])
            after = _appended(text, canonical, str(path))
            if len(Roster.parse(after, str(path)).accounts) != len(before.accounts) + 1:
                raise ConfigurationError([Problem("an account cannot be appended", str(path))])
            _replace(path, after.encode())
    except AddressError as error:
        err.write(f"{error}\n")
        return 2
    except (ConfigurationError, UnicodeDecodeError) as error:
        err.write(f"{canonical} is not added:\n{error}\n")
        return 2
    except OSError as error:
        err.write(f"{path}: {error.strerror}\n")
        return 1
    out.write(f"added {canonical} to {path}\n")
    return 0


def list_accounts(accounts_file: str | os.PathLike[str], out: TextIO, err: TextIO) -> int:
    """Print one line for each account: its name, and after a tab its aliases, if it has any.

    Returns:
        The exit code.
    """
    try:
        roster = Roster.parse(Path(accounts_file).read_text("utf-8"), str(accounts_file))
    except (ConfigurationError, UnicodeDecodeError) as error:
        err.write(f"{error}\n")
        return 2
    except FileNotFoundError:
        err.write(f"{accounts_file} does not exist: there are no accounts yet\n")
        return 1
    except OSError as error:
        err.write(f"{accounts_file}: {error.strerror}\n")
        return 1
    for account in roster.accounts:
        out.write("\t".join(filter(None, (account.name, ", ".join(account.aliases)))) + "\n")
    return 0


def _appended(text: str, name: str, file: str) -> str:
    """Return the file's text with one more account at its end.

    Raises:
        ConfigurationError: the text would not load: the name is taken, or `account` is written
            as an inline table, to which nothing can be appended.
    """
    if text and not text.endswith("\n"):
        text += "\n"
    # A JSON string without control characters is a TOML basic string.
    text += f"{'' if not text else chr(10)}[account.{json.dumps(name, ensure_ascii=False)}]\n"
    Roster.parse(text, file)
    return text


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other writers out; the lock is a file of its own because `path` is replaced."""
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _replace(path: Path, data: bytes) -> None:
    """Write the file anew, whole and durable, for its owner alone.

    Its owner stays; a new file belongs to whom its directory belongs to, so that what root adds
    can be read by the server's user.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    status = os.stat(path if path.exists() else path.parent)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.fchmod(fd, 0o600)
            if os.geteuid() == 0:
                os.fchown(fd, status.st_uid, status.st_gid)
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
