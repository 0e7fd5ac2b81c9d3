"""Events of delivery: who waits for mail of an account hears of it when it is there.

Rules of this file: called from any thread; callbacks run on the loop on which they were
subscribed. An event says that a file has appeared; the maildir alone says what is in it. Only
deliveries of this process are heard of: what other processes (or the administrator's hands) put
into a maildir is found by looking there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

__all__ = ["Delivered", "Subscriptions", "call_on"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message has been delivered.

    Attributes:
        account: the name of the account that has it.
        name: the file's name.
        path: the file. A reader may have moved it from new/ to cur/ already.
        size: its octets.
    """

    account: str
    name: str
    path: str
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    loop: asyncio.AbstractEventLoop
    callback: Callable[[Delivered], None]


class Subscriptions:
    """Who waits for which account's mail.

    Its length is the number of subscriptions.
    """

    __slots__ = ("_by_account", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_account: dict[str, list[_Subscription]] = {}

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._by_account.values()))

    def add(self, account: str, callback: Callable[[Delivered], None]) -> Callable[[], None]:
        """Call back on the running loop for every delivery from now on.

        Args:
            account: the account's name.
            callback: called with what was delivered.

        Returns:
            What ends the subscription. After it has been called on the loop, nothing is called
            back any more; calling it again does nothing.
        """
        subscription = _Subscription(asyncio.get_running_loop(), callback)
        with self._lock:
            self._by_account.setdefault(account, []).append(subscription)
        return lambda: self._remove(account, subscription)

    def announce(self, event: Delivered) -> None:
        """Tell those who wait for the account's mail."""
        with self._lock:
            waiting = list(self._by_account.get(event.account, ()))
        for subscription in waiting:
            if not call_on(subscription.loop, partial(self._tell, subscription, event)):
                self._remove(event.account, subscription)

    def _tell(self, subscription: _Subscription, event: Delivered) -> None:
        with self._lock:
            wanted = subscription in self._by_account.get(event.account, ())
        if wanted:  # not unsubscribed since
            subscription.callback(event)

    def _remove(self, account: str, subscription: _Subscription) -> None:
        with self._lock:
            those = self._by_account.get(account, [])
            if subscription in those:
                those.remove(subscription)
                if not those:
                    del self._by_account[account]


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> bool:
    """Call back on a loop from a thread; whether the loop is still there."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True
