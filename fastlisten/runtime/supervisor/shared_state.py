"""What all processes of a server have in common: its plan, sockets, shared memory and a secret.

    SharedState(plan) ──> open, or take_over (an upgrade) ──> adopt (a reload) ... ──> close

Rules of this file: no processes. The supervisor keeps it, forked processes get it (`WorkerStart`),
and the new program of an upgrade gets it as JSON and descriptors.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastlisten._arena import Arena
from fastlisten.mail.logins.logins import shared_verifications
from fastlisten.mail.relay.relay import SESSIONS
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.sockets.bound_socket import BoundSocket, close_all
from fastlisten.runtime.sockets.opening import listen_all
from fastlisten.runtime.sockets.queues import close_queues, open_queues
from fastlisten.runtime.sockets.taking_over import state_of, taken_over
from fastlisten.runtime.supervisor.channel import Channel

__all__ = ["SharedState", "WorkerStart"]


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What a new process needs to be a worker.

    Attributes:
        plan: made before the fork.
        number: of the worker.
        sockets: the bound sockets; the process owns its copies.
        arena: to join.
        channel: to the supervisor.
        relay_row: the row of the arena that counts sessions with relays.
        user_sessions: a file whose locks count the sessions of each user.
        login_row: the row of the arena that counts verifications of passwords.
        login_key: a secret of all workers for digests of wrong passwords.
        workers: how many there are.
    """

    plan: Plan
    number: int
    sockets: Sequence[BoundSocket]
    arena: Arena
    channel: Channel
    relay_row: int
    user_sessions: int
    login_row: int
    login_key: bytes = field(repr=False)
    workers: int


class SharedState:
    """What all processes of a server have in common.

    Args:
        plan: the server's plan.
        workers: how many workers there are.

    Attributes:
        plan: in use, and of processes to come.
        sockets: all of them; they may be closed already while the server stops.
    """

    def __init__(self, plan: Plan, workers: int) -> None:
        self.plan = plan
        self._workers = workers
        self.sockets: list[BoundSocket] = []
        # Workers that are not started again.
        self._lost: set[int] = set()
        self._arena: Arena | None = None
        self._relay_row = 0
        self._user_sessions = -1
        self._login_row = 0
        self._login_key = secrets.token_bytes(32)

    @property
    def arena(self) -> Arena:
        """The memory that all processes share; there is none before `open` or `take_over`."""
        assert self._arena is not None
        return self._arena

    @property
    def listeners(self) -> Collection[str]:
        """The ids of the configured listeners, in order."""
        return [settings.id for settings in self.plan.config.listeners]

    def open(self, workers: int, members: int) -> None:
        """Bind the sockets, which do not listen yet, and make the shared memory.

        Args:
            workers: how many there are.
            members: how many processes may use it at a time.

        Raises:
            StartError: a socket cannot be bound.
            OSError: no descriptor or memory left.
        """
        self.sockets = self.plan.bind(workers)
        self._arena = self.plan.make_arena(members)
        self._relay_row = self._arena.add_row(SESSIONS)
        self._user_sessions = os.memfd_create("fastlisten-user-sessions", os.MFD_CLOEXEC)
        self._login_row = self._arena.add_row(shared_verifications(self._workers))

    def adopt(self, plan: Plan, sockets: list[BoundSocket]) -> None:
        """Use another plan and its sockets from now on."""
        self.plan, self.sockets = plan, sockets
        for worker in self._lost:
            close_queues(sockets, worker)

    def close_queues(self, worker: int) -> None:
        """Close the accept queues of a worker that is not started again."""
        self._lost.add(worker)
        close_queues(self.sockets, worker)

    def open_queues(self, worker: int) -> None:
        """Open the accept queues of a worker, which is ready, if they were closed."""
        self._lost.discard(worker)
        open_queues(self.sockets, worker)

    def close_listener(self, id: str) -> None:
        """Close the sockets of a listener here; nobody accepts once the workers drain it."""
        close_all([bound for bound in self.sockets if bound.listener == id])
        self.sockets = [bound for bound in self.sockets if bound.listener != id]

    def set_limit(self, listener: str, limit: int) -> int:
        """Set the limit of a listener for all workers; return the one before."""
        places = self.plan.places(self.arena, 0, listener)
        before, places.limit = places.limit, limit
        return before

    def settle(self) -> None:
        """Give back the reserves of listeners that are gone, if nobody holds them any more."""
        if self.plan.unsettled:
            self.plan.settle(self.arena)

    def close(self) -> None:
        """Close everything but the shared memory, which ends with its last process."""
        close_all(self.sockets)
        if self._user_sessions >= 0:
            os.close(self._user_sessions)

    def start_of(self, number: int, channel: Channel) -> WorkerStart:
        """Return what a worker needs, in its process, which has just been forked."""
        sockets = [bound for bound in self.sockets if bound.is_for(number)]
        for bound in self.sockets:
            bound.unlink = None  # their files are the supervisor's
            if not bound.is_for(number):
                bound.close()
        return WorkerStart(
            self.plan,
            number,
            sockets,
            self.arena,
            channel,
            self._relay_row,
            self._user_sessions,
            self._login_row,
            self._login_key,
            self._workers,
        )

    # -- an upgrade

    def state(self) -> dict[str, Any]:
        """Return what the new program of an upgrade needs to go on, as a JSON value."""
        binds = {one.id: one.bind for one in self.plan.config.listeners}
        return {
            "arena": [self.arena.fd, self.arena.wakeups],
            "rows": self.plan.rows_state(),
            "relay-row": self._relay_row,
            "relay-users": self._user_sessions,
            "login-row": self._login_row,
            "login-key": self._login_key.hex(),
            "sockets": [state_of(one, binds[one.listener]) for one in self.sockets],
            "lost": list(self._lost),
        }

    def descriptors(self) -> list[int]:
        """Return the descriptors in `state`."""
        sockets = [one.sock.fileno() for one in self.sockets]
        return [self.arena.fd, *self.arena.wakeups, self._user_sessions, *sockets]

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` has returned in a former program.

        Raises:
            UpgradeError: a socket is something else.
            OSError: a descriptor is.
        """
        fd, wakeups = state["arena"]
        for one in (fd, *wakeups, state["relay-users"]):
            os.set_inheritable(one, False)
        self._arena = Arena.attach(fd, wakeups)
        self.plan.take_rows(state["rows"], self._arena)
        self._relay_row = state["relay-row"]
        self._user_sessions = state["relay-users"]
        self._login_row = state["login-row"]
        self._login_key = bytes.fromhex(state["login-key"])
        listeners = {one.id: one for one in self.plan.config.listeners}
        self.sockets = [taken_over(one, listeners[one["listener"]]) for one in state["sockets"]]
        self._lost = set(state["lost"])
        # With the backlogs of the file as it is now.
        listen_all([bound for bound in self.sockets if bound.worker not in self._lost])
