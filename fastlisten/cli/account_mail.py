"""`fastlisten account folders|usage|rebuild`: the mail of accounts, from the command line.

Rules of this file: which account, messages, tables. A server may be running: everything is done
under the account's lock, or in one look at the index. The work itself is in mail/store/. Exit
codes: 0 success, 1 a system error, 2 the name or the accounts file is invalid.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from fastlisten.cli.account_owner import work_as_owner
from fastlisten.errors import ConfigurationError, FastlistenError
from fastlisten.mail.accounts.quota import Quota
from fastlisten.mail.accounts.roster import Account, Roster, read_accounts
from fastlisten.mail.address import AddressError, parse_mailbox
from fastlisten.mail.store import folders as folder_list
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import StoreError, Usage
from fastlisten.mail.store.pending import finish
from fastlisten.mail.store.rebuild import rebuild as make_again
from fastlisten.mail.store.usage import catch_up, sums

__all__ = ["Place", "folders", "opened", "rebuild", "root_of", "run", "usage"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where accounts and their mail are.

    Attributes:
        accounts_file: the accounts file.
        directory: the data directory.
        quota: what the configuration gives every account.
    """

    accounts_file: str
    directory: str
    quota: Quota

    @property
    def mail(self) -> str:
        """The directory above all maildirs."""
        return os.path.abspath(os.path.join(self.directory, "mail"))


class _UserError(FastlistenError):
    """A name that is no account's, or a file that is invalid."""


def run(work: Callable[[], None], err: TextIO) -> int:
    """Do what a command does; print why it failed; return the exit code."""
    try:
        work()
    except (_UserError, AddressError, ConfigurationError) as error:
        err.write(f"{error}\n")
        return 2
    except (FastlistenError, StoreError, sqlite3.Error) as error:
        err.write(f"{error}\n")
        return 1
    except OSError as error:
        err.write(f"{error.filename}: {error.strerror}\n" if error.filename else f"{error}\n")
        return 1
    return 0


def _roster(place: Place) -> Roster:
    try:
        content = read_accounts(place.accounts_file)
    except FileNotFoundError:
        message = f"{place.accounts_file} does not exist: there are no accounts yet"
        raise FastlistenError(message) from None
    return Roster.parse(content, place.accounts_file)


def root_of(name: str, place: Place, *, removed: bool = True) -> str:
    """Return the directory of an account's mail.

    Args:
        name: its address.
        place: where it is looked for.
        removed: an account that was removed counts if its mail is still there.

    Raises:
        FastlistenError: there is no such account.
    """
    account = Account(parse_mailbox(name).canonical)
    root = f"{place.mail}/{account.directory}"
    if any(one.name == account.name for one in _roster(place).accounts):
        return root
    if removed and os.path.isdir(root):
        return root
    raise _UserError(f"{account.name}: there is no such account")


@contextlib.contextmanager
def opened(root: str) -> Iterator[Index]:
    """Open an account's index for the length of a block; the files' owner does it.

    Raises:
        OSError, sqlite3.Error, PrivilegesError: it cannot be opened.
    """
    index = Index(root, finish)
    try:
        folder_list.discover(index)
        yield index
    finally:
        index.close()


# --- folders --------------------------------------------------------------------------------------

_HEAD = ("MESSAGES", "UNSEEN", "SIZE", "UIDVALIDITY", "ROLE", "FOLDER")


def folders(name: str, place: Place, out: TextIO, *, as_json: bool = False) -> None:
    """Print the folders of an account, with their sums.

    Args:
        name: its address.
        place: where it is.
        out: receives a table, or a JSON document.
        as_json: which of these.

    Raises:
        FastlistenError, StoreError, OSError, sqlite3.Error: they cannot be read.
    """
    root = root_of(name, place)
    found: list[dict[str, Any]] = []
    work_as_owner(place.directory)
    if os.path.isdir(root):
        with opened(root) as index:
            catch_up(index)
            for one in folder_list.folders(index):
                if one.exists:
                    status = folder_list.status(index, folder_list.find(index, one.name))
                    found.append(
                        {
                            "name": one.name,
                            "messages": status.messages,
                            "unseen": status.unseen,
                            "size": status.size,
                            "uidvalidity": status.uidvalidity,
                            "role": one.role,
                            "subscribed": one.subscribed,
                        }
                    )
    if as_json:
        _print_json({"folders": found}, out)
        return
    keys = ("messages", "unseen", "size", "uidvalidity", "role", "name")
    _print_table(_HEAD, [[it[key] for key in keys] for it in found], out, numbers=4)


# --- usage ----------------------------------------------------------------------------------------


def usage(name: str, place: Place, out: TextIO, *, as_json: bool = False) -> None:
    """Print how much mail there is, and how much there may be.

    Args:
        name: an account's address; empty: all accounts of the file.
        place: where they are.
        out: receives a table, or a JSON document.
        as_json: which of these.

    Raises:
        FastlistenError, OSError, sqlite3.Error: it cannot be read.
    """
    roster = _roster(place)
    accounts = list(roster.accounts)
    if name:
        root_of(name, place)  # complains if there is none
        canonical = parse_mailbox(name).canonical
        accounts = [one for one in accounts if one.name == canonical] or [Account(canonical)]
    work_as_owner(place.directory)
    found = []
    for account in accounts:
        used = _used(f"{place.mail}/{account.directory}")
        quota = account.quota.over(place.quota)
        found.append((account.name, used, quota))
    if as_json:
        document = [
            {
                "name": name,
                "bytes": used.bytes,
                "messages": used.messages,
                "quota": {"bytes": quota.bytes, "messages": quota.messages},
            }
            for name, used, quota in found
        ]
        _print_json({"accounts": document}, out)
        return
    rows = [
        [used.bytes, _limit(quota.bytes), used.messages, _limit(quota.messages), name]
        for name, used, quota in found
    ]
    head = ("BYTES", "QUOTA", "MESSAGES", "QUOTA", "ACCOUNT")
    _print_table(head, rows, out, numbers=4)


def _used(root: str) -> Usage:
    if not os.path.isdir(root):
        return Usage(0, 0)
    with opened(root) as index:
        catch_up(index)
        return sums(index)


def _limit(number: int | None) -> str:
    return "-" if number is None else str(number)


# --- rebuild --------------------------------------------------------------------------------------


def rebuild(name: str, place: Place, out: TextIO) -> None:
    """Make the index of an account again.

    Args:
        name: its address.
        place: where it is.
        out: receives what was done.

    Raises:
        FastlistenError, OSError, sqlite3.Error: it cannot be done.
    """
    root = root_of(name, place)
    work_as_owner(place.directory)
    if not os.path.isdir(root):
        out.write("it has no mail\n")
        return
    with opened(root) as index:
        make_again(index)
        used = sums(index)
        ((count,),) = index.query("SELECT count(*) FROM folder")
    out.write(
        f"made the index of {parse_mailbox(name).canonical} again: {used.messages} messages in "
        f"{count} folders; clients will load them again\n"
    )


# --- output ---------------------------------------------------------------------------------------


def _print_json(document: dict[str, Any], out: TextIO) -> None:
    json.dump(document, out, indent=2, ensure_ascii=False)
    out.write("\n")


def _print_table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], out: TextIO, *, numbers: int
) -> None:
    """Print a table, of which the first columns are numbers and the last one is not padded."""
    lines = [head, *[[str(value) for value in row] for row in rows]]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    for line in lines:
        cells = [
            text.rjust(width) if place < numbers else text.ljust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        out.write("  ".join(cells).rstrip() + "\n")
