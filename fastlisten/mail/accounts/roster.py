"""Accounts: who has a mailbox here, from one TOML file.

    [account."alice@example.org"]
    password = "$argon2id$v=19$m=65536,t=3,p=4$..."
    aliases = ["postmaster@example.org", "Alice.Liddell@example.org", "@example.com"]
    quota = { bytes = "5GiB", messages = 100000 }
    master = true

Rules of this file: what a text says, and how it is read; no loop. A `Roster` is what one version
of the file says, and never changes; a `Transition` is what can be said while a new version may be
half written. Which of them is in force is decided in accounts_file.py.

Addresses are looked up exactly first, then without regard to case, then without their detail
(``alice+detail@example.org``), if the configuration has a delimiter. The mailbox `postmaster`
always exists, without a domain, in every local domain and at the server's own name, which its DSNs
come from (RFC 5321 4.5.1): it is the account or alias of that name; else the account that the
configuration names; else the first one called postmaster in another domain; else the first account
of the file. An alias without a local part catches all mail of its domain that nobody else gets. An
account without a password gets mail, but nobody can log in to it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from fastlisten.errors import ConfigurationError, Problem
from fastlisten.files import read_file
from fastlisten.mail.accounts.passwords import read_parameters
from fastlisten.mail.accounts.quota import COMMON_QUOTA, OwnQuota, read_quota
from fastlisten.mail.address import AddressError, Mailbox, parse_mailbox
from fastlisten.toml_lines import KeyPath, Lines
from fastlisten.toml_text import TomlError, parse_toml

__all__ = ["Account", "Roster", "Transition", "parse_alias", "read_accounts"]

#: NAME_MAX of every filesystem that matters: the longest name of a directory, in octets.
_NAME_MAX = 255

#: 100,000 accounts have some 20 MiB.
_LARGEST_FILE = 256 << 20

#: Keys of an account.
_KEYS = ("aliases", "master", "password", "quota")


@dataclass(frozen=True, slots=True)
class Account:
    """One account.

    Attributes:
        name: its address, in canonical form.
        aliases: other addresses whose mail it gets, as the file writes them; ``@domain`` catches
            everything in a domain that nobody else gets.
        password: the hash of its password, a PHC string; empty if nobody can log in.
        quota: what the file says about how much mail it may have.
        master: whose mail its user may open with their own password: addresses and ``@domain``, or
            ``*`` for everybody's; empty for nobody else's.
        by: only in a login: the master who has logged in to this account.
    """

    name: str
    aliases: tuple[str, ...] = ()
    password: str = field(default="", repr=False)
    quota: OwnQuota = COMMON_QUOTA
    master: tuple[str, ...] = ()
    by: Account | None = None

    @property
    def directory(self) -> str:
        """The name of its directory under mail/: its address, escaped where a path needs it."""
        name = self.name.replace("%", "%25").replace("/", "%2F")
        return "%2E" + name[1:] if name.startswith(".") else name


class Roster:
    """The accounts of one version of the file.

    Attributes:
        accounts: in the file's order.
        appointed: the account that the configuration names as postmaster exists, or it names none.
        has_masters: an account is a master.
        certain: what is not in it does not exist. False while the file may be half written; then
            nothing may be refused permanently.
    """

    __slots__ = (
        "_catch_all",
        "_delimiter",
        "_domains",
        "_exact",
        "_folded",
        "_hosts",
        "_postmaster",
        "accounts",
        "appointed",
        "has_masters",
    )

    certain: ClassVar[bool] = True

    def __init__(self, accounts: tuple[Account, ...] = ()) -> None:
        """Index the accounts; `parse` has made sure that their addresses are valid and differ."""
        self.accounts = accounts
        self.has_masters = any(account.master for account in accounts)
        self._exact: dict[tuple[str, str], Account] = {}
        self._folded: dict[tuple[str, str], Account] = {}
        self._catch_all: dict[str, Account] = {}
        self._hosts: frozenset[str] = frozenset()
        self._delimiter = ""
        self._postmaster: Account | None = None
        self.appointed = True
        for account in accounts:
            for text in (account.name, *account.aliases):
                mailbox = parse_alias(text)
                if _catches_all(mailbox):
                    self._catch_all[mailbox.domain] = account
                    continue
                folded = mailbox.local.casefold()
                self._exact[mailbox.local, mailbox.domain] = account
                self._folded.setdefault((folded, mailbox.domain), account)
                if folded == "postmaster" and self._postmaster is None:
                    self._postmaster = account
        if self._postmaster is None and accounts:
            self._postmaster = accounts[0]
        self._domains = frozenset(domain for _, domain in self._exact) | self._catch_all.keys()

    def appoint(self, name: str, hosts: frozenset[str], delimiter: str = "") -> None:
        """Choose the postmaster and the delimiter, before the roster is used.

        Args:
            name: the account's address or alias; empty to leave the choice to the file.
            hosts: domains, as `domain_key` gives them, that have this postmaster besides the local
                ones.
            delimiter: begins the detail of an address, as in ``alice+detail``; empty: nothing does.
        """
        self._hosts = hosts
        self._delimiter = delimiter
        account = self.login(name) if name else None
        if account is not None:
            self._postmaster = account
        self.appointed = account is not None or not name

    @property
    def postmaster(self) -> Account | None:
        """The account that gets mail to postmaster where no account has that name."""
        return self._postmaster

    def find(self, mailbox: Mailbox) -> Account | None:
        """Return the account that gets mail for a mailbox, or None."""
        account = self.named(mailbox)
        if account is None and (base := self._without_detail(mailbox)) is not None:
            account = self.named(base)
        if account is None:
            domain = mailbox.domain
            if mailbox.local.casefold() == "postmaster" and (
                not domain or self.is_local(domain) or domain in self._hosts
            ):
                return self._postmaster
            account = self._catch_all.get(domain)
        return account

    def detail(self, mailbox: Mailbox) -> str:
        """Return what is behind the delimiter, empty if an account has the whole address."""
        base = self._without_detail(mailbox)
        if base is None or self.named(mailbox) is not None or self.named(base) is None:
            return ""
        return mailbox.local[len(base.local) + 1 :]

    def _without_detail(self, mailbox: Mailbox) -> Mailbox | None:
        """Return a mailbox without the first delimiter and what follows; None if it has none."""
        local = mailbox.local
        at = local.find(self._delimiter, 1) if self._delimiter else -1
        return Mailbox(mailbox.text, local[:at], mailbox.domain) if at > 0 else None

    def login(self, name: str) -> Account | None:
        """Return the account that a client names when it logs in, or None.

        Its name or an alias, without regard to case unless another has exactly that name. Nobody
        logs in as postmaster, or by a catch-all alias, because the account gets such mail.
        """
        try:
            return self.named(parse_mailbox(name))
        except AddressError:
            return None

    def admits(self, login: Account) -> bool:
        """Whether a user who has logged in to an account could still do so.

        Not if the account has been removed since, or has a new password (the old one was stolen).
        """
        account = self.login(login.name)
        if account is None or login.by is None:
            return account is not None and account.password == login.password
        master = self.login(login.by.name)
        return (
            master is not None
            and master.password == login.by.password
            and self.acting(master, account.name) is not None
        )

    def acting(self, login: Account, user: str) -> Account | None:
        """Return the account that a user may act for who has logged in to another.

        Args:
            login: the account whose password was right.
            user: the name of the other, or an alias of it.

        Returns:
            The other, with the master in `Account.by`; `login` itself if it is its own name; None
            if there is no such account, or it is not theirs to open.
        """
        account = self.login(user)
        if account is None or account.name == login.name:
            return account
        for text in login.master:
            allowed = text == "*"
            if not allowed:
                mailbox = parse_alias(text)
                if _catches_all(mailbox):
                    allowed = parse_mailbox(account.name).domain == mailbox.domain
                else:
                    named = self.named(mailbox)
                    allowed = named is not None and named.name == account.name
            if allowed:
                return replace(account, by=login)
        return None

    def named(self, mailbox: Mailbox) -> Account | None:
        """Return the account that has this address as its name or an alias, or None."""
        local, domain = mailbox.local, mailbox.domain
        return self._exact.get((local, domain)) or self._folded.get((local.casefold(), domain))

    def is_local(self, domain: str) -> bool:
        """Whether some account or alias is in this domain (as `domain_key` gives it)."""
        return domain in self._domains

    @classmethod
    def parse(cls, text: str | bytes, file: str = "") -> Roster:
        """Return the accounts in the text of a file; bytes are UTF-8.

        Raises:
            ConfigurationError: with all its mistakes.
        """
        try:
            source, document = parse_toml(text)
        except TomlError as error:
            raise ConfigurationError([Problem(str(error), file, error.line)]) from error
        problems = [
            Problem("unknown key", file, key=key, allowed="account")
            for key in document
            if key != "account"
        ]
        table = document.get("account", {})
        if not isinstance(table, dict):
            problems.append(Problem('must be tables [account."name@domain"]', file, key="account"))
            table = {}
        seen: dict[tuple[bool, str, str], str] = {}
        accounts = [_account(name, entry, file, problems, seen) for name, entry in table.items()]
        problems += _quota_problems(table, source, file)
        if problems:
            raise ConfigurationError(problems)
        return cls(tuple(account for account in accounts if account is not None))


class Transition(Roster):
    """What can be said while a new version of the file may be half written.

    Every answer agrees with the previous version or with the new one. Of the new one only names and
    aliases count: its beginning may have a catch-all alias, but not yet the accounts further down
    that are exceptions to it.
    """

    __slots__ = ("_before", "_coming", "_first")

    certain: ClassVar[bool] = False

    def __init__(self, before: Roster | None, coming: Roster) -> None:
        """Put two versions together.

        Args:
            before: the last complete one, None if there was none.
            coming: what could be read of the new one.
        """
        self._before = Roster() if before is None else before
        self._coming = coming
        self._domains = coming._domains | self._before._domains
        self._first = before is None
        self.appointed = self._before.appointed if before else coming.appointed
        known = {account.name for account in self._before.accounts}
        new = (account for account in coming.accounts if account.name not in known)
        self.accounts = (*self._before.accounts, *new)
        self.has_masters = self._before.has_masters or coming.has_masters

    def find(self, mailbox: Mailbox) -> Account | None:
        """Return the account that gets mail for a mailbox in the previous or the new version."""
        return self._before.find(mailbox) or self._coming.named(mailbox)

    def detail(self, mailbox: Mailbox) -> str:
        """Return what is behind the delimiter, by the previous version."""
        return "" if self._coming.named(mailbox) is not None else self._before.detail(mailbox)

    def login(self, name: str) -> Account | None:
        """Return the account that a client names, with its new password if it can be read."""
        new = self._coming.login(name)
        return new if new is not None and new.password else self._before.login(name) or new

    def admits(self, login: Account) -> bool:
        """Whether a user who has logged in could still do so in one of the two versions."""
        return self._before.admits(login) or self._coming.admits(login)

    def named(self, mailbox: Mailbox) -> Account | None:
        """Return the account that has this address in the previous or the new version."""
        return self._before.named(mailbox) or self._coming.named(mailbox)

    def is_local(self, domain: str) -> bool:
        """Whether a domain may be local; any, if there is no previous version."""
        return self._first or super().is_local(domain)


def _account(
    name: str,
    entry: Any,
    file: str,
    problems: list[Problem],
    seen: dict[tuple[bool, str, str], str],
) -> Account | None:
    """Return one account of the file, or None after adding to `problems`."""
    key = f'account."{name}"'
    before = len(problems)
    mailbox = _address(name, key, file, problems)
    if not isinstance(entry, Mapping):
        problems.append(Problem("must be a table", file, key=key))
        return None
    for word in entry:
        if word not in _KEYS:
            near = difflib.get_close_matches(word, _KEYS, 1)
            problems.append(
                Problem(
                    "unknown key",
                    file,
                    key=f"{key}.{word}",
                    allowed=", ".join(_KEYS),
                    suggestion=near[0] if near else "",
                )
            )
    password = entry.get("password", "")
    if not isinstance(password, str):
        problems.append(Problem("must be a string", file, key=f"{key}.password"))
    elif "password" in entry:
        try:
            read_parameters(password)
        except ValueError as error:
            problems.append(Problem(str(error), file, key=f"{key}.password"))
    aliases = entry.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        problems.append(Problem("must be an array of addresses", file, key=f"{key}.aliases"))
        return None
    master = _masters(entry.get("master", False), key, file, problems)
    boxes = [mailbox]
    boxes += [_address(alias, f"{key}.aliases", file, problems, parse_alias) for alias in aliases]
    for box in boxes:
        if box is None:
            continue
        identity = (_catches_all(box), box.local, box.domain)
        if owner := seen.get(identity):
            problems.append(Problem(f"{box} is an address of {owner} too", file, key=key))
        seen[identity] = key
    if mailbox is None or len(problems) > before:
        return None
    quota, _ = read_quota(entry.get("quota", {}))
    account = Account(mailbox.canonical, tuple(aliases), password, quota, master)
    if len(account.directory.encode()) > _NAME_MAX:
        problems.append(Problem("too long for the name of a directory", file, key=key))
        return None
    return account


def _masters(value: Any, key: str, file: str, problems: list[Problem]) -> tuple[str, ...]:
    """Return whose mail a master may open, or nobody's after adding to `problems`."""
    if isinstance(value, bool):
        return ("*",) if value else ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        allowed = 'true, false, or an array of "name@domain" and "@domain"'
        problems.append(Problem("not allowed here", file, key=f"{key}.master", allowed=allowed))
        return ()
    for text in value:
        _address(text, f"{key}.master", file, problems, parse_alias)
    return tuple(value)


def _quota_problems(table: Mapping[str, Any], source: str, file: str) -> list[Problem]:
    """Return the mistakes in the quotas of all accounts, with their lines."""
    problems: list[Problem] = []
    lines: Lines | None = None
    for name, entry in table.items():
        if not isinstance(entry, Mapping) or "quota" not in entry:
            continue
        _, mistakes = read_quota(entry["quota"])
        for it in mistakes:
            lines = lines or Lines(source)
            path: KeyPath = ("account", name, "quota", *filter(None, [it.key]))
            problems.append(
                Problem(
                    it.message,
                    file,
                    lines[path],
                    key=f'account."{name}".quota.{it.key}'.removesuffix("."),
                    value=it.value,
                    allowed=it.allowed,
                    suggestion=it.suggestion,
                )
            )
    return problems


def parse_alias(text: str) -> Mailbox:
    """Return the mailbox that an alias names, one with an empty local part for ``@domain``.

    Raises:
        AddressError: it is neither.
    """
    if not text.startswith("@"):
        return parse_mailbox(text)
    return Mailbox(text, "", parse_mailbox("any" + text).domain)


def _catches_all(alias: Mailbox) -> bool:
    """Whether an alias is for a whole domain (``""@domain`` is not)."""
    return alias.text.startswith("@")


def _address(
    text: str,
    key: str,
    file: str,
    problems: list[Problem],
    parse: Callable[[str], Mailbox] = parse_mailbox,
) -> Mailbox | None:
    """Return the mailbox of an address, or None after adding to `problems`."""
    try:
        return parse(text)
    except AddressError as error:
        allowed = "name@domain" if parse is parse_mailbox else "name@domain, @domain"
        problems.append(Problem(str(error), file, key=key, allowed=allowed))
        return None


def read_accounts(path: str | os.PathLike[str]) -> bytes:
    """Return the content of an accounts file.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    return read_file(path, _LARGEST_FILE, "a file of accounts")
