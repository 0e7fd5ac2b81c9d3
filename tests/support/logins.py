"""Logins of an accounts file, asked without a connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.logins.logins import Logins

__all__ = ["check", "logins_of"]


def logins_of(file: Path) -> Logins:
    """Return logins that need not read the file first."""
    accounts = Accounts(file)
    accounts.reload()
    return Logins(accounts)


def check(logins: Logins, name: str, password: str, address: str = "") -> str | None:
    account = asyncio.run(logins.check(name, password, address))
    return account.name if account else None
