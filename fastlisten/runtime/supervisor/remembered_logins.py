"""The logins that workers have verified, in the supervisor: all workers remember them.

    worker      logins-wanted   {}                       it has started: what is known? and then all
    worker      login-verified  {"login": "5f0c..."}     it has verified one
    supervisor  logins-known    {"logins": [["5f0c...", 4711.5], ...]}    to the other workers

A login is the digest that is its key in a `LoginCache`, with the time when it was verified; the
clock is the same in all processes. A worker that misses a message verifies for itself.

Rules of this file: no I/O. It is given the function that sends a message, the messages that arrive
and a clock. What workers send is checked; one that has been taken over can let the others accept
any password, but it can read and deliver all mail itself.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable
from typing import Final

from fastlisten.mail.logins.login_cache import SIZE
from fastlisten.runtime.supervisor.channel import BadMessageError, ChannelError
from fastlisten.runtime.supervisor.control_messages import text_in
from fastlisten.runtime.supervisor.worker_requests import Body, Send

__all__ = ["LOGINS_KNOWN", "LOGINS_WANTED", "LOGIN_VERIFIED", "RememberedLogins"]

#: The kinds of messages.
LOGINS_WANTED: Final = "logins-wanted"
LOGIN_VERIFIED: Final = "login-verified"
LOGINS_KNOWN: Final = "logins-known"

_LOGIN = re.compile("[0-9a-f]{64}", re.ASCII)


class RememberedLogins:
    """What all workers have verified.

    Its length is the number of logins.

    Args:
        send: sends a message to a worker.
        clock: returns seconds that never go back, the same in all processes.
    """

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        #: When each was verified, in the order of these times.
        self._logins: dict[str, float] = {}
        #: The workers that have started, in order.
        self._workers: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._logins)

    def receive(self, key: int, kind: str, body: Body) -> bool:
        """Take a message of a worker; return whether it is one of ours.

        Raises:
            BadMessageError: no worker would send that.
        """
        if kind == LOGINS_WANTED:
            if key in self._workers:
                # Each answer takes long.
                raise BadMessageError("a worker that starts twice")
            self._workers[key] = None
            if self._logins:
                self._tell((key,), self._logins.items())
        elif kind == LOGIN_VERIFIED:
            login, now = text_in(body, "login"), self._clock()
            if not _LOGIN.fullmatch(login):
                raise BadMessageError("a login that is not a digest")
            self._logins.pop(login, None)
            self._logins[login] = now
            if len(self._logins) > SIZE:
                del self._logins[next(iter(self._logins))]
            self._tell((one for one in self._workers if one != key), ((login, now),))
        else:
            return False
        return True

    def remove(self, key: int) -> None:
        """Tell a worker that has ended no more; what it has verified is still known."""
        self._workers.pop(key, None)

    def state(self) -> Body:
        """Return everything, as a JSON value, for the new program of an upgrade."""
        return {"logins": list(self._logins.items()), "workers": list(self._workers)}

    def take_over(self, state: Body) -> None:
        """Go on from what `state` has returned in the former program."""
        self._logins = dict(state["logins"])
        self._workers = dict.fromkeys(state["workers"])

    def _tell(self, keys: Iterable[int], logins: Iterable[tuple[str, float]]) -> None:
        body: Body = {"logins": [list(one) for one in logins]}
        for key in keys:
            # One that does not read verifies for itself.
            with contextlib.suppress(ChannelError):
                self._send(key, LOGINS_KNOWN, body)
