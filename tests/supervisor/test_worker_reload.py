"""A reload in a worker whose steps come too close together, or in the wrong order.

Rules of this file: the worker is not changed before it has prepared, so there is none.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from support.kernel import is_open
from support.loops import on_loops
from support.waiting import PATIENCE

from fastlisten.runtime.supervisor.channel import Message
from fastlisten.runtime.supervisor.reload_messages import (
    ABANDON,
    COMMIT,
    COMMITTED,
    PREPARE,
    SOCKETS,
    TAKEN,
    Answer,
)
from fastlisten.runtime.supervisor.worker_reload import WorkerReload


class NoWorker:
    """What is asked of a worker that is not changed."""

    stopping = False


@on_loops
async def test_messages_that_arrive_together() -> None:
    answers: list[Answer] = []
    worker: Any = NoWorker()
    reload = WorkerReload(worker, answers.append, lambda config: None)
    sockets = []
    for id in (1, 2):
        with socket.socket() as sock:
            sockets.append(sock.dup().detach())
        assert reload.receive(Message(SOCKETS, {"id": id}, (sockets[-1],)))
        assert reload.receive(Message(PREPARE, {"id": id}))
        if id == 1:
            assert reload.receive(Message(ABANDON, {"id": id}))
    await asyncio.wait_for(reload.close(), PATIENCE)
    assert not any(map(is_open, sockets))
    assert answers == [Answer(1, TAKEN), Answer(2, TAKEN)]


@on_loops
async def test_commit_of_what_is_not_prepared() -> None:
    answers: list[Answer] = []
    worker: Any = NoWorker()
    reload = WorkerReload(worker, answers.append, lambda config: None)
    assert reload.receive(Message(COMMIT, {"id": 1}))
    assert answers == [Answer(1, COMMITTED, ("it is not prepared",))]
    assert not reload.receive(Message("accept", {}))
    await reload.close()
