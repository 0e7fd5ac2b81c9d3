"""The cache of logins: those that succeeded, for an hour, and how often each name failed.

Rules of this file: nothing is verified here, and nobody waits. What is kept is useless to anyone
who gets hold of it: digests under a key that each process makes anew.

The key of a login that succeeded is made from its account, its password and the hash in the
accounts file, so it is forgotten as soon as one of them changes. Without the cache, ten thousand
returning clients would wait eight minutes, and behind everybody who guesses: verifying takes a
tenth of a second and 64 MiB.

Failures are counted for any name, whether an account has it or not, and a success does not reset
them. Otherwise names that exist would behave differently from others.
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

__all__ = ["LIFE", "CacheResult", "LoginCache"]

#: Seconds for which a login need not be verified again.
LIFE = 3600.0

#: Logins, and names, that are kept: about 2 MiB of each. The oldest are dropped first.
SIZE = 10_000


class CacheResult(enum.Enum):
    """What the cache says of a login."""

    UNKNOWN = enum.auto()
    EXPIRED = enum.auto()  # it succeeded more than LIFE ago, and nothing has changed since
    VALID = enum.auto()


class LoginCache:
    """The cache of one `Logins`; may be used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Make an empty cache.

        Args:
            clock: returns seconds that never go back.
        """
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        #: When a login was verified, by key; in the order of these times.
        self._verified: dict[bytes, float] = {}
        #: How often a name failed, and when last, by digest; in the order of these times.
        self._failed: dict[bytes, tuple[int, float]] = {}

    def key(self, account: str, password: bytes, phc: str) -> bytes:
        """Return the key of a login.

        Args:
            account: the account's name.
            password: as it is hashed.
            phc: the hash in the accounts file.
        """
        return self._digest(
            b"login", account.encode("utf-8", "surrogatepass"), password, phc.encode()
        )

    def look_up(self, login: bytes) -> CacheResult:
        """Return what is known of a login.

        Args:
            login: its key.
        """
        with self._lock:
            verified = self._verified.get(login)
        if verified is None:
            return CacheResult.UNKNOWN
        return CacheResult.VALID if self._clock() - verified < LIFE else CacheResult.EXPIRED

    def add(self, login: bytes) -> None:
        """Add a login that has been verified.

        Args:
            login: its key.
        """
        with self._lock:
            self._verified.pop(login, None)
            self._verified[login] = self._clock()
            if len(self._verified) > SIZE:
                del self._verified[next(iter(self._verified))]

    def failures(self, name: str) -> int:
        """Return how often a name failed recently."""
        key = self._name(name)
        with self._lock:
            count, last = self._failed.get(key, (0, 0.0))
        return count if self._clock() - last < FORGOTTEN else 0

    def add_failure(self, name: str) -> None:
        """Count a failure of a name."""
        key, now = self._name(name), self._clock()
        with self._lock:
            count, last = self._failed.pop(key, (0, now))
            self._failed[key] = (count + 1 if now - last < FORGOTTEN else 1, now)
            if len(self._failed) > SIZE:
                del self._failed[next(iter(self._failed))]

    def _name(self, name: str) -> bytes:
        text = unicodedata.normalize("NFC", name).casefold()
        return self._digest(b"name", text.encode("utf-8", "surrogatepass"))

    def _digest(self, *parts: bytes) -> bytes:
        # With the length of each part, so that different parts never make the same octets.
        text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
        return hmac.digest(self._key, text, "sha256")
