"""The control of a server with several workers, in a worker.

    RemoteControl     asks the supervisor, for handlers that manage the server
    WorkerControl     carries out what the supervisor requests, in this worker

Rules of this file: both are given the function that sends a message and the messages that arrive;
nothing here reads the channel. The supervisor is trusted. It may be stopped, though, or busy, and
then a worker goes on serving: requests to it end after a time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastlisten.log_events import log_fault
from fastlisten.runtime.control import Control, NoAnswerError
from fastlisten.runtime.listener import State
from fastlisten.runtime.local_control import LocalControl
from fastlisten.runtime.reports import ListenerReport, Readiness, ServerReport
from fastlisten.runtime.supervisor.channel import ChannelError
from fastlisten.runtime.supervisor.control_messages import (
    decode_error,
    decode_readiness,
    decode_reports,
    decode_server,
    encode_error,
    encode_reports,
)
from fastlisten.runtime.supervisor.supervisor_control import CHANGE_SECONDS, REPORT_SECONDS
from fastlisten.runtime.supervisor.worker_requests import ANSWER, REQUEST, Body
from fastlisten.runtime.worker import Worker

__all__ = ["RemoteControl", "WorkerControl"]

logger = logging.getLogger("fastlisten")

#: Sends a message to the supervisor: kind and body. Raises a `ChannelError` if that fails.
SendUp = Callable[[str, Mapping[str, Any]], None]

#: Seconds that the supervisor has besides those that it gives the workers.
_MARGIN = 2.0


class RemoteControl(Control):
    """Controls all workers of the server by asking the supervisor.

    Args:
        send: sends a message to the supervisor.
        local: the control of this worker, which answers for itself if the supervisor does not.
    """

    def __init__(self, send: SendUp, local: Control) -> None:
        self._send = send
        self._local = local
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    def receive(self, body: Body) -> None:
        """Take the body of a message of the kind ``control-answer``."""
        waiting = self._waiting.pop(body["id"], None)
        if waiting is None or waiting.done():
            return
        if "error" in body:
            waiting.set_exception(decode_error(body["error"]))
        else:
            waiting.set_result(body["result"])

    async def _ask(self, seconds: float, method: str, **arguments: object) -> Any:
        id = next(self._ids)
        answer = self._waiting[id] = asyncio.get_running_loop().create_future()
        try:
            self._send(REQUEST, {"id": id, "method": method, "arguments": arguments})
            async with asyncio.timeout(seconds + _MARGIN):
                return await answer
        except (ChannelError, TimeoutError):
            raise NoAnswerError("the supervisor does not answer") from None
        finally:
            self._waiting.pop(id, None)

    # -- asking

    async def readiness(self) -> Readiness:
        """Return whether clients can be sent to the server.

        A supervisor that does not answer is no reason to send them elsewhere: this worker accepts.
        """
        try:
            return decode_readiness(await self._ask(REPORT_SECONDS, "readiness"))
        except NoAnswerError:
            return await self._local.readiness()

    async def server(self) -> ServerReport:
        """Return the report on the server as a whole."""
        return decode_server(await self._ask(REPORT_SECONDS, "server"))

    async def reports(self) -> list[ListenerReport]:
        """Return a report on each listener, in order of id; not all are made at the same moment."""
        return decode_reports((await self._ask(REPORT_SECONDS, "reports"))["reports"])

    async def report(self, id: str) -> ListenerReport:
        """Return the report on one listener."""
        found = await self._ask(REPORT_SECONDS, "report", id=id)
        return decode_reports(found["reports"])[0]

    # -- doing

    async def pause(self, id: str, by: str) -> None:
        """Stop a listener from accepting until `resume`."""
        await self._ask(CHANGE_SECONDS, "pause", id=id, by=by)

    async def resume(self, id: str, by: str) -> None:
        """Let a listener accept again after `pause`."""
        await self._ask(CHANGE_SECONDS, "resume", id=id, by=by)

    async def drain(self, id: str, by: str) -> None:
        """Close a listener; only a restart opens it again."""
        await self._ask(CHANGE_SECONDS, "drain", id=id, by=by)

    async def set_limit(self, id: str, limit: int, by: str) -> None:
        """Change the `max-connections` of a listener until the next start."""
        await self._ask(CHANGE_SECONDS, "set_limit", id=id, limit=limit, by=by)


class WorkerControl:
    """Carries out in this worker what the supervisor requests.

    Args:
        send: sends a message to the supervisor.
        worker: of this process.

    Attributes:
        local: the control of this worker alone; it does not log changes, the supervisor does.
    """

    def __init__(self, send: SendUp, worker: Worker) -> None:
        self._send = send
        self._worker = worker
        self.local = LocalControl(worker, self._note)
        self._changed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self, body: Body) -> None:
        """Take the body of a message of the kind ``control-request``."""
        task = asyncio.get_running_loop().create_task(self._answer(body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def apply(self, changes: Body) -> None:
        """Bring the listeners into the state that they have in the other workers.

        Call it right after the worker has begun to accept, before the loop runs: a paused listener
        then accepts nobody.
        """
        for listener in self._worker.listeners:
            if listener.name in changes["drained"]:
                self._worker.drain_listener(listener)
            elif listener.name in changes["paused"]:
                listener.pause()
            elif listener.state is State.PAUSED:
                listener.resume()

    async def report(self) -> None:
        """Send what this worker has counted in the end, without having been asked."""
        await self._answer({"id": 0, "method": "reports", "arguments": {}})

    async def _answer(self, body: Body) -> None:
        answer: Body = {"id": body["id"]}
        try:
            answer["result"] = await self._carry_out(body["method"], body["arguments"])
        except Exception as error:
            answer["error"] = encode_error(error)
        try:
            self._send(ANSWER, answer)
        except ChannelError:
            # The supervisor does not read, and so does not wait for this either.
            pass
        except ValueError:
            log_fault(logger, "internal-error", "an answer to the supervisor is too long")

    async def _carry_out(self, method: str, arguments: Body) -> Body:
        local = self.local
        self._changed = False
        match method:
            case "reports":
                id = arguments.get("id")
                found = await local.reports() if id is None else [await local.report(id)]
                return {"reports": encode_reports(found), "all": id is None}
            case "apply":
                self.apply(arguments)
            case "pause":
                await local.pause(arguments["id"], arguments["by"])
            case "resume":
                await local.resume(arguments["id"], arguments["by"])
            case "drain":
                await local.drain(arguments["id"], arguments["by"])
            case _:
                raise NoAnswerError(f"the worker cannot {method}")
        return {"changed": True} if self._changed else {}

    def _note(self, change: str, id: str, by: str) -> None:
        self._changed = True
