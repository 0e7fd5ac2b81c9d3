"""What can be asked of a running server, and done to it, by anyone who is allowed to.

Rules of this file: the interface and its errors; no protocol and no process. Whoever manages a
server (the HTTP API, a control socket) holds a `Control` and does not know how many workers there
are: every method is a coroutine, since the answer may come from another process. Who may do what is
decided by the caller. A listener is named by its id; `by` is who asked, in words for the log.

What is done holds until the process ends: it is not written into the configuration. A listener
that has been drained has given its sockets back, and only a restart brings it back.
"""

from __future__ import annotations

import abc

from fastlisten.errors import FastlistenError
from fastlisten.runtime.listener import State
from fastlisten.runtime.reports import ListenerReport, Readiness, ServerReport

__all__ = ["MAX_LIMIT", "Control", "ImpossibleError", "UnknownListenerError"]

#: The largest `max-connections`, as in the configuration.
MAX_LIMIT = 2**31 - 1


class UnknownListenerError(FastlistenError):
    """There is no listener of that id; `id` is what was asked for."""

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(f'there is no listener "{id}"')


class ImpossibleError(FastlistenError):
    """A listener cannot do what was asked for in its present state, `state`."""

    def __init__(self, id: str, state: State, wanted: str) -> None:
        self.id = id
        self.state = state
        super().__init__(
            f'listener "{id}" is {state.value} and cannot be {wanted}; a restart brings it back'
        )


class Control(abc.ABC):
    """The one way into a running server from outside. It can be made before the server starts."""

    # -- asking

    @abc.abstractmethod
    async def readiness(self) -> Readiness:
        """Return whether clients can be sent to the server."""

    @abc.abstractmethod
    async def server(self) -> ServerReport:
        """Return what concerns the server as a whole."""

    @abc.abstractmethod
    async def reports(self) -> list[ListenerReport]:
        """Return what all listeners are, in order of id; each at a moment of its own."""

    @abc.abstractmethod
    async def report(self, id: str) -> ListenerReport:
        """Return what one listener is.

        Raises:
            UnknownListenerError: there is none of that id.
        """

    # -- doing

    @abc.abstractmethod
    async def pause(self, id: str, by: str) -> None:
        """Stop a listener from accepting until `resume`: clients wait, connections go on.

        Raises:
            UnknownListenerError: there is none of that id.
            ImpossibleError: it is drained.
        """

    @abc.abstractmethod
    async def resume(self, id: str, by: str) -> None:
        """Let a listener accept again after `pause`.

        Raises:
            UnknownListenerError: there is none of that id.
            ImpossibleError: it is drained.
        """

    @abc.abstractmethod
    async def drain(self, id: str, by: str) -> None:
        """Close a listener for good: idle clients get a farewell, busy ones may finish.

        They have `server.shutdown-timeout`, as when the server ends. Returns when the drain has
        begun.

        Raises:
            UnknownListenerError: there is none of that id.
        """

    @abc.abstractmethod
    async def set_limit(self, id: str, limit: int, by: str) -> None:
        """Change the `max-connections` of a listener until the next start.

        Connections beyond a lower limit go on; new ones are accepted once enough have ended.

        Args:
            id: of the listener.
            limit: from 1 to `MAX_LIMIT`.
            by: who asked for it.

        Raises:
            UnknownListenerError: there is none of that id.
            ImpossibleError: it is drained.
            ValueError: the limit is out of range.
        """
