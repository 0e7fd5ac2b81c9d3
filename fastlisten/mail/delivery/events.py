"""Delivery events: subscribers are called when an account has new mail.

Rules of this file: any thread may call it; callbacks run on the loop on which they subscribed. An
event says that a file has appeared; what the mailbox holds, only the maildir says. Events are about
deliveries of this process: what other processes or people put into a maildir is found by looking.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastlisten.mail.loop_calls import call_on

__all__ = ["Delivered", "Subscriptions"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message has been delivered.

    Attributes:
        account: the name of the account that got it.
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
    """The subscribers to new mail, by account.

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
            A function that ends the subscription. Once it has been called on the loop, there are
            no more callbacks; calling it again does nothing.
        """
        subscription = _Subscription(asyncio.get_running_loop(), callback)
        with self._lock:
            self._by_account.setdefault(account, []).append(subscription)
        return lambda: self._remove(account, subscription)

    def announce(self, event: Delivered) -> None:
        """Tell the account's subscribers, on their loops."""
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
