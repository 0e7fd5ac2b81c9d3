"""Logins of an accounts file, checked without a connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.logins.logins import Logins
from support.accounts import cheap_hash

__all__ = ["HASH", "TEXT", "check", "logins_of"]

HASH = cheap_hash("sécret")

#: Three accounts: one with aliases, one without a password, one with capitals in its name.
TEXT = f"""
[account."alice@example.org"]
password = "{HASH}"
aliases = ["Al@example.org", "@example.com"]

[account."nobody@example.org"]
[account."Bob@example.org"]
password = "{cheap_hash("bob")}"
"""


def logins_of(file: Path) -> Logins:
    """Return logins for an accounts file that has been read."""
    accounts = Accounts(file)
    accounts.reload()
    return Logins(accounts)


def check(logins: Logins, name: str, password: str, address: str = "") -> str | None:
    account = asyncio.run(logins.check(name, password, address))
    return account.name if account else None
