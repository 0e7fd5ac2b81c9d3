"""Accounts for tests: accounts files, cheap hashes, held verifications, failing maildirs."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from argon2.low_level import Type, hash_secret

from fastlisten.mail.accounts import passwords

__all__ = ["HeldVerifications", "break_maildir", "cheap_hash", "write_accounts"]


def write_accounts(path: Path, text: str) -> None:
    """Put a complete accounts file in place: by a rename, with an old modification time."""
    whole = path.with_name(f"{path.name}.whole")
    whole.write_text(text, "utf-8")
    whole.chmod(0o600)
    os.utime(whole, (time.time() - 3600,) * 2)
    whole.replace(path)


def cheap_hash(password: str, memory: int = 8, time: int = 1) -> str:
    """Return a hash by argon2-cffi that costs nearly nothing to verify."""
    return hash_secret(password.encode(), b"salt" * 4, time, memory, 1, 32, Type.ID).decode()


class HeldVerifications:
    """Holds verifications until `go` is set, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.lock = threading.Lock()
        self.now = self.most = self.all = 0
        monkeypatch.setattr(passwords, "verify", self.verify)

    def verify(self, phc: str, secret: bytes) -> bool:
        with self.lock:
            self.now += 1
            self.all += 1
            self.most = max(self.most, self.now)
        assert self.go.wait(30)
        with self.lock:
            self.now -= 1
        return secret == b"right"


def break_maildir(account: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every rename into one account's maildir fail with an errno."""
    rename = os.rename

    def fail(source: Any, target: Any, *more: Any, **named: Any) -> None:
        if account in str(target):
            raise OSError(number, os.strerror(number))
        rename(source, target, *more, **named)

    monkeypatch.setattr(os, "rename", fail)
