"""The cache of logins: those that succeeded, for an hour.

Rules of this file: nothing is verified here, and nobody waits. What is kept is useless to anyone
who gets hold of it: digests under a key that each server makes anew.

The key of a login that succeeded is made from its account, its password and the hash in the
accounts file, so it is forgotten as soon as one of them changes. Without the cache, ten thousand
returning clients would wait eight minutes, and behind everybody who guesses: verifying takes a
tenth of a second and 64 MiB.
"""

from __future__ import annotations

import enum
import hmac
import secrets
import threading
import time
from collections.abc import Callable

__all__ = ["LIFE", "CacheResult", "LoginCache"]

#: Seconds for which a login need not be verified again.
LIFE = 3600.0

#: Logins that are kept: about 2 MiB. The oldest are dropped first.
SIZE = 10_000


class CacheResult(enum.Enum):
    """What the cache says of a login."""

    UNKNOWN = enum.auto()
    EXPIRED = enum.auto()  # it succeeded more than LIFE ago, and nothing has changed since
    VALID = enum.auto()


class LoginCache:
    """The cache of one `Logins`, or of all; may be used from any thread."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        key: bytes = b"",
        added: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """Make an empty cache.

        Args:
            clock: returns seconds that never go back.
            key: a secret for its digests, the same in all caches that tell each other what they
                know; by default one of its own.
            added: called with each login that has been verified, on the thread that adds it.
        """
        self._clock = clock
        self._key = key or secrets.token_bytes(32)
        self._added = added
        self._lock = threading.Lock()
        #: When a login was verified, by key; in the order of these times.
        self._verified: dict[bytes, float] = {}

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
        self.restore(login, self._clock())
        self._added(login)

    def restore(self, login: bytes, verified: float) -> None:
        """Add a login that another cache knows.

        Args:
            login: its key.
            verified: when it was verified, by the clock.
        """
        with self._lock:
            self._verified.pop(login, None)
            self._verified[login] = verified
            if len(self._verified) > SIZE:
                del self._verified[next(iter(self._verified))]

    def _digest(self, *parts: bytes) -> bytes:
        # With the length of each part, so that different parts never make the same octets.
        text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
        return hmac.digest(self._key, text, "sha256")
