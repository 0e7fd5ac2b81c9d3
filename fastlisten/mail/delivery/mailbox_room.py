"""Room in a mailbox that has a quota: whether a message fits, decided under the account's lock.

Rules of this file: blocking. A message is moved into new/ while the lock is held under which its
size was compared with what the account has, so that two deliveries never take the same place,
whatever processes they are in. Messages that others have put in are absorbed before. A delivery
never fails because the index cannot be used: then it is logged, and the quota does not count.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import sqlite3
from collections.abc import Iterator

from fastlisten.mail.accounts.quota import Quota
from fastlisten.mail.store.files import inspect
from fastlisten.mail.store.interface import Usage
from fastlisten.mail.store.kept_indexes import KeptIndexes
from fastlisten.mail.store.usage import OVER_QUOTA, catch_up, fits, usage

__all__ = ["MailboxRoom", "QuotaExceededError"]

logger = logging.getLogger("fastlisten.mail")

_NEVER = "Quota exceeded (message is larger than the mailbox may be)"


class QuotaExceededError(OSError):
    """The message does not fit into a mailbox.

    Attributes:
        never: not even into an empty one.
    """

    def __init__(self, *, never: bool) -> None:
        super().__init__(errno.EDQUOT, _NEVER if never else OVER_QUOTA)
        self.never = never

    def __str__(self) -> str:
        """Return what administrators search for, without a number."""
        return str(self.strerror)


class MailboxRoom:
    """The room in one mailbox.

    Args:
        indexes: the open ones.
        root: the account's directory.
        quota: how much mail it may have.
    """

    __slots__ = ("_indexes", "_quota", "_root")

    def __init__(self, indexes: KeptIndexes, root: str, quota: Quota) -> None:
        self._indexes = indexes
        self._root = root
        self._quota = quota

    def refusal(self, size: int) -> QuotaExceededError | None:
        """Return why a message would not fit now; a message that is let in may still not fit.

        Args:
            size: octets, as far as they are known.
        """
        if self._is_too_large(size):
            return QuotaExceededError(never=True)
        more = Usage(max(size, 1), 1)
        try:
            with self._indexes.use(self._root) as index:
                if fits(usage(index), self._quota, more):
                    return None
                catch_up(index)  # something may have been removed
                if fits(usage(index), self._quota, more):
                    return None
        except (OSError, sqlite3.Error) as error:
            self._complain(error)
            return None
        return QuotaExceededError(never=False)

    @contextlib.contextmanager
    def taken(self, path: str) -> Iterator[None]:
        """Have room for a message that is moved into the mailbox within the block.

        Args:
            path: the file.

        Raises:
            QuotaExceededError: it does not fit.
        """
        with contextlib.ExitStack() as held:
            if not self._fits(path, held):
                held.close()
                raise QuotaExceededError(never=self._is_too_large(_size_of(path)))
            yield

    def _fits(self, path: str, held: contextlib.ExitStack) -> bool:
        """Return whether a message fits; the lock is released with `held`."""
        for last in (False, True):
            try:
                with contextlib.ExitStack() as trial:
                    index = trial.enter_context(self._indexes.use(self._root))
                    catch_up(index)
                    trial.enter_context(index.locked())
                    fit = fits(usage(index), self._quota, Usage(_size_of(path), 1))
                    held.push(trial.pop_all())
                    return fit
            except (OSError, sqlite3.Error) as error:
                if last:  # the first time, the directory may have been replaced
                    self._complain(error)
        return True

    def _is_too_large(self, size: int) -> bool:
        return self._quota.bytes is not None and size > self._quota.bytes

    def _complain(self, error: Exception) -> None:
        logger.warning("%s: the quota cannot be checked: %s", self._root, error)


def _size_of(path: str) -> int:
    """Return how many octets a message has as it is served."""
    inspected = inspect(path)
    return 0 if inspected is None else inspected.size
