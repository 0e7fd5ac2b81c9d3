"""What is remembered of logins: the right ones for an hour, and how often a name failed.

Rules of this file: no verifying, no waiting. Nothing that is kept is of use to who gets hold of it
alone: digests under a key that is made anew by each process.

A login that succeeded is known by its account, its password and the hash in the accounts file
together, so that it is forgotten as soon as one of them changes. Verifying takes a tenth of a
second and 64 MiB: ten thousand clients that come back would wait for eight minutes, and behind all
who guess.

Names are counted by what clients write, whether an account has them or not, and a success takes
nothing back: neither would tell the same of names that exist and of others.
"""

from __future__ import annotations

import enum
import hmac
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable

from fastlisten.mail.logins.penalties import FORGOTTEN

__all__ = ["LIFE", "Known", "Memory"]

#: Seconds that a login is good without verifying it again.
LIFE = 3600.0

#: Logins, and names, that are remembered: about 2 MiB of each. The oldest are forgotten first.
SIZE = 10_000


class Known(enum.Enum):
    """What is known of a login."""

    NOTHING = enum.auto()
    OLD = enum.auto()  # it was right more than LIFE ago, and nothing has changed since
    GOOD = enum.auto()


class Memory:
    """One for each `Logins`; used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is known yet.

        Args:
            clock: returns seconds that never go back.
        """
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        #: When it was verified, by digest; in that order.
        self._right: dict[bytes, float] = {}
        #: How often it failed, and when last, by digest; in that order.
        self._wrong: dict[bytes, tuple[int, float]] = {}

    def login(self, account: str, password: bytes, phc: str) -> bytes:
        """Return what a login is known by.

        Args:
            account: the account's name.
            password: as it is hashed.
            phc: the hash in the accounts file.
        """
        return self._digest(
            b"login", account.encode("utf-8", "surrogatepass"), password, phc.encode()
        )

    def known(self, login: bytes) -> Known:
        """Return what is known of a login."""
        with self._lock:
            verified = self._right.get(login)
        if verified is None:
            return Known.NOTHING
        return Known.GOOD if self._clock() - verified < LIFE else Known.OLD

    def remember(self, login: bytes) -> None:
        """Take note of a login that has been verified."""
        with self._lock:
            self._right.pop(login, None)
            self._right[login] = self._clock()
            if len(self._right) > SIZE:
                del self._right[next(iter(self._right))]

    def mistakes(self, name: str) -> int:
        """Return how often a name failed lately."""
        key = self._name(name)
        with self._lock:
            count, last = self._wrong.get(key, (0, 0.0))
        return count if self._clock() - last < FORGOTTEN else 0

    def mistaken(self, name: str) -> None:
        """Take note of a name that failed."""
        key, now = self._name(name), self._clock()
        with self._lock:
            count, last = self._wrong.pop(key, (0, now))
            self._wrong[key] = (count + 1 if now - last < FORGOTTEN else 1, now)
            if len(self._wrong) > SIZE:
                del self._wrong[next(iter(self._wrong))]

    def _name(self, name: str) -> bytes:
        text = unicodedata.normalize("NFC", name).casefold()
        return self._digest(b"name", text.encode("utf-8", "surrogatepass"))

    def _digest(self, *parts: bytes) -> bytes:
        # With their lengths: no two logins are the same octets.
        text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
        return hmac.digest(self._key, text, "sha256")
