"""The messages of a reload: what the supervisor gives each worker, and what workers answer.

    supervisor  reload-sockets  {"id": 3}, new sockets as descriptors, any number of times
    supervisor  reload-prepare  {"id": 3, ...}      make and start new handlers; see `Preparation`
    supervisor  reload-commit   {"id": 3}           use the new configuration from now on
    supervisor  reload-abandon  {"id": 3}           forget it
    worker      reload-answer   {"id": 3, "step": "sockets" | "prepared" | "committed", ...}

A worker that cannot receive a message answers with the id 0 and its problem.

Each message but ``reload-abandon`` is answered before the next one is sent: a channel takes only a
few messages, and the kernel limits how many descriptors may be on their way.

A worker gets the configuration as the supervisor has read and checked it. It could not load it
itself: files with secrets may be readable for the supervisor only, and the result depends on the
process. The configuration is pickled, in this direction only. A worker trusts the supervisor; what
a worker sends is never unpickled, but JSON and checked.

Rules of this file: no I/O but the look at a descriptor's number.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import pickle
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from fastlisten.handlers.protocol import Protocol
from fastlisten.runtime.reload.difference import Difference
from fastlisten.runtime.sockets.bound_socket import BoundSocket
from fastlisten.runtime.sockets.reopening import Reopened
from fastlisten.runtime.supervisor.channel import MAX_DESCRIPTORS, BadMessageError
from fastlisten.runtime.supervisor.control_messages import Line, lines_in
from fastlisten.runtime.tls.pem import FileRead

__all__ = [
    "ABANDON",
    "ANSWER",
    "COMMIT",
    "COMMITTED",
    "LOST",
    "PREPARE",
    "PREPARED",
    "SOCKETS",
    "TAKEN",
    "Answer",
    "Outgoing",
    "Preparation",
    "inode",
    "messages",
]

SOCKETS: Final = "reload-sockets"
PREPARE: Final = "reload-prepare"
COMMIT: Final = "reload-commit"
ABANDON: Final = "reload-abandon"
ANSWER: Final = "reload-answer"

#: The id in an answer to a message that could not be received, because the worker has no descriptor
#: left. Reloads have greater ones.
LOST: Final = 0

#: The steps in answers.
TAKEN: Final = "sockets"
PREPARED: Final = "prepared"
COMMITTED: Final = "committed"

#: The most problems or modules of an answer; a worker that has been taken over cannot fill the log.
_MAX_TEXTS = 1000

#: A message to a worker: kind, body, descriptors.
Outgoing = tuple[str, dict[str, Any], Sequence[int]]


def inode(sock: socket.socket) -> int:
    """Return what identifies a socket in every process that has a descriptor of it."""
    return os.fstat(sock.fileno()).st_ino


# --- to a worker ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a worker needs besides new sockets.

    Attributes:
        difference: between the configurations, with the new one.
        files: certificates and client CAs as the supervisor has read them, by path.
        rows: the rows of listeners in the arena, by id.
        sockets: all sockets of the new plan on which the worker accepts: id of the listener, number
            of the bind, inode, whether no other worker accepts on it.
    """

    difference: Difference
    files: Mapping[str, FileRead]
    rows: Mapping[str, Sequence[int]]
    sockets: Sequence[tuple[str, int, int, bool]]

    @classmethod
    def of(
        cls,
        difference: Difference,
        files: Mapping[str, FileRead],
        rows: Mapping[str, Sequence[int]],
        sockets: Iterable[BoundSocket],
    ) -> Preparation:
        """Return it for sockets as the supervisor has them."""
        binds = {one.id: one.bind for one in difference.config.listeners}
        keys = {id: [bind.key for bind in own] for id, own in binds.items()}
        places = [
            (
                bound.listener,
                keys[bound.listener].index(bound.bind.key),
                inode(bound.sock),
                bound.worker is not None,
            )
            for bound in sockets
        ]
        return cls(difference, files, rows, places)

    def encode(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {
            "difference": base64.b64encode(_pickled(self.difference)).decode(),
            "files": {path: dataclasses.asdict(read) for path, read in self.files.items()},
            "rows": {id: list(numbers) for id, numbers in self.rows.items()},
            "sockets": [list(one) for one in self.sockets],
        }

    @classmethod
    def decode(cls, body: Mapping[str, Any]) -> Preparation:
        """Return what the supervisor has encoded."""
        # From the supervisor, which has at least the rights of this process.
        difference = pickle.loads(base64.b64decode(body["difference"]))  # noqa: S301
        return cls(
            difference,
            {path: FileRead(**read) for path, read in body["files"].items()},
            body["rows"],
            [(id, place, number, own) for id, place, number, own in body["sockets"]],
        )


def messages(
    id: int, preparation: Preparation, sockets: Reopened, workers: Mapping[int, int]
) -> dict[int, list[Outgoing]]:
    """Return the messages that prepare each worker, by its key, in order.

    Args:
        id: of the reload.
        preparation: with all sockets, those of other workers too.
        sockets: the same ones.
        workers: their numbers, by key.
    """
    body = {"id": id, **preparation.encode()}
    found: dict[int, list[Outgoing]] = {}
    for key, worker in workers.items():
        opened = [bound.sock.fileno() for bound in sockets.opened if bound.is_for(worker)]
        used = [
            place
            for place, bound in zip(body["sockets"], sockets.sockets, strict=True)
            if bound.is_for(worker)
        ]
        found[key] = [
            (SOCKETS, {"id": id}, opened[start : start + MAX_DESCRIPTORS])
            for start in range(0, len(opened), MAX_DESCRIPTORS)
        ]
        found[key].append((PREPARE, {**body, "sockets": used}, ()))
    return found


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is MappingProxyType:
            return _mapping, (dict(value),)
        if type(value) is Protocol:
            # Its check is not needed any more, and may be a function that cannot be pickled.
            fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
            return _protocol, (fields | {"check": None},)
        return NotImplemented


def _pickled(value: Difference) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


def _mapping(values: dict[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(values)


def _protocol(fields: dict[str, Any]) -> Protocol:
    return Protocol(**fields)


# --- from a worker --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker has answered.

    Attributes:
        id: of the reload.
        step: what it has done.
        problems: why it has not; then nothing has changed in it.
        code: modules whose files have changed since it loaded them.
        lines: about its new listeners.
    """

    id: int
    step: str
    problems: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()

    def encode(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return dataclasses.asdict(self)

    @classmethod
    def decode(cls, body: Mapping[str, Any]) -> Answer:
        """Return what a worker has sent.

        Raises:
            BadMessageError: no worker would send that.
        """
        id, step = body.get("id"), body.get("step")
        if type(id) is not int or step not in (TAKEN, PREPARED, COMMITTED):
            raise BadMessageError("an answer to no step of a reload")
        problems, code = _texts(body.get("problems")), _texts(body.get("code"))
        return cls(id, step, problems, code, tuple(lines_in(body.get("lines"))))


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadMessageError("an answer to a reload without its texts")
    return tuple(value[:_MAX_TEXTS])
