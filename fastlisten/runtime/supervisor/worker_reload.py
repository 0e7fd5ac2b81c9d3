"""A reload in a worker process: it prepares, commits or abandons as the supervisor says.

    new sockets ─> prepare ─> "prepared" ─> commit ─> "committed"
                      └─ it fails: its problems  └──> abandon     nothing has changed

Rules of this file: it opens no socket and reads no file with certificates or keys; all of that is
in the supervisor's messages. Whatever has been received and is not used is closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from fastlisten.config import Config
from fastlisten.errors import ConfigurationError
from fastlisten.log_events import log_fault
from fastlisten.runtime.listening_lines import listening_lines
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.reload.transition import Transition
from fastlisten.runtime.sockets.bound_socket import BoundSocket
from fastlisten.runtime.sockets.socket_calls import socket_calls
from fastlisten.runtime.supervisor.channel import Message
from fastlisten.runtime.supervisor.reload_messages import (
    ABANDON,
    COMMIT,
    COMMITTED,
    LOST,
    PREPARE,
    PREPARED,
    SOCKETS,
    TAKEN,
    Answer,
    Preparation,
    inode,
)
from fastlisten.runtime.tls.pem import replayed
from fastlisten.runtime.worker import StoppedError, Worker

__all__ = ["WorkerReload"]

logger = logging.getLogger("fastlisten")


class WorkerReload:
    """Takes this process's worker to another plan, any number of times.

    Args:
        worker: accepts.
        answer: sends an answer to the supervisor.
        applied: called with the configuration in use after each reload.
    """

    def __init__(
        self,
        worker: Worker,
        answer: Callable[[Answer], object],
        applied: Callable[[Config], object],
    ) -> None:
        self._worker = worker
        self._answer = answer
        self._applied = applied
        self._current: _Reload | None = None
        self._undone: set[asyncio.Task[None]] = set()
        # An abandoned reload may still read in its thread, and what it reads is per process.
        self._one_at_a_time = threading.Lock()

    def receive(self, message: Message) -> bool:
        """Take a message; return whether it is one of ours, and its descriptors are taken."""
        kind = message.kind
        if kind not in (SOCKETS, PREPARE, COMMIT, ABANDON):
            return False
        id = message.body["id"]
        if self._current is None or self._current.id != id:
            # The supervisor has one reload at a time.
            self._abandon()
            self._current = _Reload(id)
        if kind == SOCKETS:
            self._current.take(message.fds)
            self._answer(Answer(id, TAKEN))
        elif kind == PREPARE:
            # Not with what is undone later: that waits for this.
            before = tuple(self._undone)
            prepare = self._prepare(self._current, message.body, before)
            self._current.task = asyncio.get_running_loop().create_task(prepare)
        elif kind == COMMIT:
            one, self._current = self._current, None
            self._commit(one)
        else:
            self._abandon()
        return True

    def lost(self, why: str) -> None:
        """A message is lost: if a reload is being prepared, it may have been one of ours."""
        self._answer(Answer(LOST, TAKEN, (f"worker {self._worker.number}: {why}",)))

    async def close(self) -> None:
        """Abandon what has not been committed, and wait until that is undone."""
        self._abandon()
        if self._undone:
            await asyncio.wait(tuple(self._undone))

    def _abandon(self) -> None:
        one, self._current = self._current, None
        if one is not None:
            task = asyncio.get_running_loop().create_task(one.undo())
            self._undone.add(task)
            task.add_done_callback(self._undone.discard)

    # -- the two phases

    async def _prepare(
        self, one: _Reload, body: Mapping[str, Any], before: Collection[asyncio.Task[None]]
    ) -> None:
        worker = self._worker
        if before:
            await asyncio.wait(before)
        try:
            preparation, plan = await asyncio.to_thread(self._plan, body)
            sockets = self._sockets(one, preparation)
            transition = Transition(worker, plan, preparation.difference)
            await transition.prepare(sockets)
        except StoppedError:
            return  # the supervisor knows, or will be told
        except ConfigurationError as error:
            problems = tuple(map(str, error.problems))
        except Exception as error:
            log_fault(logger, "reload-failed", "cannot reload: %s", error, error=str(error))
            problems = (f"worker {worker.number}: {type(error).__name__}: {error}",)
        else:
            one.ready = (transition, plan, preparation)
            problems = ()
        self._answer(Answer(one.id, PREPARED, problems))

    def _plan(self, body: Mapping[str, Any]) -> tuple[Preparation, Plan]:
        """Return what the supervisor has sent, and the next plan. Blocks."""
        preparation = Preparation.decode(body)
        former = self._worker.plan
        with self._one_at_a_time, replayed(preparation.files):
            plan = Plan(preparation.difference.config, former)
        plan.share_rows(former, preparation.rows)
        return preparation, plan

    def _sockets(self, one: _Reload, preparation: Preparation) -> list[BoundSocket]:
        """Return all sockets of the next plan: those in use, and those that have been received."""
        listeners = self._worker.listeners
        here = {
            inode(bound.sock): bound
            for listener in listeners
            if not self._worker.is_drained(listener.name)
            for bound in listener.sockets
        }
        settings = {each.id: each for each in preparation.difference.config.listeners}
        found = []
        for id, place, number, alone in preparation.sockets:
            own = settings[id]
            former = here.get(number)
            sock = one.received.get(number) if former is None else former.sock
            if sock is None:
                if self._worker.is_drained(id):
                    continue  # a moment ago
                raise RuntimeError(f'a socket of listener "{id}" is missing')
            accepted = socket_calls(own, sock).batch
            if former is not None and former.accepted.entries == accepted.entries:
                accepted = former.accepted
            bind, worker = own.bind[place], self._worker.number if alone else None
            backlog = own["socket.backlog"]
            found.append(BoundSocket(id, bind, sock, backlog, accepted, worker=worker))
        return found

    def _commit(self, one: _Reload) -> None:
        worker = self._worker
        if worker.stopping:
            self._current = one
            self._abandon()
            self._answer(Answer(one.id, COMMITTED, ("it drains",)))
            return
        try:
            if one.ready is None:
                raise RuntimeError("it is not prepared")
            transition, plan, preparation = one.ready
            transition.commit()
            plan.certificates.commit()
        except Exception as error:
            # The supervisor replaces this process.
            log_fault(logger, "reload-failed", "cannot reload: %s", error, error=str(error))
            self._answer(Answer(one.id, COMMITTED, (str(error),)))
            return
        one.close({bound.sock for listener in worker.listeners for bound in listener.sockets})
        config = plan.config
        self._applied(config)
        worker.log_connections()
        code = tuple(worker.code.changed(config.listeners))
        worker.code.remember(config.listeners)
        lines = tuple(listening_lines(worker, set(preparation.difference.added)))
        self._answer(Answer(one.id, COMMITTED, (), code, lines))


class _Reload:
    """One reload.

    Attributes:
        id: as the supervisor calls it.
        received: new sockets, by inode.
        task: makes and starts handlers.
        ready: what is to be committed.
    """

    def __init__(self, id: int) -> None:
        self.id = id
        self.received: dict[int, socket.socket] = {}
        self.task: asyncio.Task[None] | None = None
        self.ready: tuple[Transition, Plan, Preparation] | None = None

    def take(self, fds: Sequence[int]) -> None:
        """Take new sockets, which listen."""
        for fd in fds:
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            self.received[inode(sock)] = sock

    def close(self, used: set[socket.socket]) -> None:
        """Close the sockets that are not used."""
        for sock in self.received.values():
            if sock not in used:
                sock.close()

    async def undo(self) -> None:
        """Stop handlers that were started, and close the sockets."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait((self.task,))
        if self.ready is not None:
            await self.ready[0].abandon()
        self.close(set())
