"""The interface for monitoring and controlling a running server.

Rules of this file: the interface and its errors only. Code that manages a server (the HTTP API, a
control socket) has a `Control` and need not know how many workers there are; all methods are
coroutines, because the answer may come from another process. The caller decides who may do what.
Listeners are identified by id; `by` says who made a request, for the log.

Changes last until the process ends; they are not written to the configuration. A drained listener
has closed its sockets, and only a restart opens it again.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

from fastlisten.errors import FastlistenError
from fastlisten.runtime.listener import State
from fastlisten.runtime.reports import ListenerReport, Readiness, ServerReport

__all__ = [
    "MAX_LIMIT",
    "Control",
    "ImpossibleError",
    "NoAnswerError",
    "UnfinishedError",
    "UnknownListenerError",
]

#: The largest `max-connections`, as in the configuration.
MAX_LIMIT = 2**31 - 1


class UnknownListenerError(FastlistenError):
    """There is no listener with this id."""

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(f'there is no listener "{id}"')


class ImpossibleError(FastlistenError):
    """A listener's state does not allow the request."""

    def __init__(self, id: str, state: State, wanted: str) -> None:
        self.id = id
        self.state = state
        self.wanted = wanted
        super().__init__(
            f'listener "{id}" is {state.value} and cannot be {wanted}; '
            "only a stop and a start of the server bring it back"
        )


class UnfinishedError(FastlistenError):
    """Not every worker has done what was requested; the others have.

    Attributes:
        id: the listener's id.
        wanted: what was requested: ``paused``.
        workers: the numbers of the workers that have not.
    """

    def __init__(self, id: str, wanted: str, workers: Sequence[int]) -> None:
        self.id = id
        self.wanted = wanted
        self.workers = tuple(workers)
        several = len(self.workers) > 1
        names = ", ".join(str(number) for number in self.workers)
        super().__init__(
            f'listener "{id}" is not yet {wanted} in worker{"s" if several else ""} {names}, which '
            f"{'do' if several else 'does'} not answer; the other workers have done it"
        )


class NoAnswerError(FastlistenError):
    """The supervisor does not answer, or no worker is running."""


class Control(abc.ABC):
    """Monitors and controls a server, which need not have started yet.

    With several workers any method may raise `NoAnswerError`, and those that change something
    `UnfinishedError`, too.
    """

    # -- asking

    @abc.abstractmethod
    async def readiness(self) -> Readiness:
        """Return whether clients can be sent to the server."""

    @abc.abstractmethod
    async def server(self) -> ServerReport:
        """Return the report on the server as a whole."""

    @abc.abstractmethod
    async def reports(self) -> list[ListenerReport]:
        """Return a report on each listener, in order of id; not all are made at the same moment."""

    @abc.abstractmethod
    async def report(self, id: str) -> ListenerReport:
        """Return the report on one listener.

        Raises:
            UnknownListenerError: there is no such listener.
        """

    # -- doing

    @abc.abstractmethod
    async def pause(self, id: str, by: str) -> None:
        """Stop accepting until `resume`: new clients wait, open connections stay open.

        Raises:
            UnknownListenerError: there is no such listener.
            ImpossibleError: it is drained.
        """

    @abc.abstractmethod
    async def resume(self, id: str, by: str) -> None:
        """Let a listener accept again after `pause`.

        Raises:
            UnknownListenerError: there is no such listener.
            ImpossibleError: it is drained.
        """

    @abc.abstractmethod
    async def drain(self, id: str, by: str) -> None:
        """Close a listener: idle clients get a farewell, busy ones may finish.

        They have `server.shutdown-timeout` to do so, as when the server ends. Returns when the
        drain has begun.

        Raises:
            UnknownListenerError: there is no such listener.
        """

    @abc.abstractmethod
    async def set_limit(self, id: str, limit: int, by: str) -> None:
        """Change the `max-connections` of a listener until the next start.

        Connections above a lower limit stay open; new ones are accepted once enough have ended.

        Args:
            id: the listener's id.
            limit: from 1 to `MAX_LIMIT`.
            by: who made the request.

        Raises:
            UnknownListenerError: there is no such listener.
            ImpossibleError: it is drained.
            ValueError: the limit is out of range.
        """
