"""What all workers share about logins, in the supervisor: penalties, and what has been verified.

Rules of this file: only what the supervisor calls, passed on to both parts.
"""

from __future__ import annotations

from fastlisten.runtime.supervisor.login_penalties import SharedPenalties
from fastlisten.runtime.supervisor.remembered_logins import RememberedLogins
from fastlisten.runtime.supervisor.worker_requests import Body, Send

__all__ = ["SharedLogins"]


class SharedLogins:
    """The penalties of all workers, and the logins that they have verified.

    Args:
        send: sends a message to a worker.
    """

    def __init__(self, send: Send) -> None:
        self._penalties = SharedPenalties(send)
        self._remembered = RememberedLogins(send)

    def receive(self, key: int, kind: str, body: Body) -> bool:
        """Take a message of a worker; return whether it is one of ours.

        Raises:
            BadMessageError: no worker would send that.
        """
        return self._penalties.receive(key, kind, body) or self._remembered.receive(key, kind, body)

    def remove(self, key: int) -> None:
        """A worker has ended."""
        self._penalties.remove(key)
        self._remembered.remove(key)

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, by the clock; None if there is nothing to wait for."""
        return self._penalties.deadline

    def expire(self) -> None:
        """Do what is due."""
        self._penalties.expire()

    def state(self) -> Body:
        """Return everything, as a JSON value, for the new program of an upgrade."""
        return {"penalties": self._penalties.state(), "remembered": self._remembered.state()}

    def take_over(self, state: Body) -> None:
        """Go on from what `state` has returned in the former program."""
        self._penalties.take_over(state["penalties"])
        self._remembered.take_over(state["remembered"])
