"""The protocol of the control socket, without I/O: lines of JSON, requests, answers.

Rules of this file: no sockets and no event loop, so that any loop can serve it. Whatever a client
sends has a bound, and ends in an answer. Only the server's user and root can connect, so there is
no token.

    command                  needs         answers with
    status                                 server, listeners
    reload                                 reload
    restart                                restart
    upgrade                                upgrade
    pause, resume, drain     id
    limit                    id, limit

Any request may have `config`, the absolute path of a configuration file; a server that was started
with another file refuses it. `ok` says whether the request was carried out. If not, `error` is one
word for programs (`ERRORS`) and `message` is for people.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastlisten.config.notation import quote
from fastlisten.config.suggest import likely
from fastlisten.errors import FastlistenError
from fastlisten.runtime.control import (
    Control,
    ImpossibleError,
    NoAnswerError,
    UnfinishedError,
    UnknownListenerError,
)
from fastlisten.runtime.report_json import listener_json
from fastlisten.runtime.reports import ListenerReport, ServerReport

__all__ = [
    "COMMANDS",
    "ERRORS",
    "FORMAT",
    "MAX_REQUEST",
    "Reload",
    "Request",
    "RequestError",
    "RequestLines",
    "Restart",
    "ServedProcess",
    "Upgrade",
    "answer",
    "failure",
    "read_request",
    "success",
]

#: The version of the answer to `status`; raised when a key changes its meaning or goes.
FORMAT = 1

#: The most bytes of a request; an id, the longest part of one, has a few dozen.
MAX_REQUEST = 64 * 1024

#: What each command needs besides its name.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "status": (),
    "reload": (),
    "restart": (),
    "upgrade": (),
    "pause": ("id",),
    "resume": ("id",),
    "drain": ("id",),
    "limit": ("id", "limit"),
}

#: The values of `error`, with their meanings.
ERRORS: Mapping[str, str] = {
    "bad-request": "the line is not a request",
    "unknown-listener": "no listener has this id",
    "impossible": "the state of the listener, or the kind of server, does not allow it",
    "bad-limit": "the limit is out of range",
    "wrong-server": "this server was started with another configuration file",
    "unfinished": "some workers have not made the change in time; the others have",
    "no-answer": "no worker answers",
    "not-upgraded": "the new program cannot take over; nothing has changed",
    "busy": "there are too many clients",
    "failed": "something went wrong; the server's log says more",
}

#: Listeners in a piece of an answer, about 64 KiB: what is encoded before others get their turn.
_BATCH = 100

#: Listeners to name in an error if there are no more.
_MAX_NAMED = 8

#: Replaces all workers. Takes who requested it; returns the value of `restart`.
Restart = Callable[[str], Awaitable[Mapping[str, object]]]

#: Replaces the program and all workers. Takes who requested it; it returns nothing, but raises
#: `RequestError`: the new program sends the answer.
Upgrade = Callable[[str], Awaitable[None]]

#: Reads the configuration again. Takes who requested it; returns the value of `reload`.
Reload = Callable[[str], Awaitable[Mapping[str, object]]]


class RequestError(FastlistenError):
    """A request cannot be carried out.

    Attributes:
        error: a key of `ERRORS`.
    """

    def __init__(self, error: str, message: str) -> None:
        self.error = error
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Request:
    """A valid request.

    Attributes:
        command: a key of `COMMANDS`.
        id: of a listener, empty if the command takes none.
        limit: as given; the range is checked when it is carried out.
        config: the file with which the server must have been started, empty for any.
    """

    command: str
    id: str = ""
    limit: int = 0
    config: str = ""


@dataclass(frozen=True, slots=True)
class ServedProcess:
    """The server that answers.

    Attributes:
        control: controls it.
        reload: a coroutine function that reads the configuration again. It takes who requested
            that, and returns a JSON object with at least `succeeded`.
        pid: the process that signals go to.
        config: the absolute path of its configuration file, empty for the embedded default.
        restart: a coroutine function that replaces all workers. It takes who requested that, and
            returns a JSON object with at least `succeeded`. None for a server in one process.
        upgrade: a coroutine function that replaces the program and all workers, and raises
            `RequestError`. None for a server in one process.
    """

    control: Control
    reload: Reload
    pid: int
    config: str = ""
    restart: Restart | None = None
    upgrade: Upgrade | None = None


class RequestLines:
    """Splits what a client sends into lines.

    `feed` as long as `next` returns None: no more than `MAX_REQUEST` and one read is kept.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Add what has been received."""
        self._data += data

    @property
    def rest(self) -> bytes:
        """What has been received and not returned."""
        return bytes(self._data)

    def next(self) -> bytes | None:
        """Return the next line without its end, None if it is not complete.

        Raises:
            RequestError: it is too long. The end of the line is unknown, so the connection has to
                be closed.
        """
        end = self._data.find(b"\n", self._searched)
        if (end if end >= 0 else len(self._data)) > MAX_REQUEST:
            raise RequestError("bad-request", f"a request has at most {MAX_REQUEST} bytes")
        if end < 0:
            self._searched = len(self._data)
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        self._searched = 0
        return line


def read_request(line: bytes) -> Request:
    """Parse a line.

    Raises:
        RequestError: it is not a request.
    """
    try:
        given = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise RequestError("bad-request", "a request is a JSON object on one line") from None
    if not isinstance(given, dict):
        raise RequestError("bad-request", "a request is a JSON object on one line")
    command = given.get("command")
    if not isinstance(command, str) or command not in COMMANDS:
        raise RequestError("bad-request", f"command must be one of {', '.join(COMMANDS)}")
    needed = COMMANDS[command]
    if surplus := given.keys() - {"command", "config", *needed}:
        raise RequestError("bad-request", f"{command} does not take {quote(min(surplus)[:40])}")
    for name in ("id", "config"):
        if not isinstance(given.get(name, ""), str):
            raise RequestError("bad-request", f"{name} must be a text")
    for name in needed:
        if name not in given:
            raise RequestError("bad-request", f"{command} needs {name}")
    limit = given.get("limit", 0)
    if type(limit) is not int:
        raise RequestError("bad-request", "limit must be an integer")
    return Request(command, given.get("id", ""), limit, given.get("config", ""))


async def answer(server: ServedProcess, line: bytes, by: str) -> Iterable[bytes]:
    """Carry out a request.

    Args:
        server: the server.
        line: the request.
        by: who sent it, for the log.

    Returns:
        The answer in pieces, the last of which ends with a newline. They are made one by one as
        they are taken: with thousands of listeners all of them are several megabytes.
    """
    try:
        request = read_request(line)
        _check_config(server, request)
        return await _carry_out(server, request, by)
    except RequestError as error:
        return (failure(error),)
    except ImpossibleError as error:
        return (failure(RequestError("impossible", str(error))),)
    except UnfinishedError as error:
        return (failure(RequestError("unfinished", str(error))),)
    except NoAnswerError as error:
        return (failure(RequestError("no-answer", str(error))),)
    except UnknownListenerError as error:
        ids = [report.id for report in await server.control.reports()]
        return (failure(RequestError("unknown-listener", _unknown(error.id, ids))),)


def failure(error: RequestError) -> bytes:
    """Return the answer to a request that has failed."""
    return _line({"ok": False, "error": error.error, "message": str(error)})


def success(**values: object) -> bytes:
    """Return the answer to a request that was carried out."""
    return _line({"ok": True, **values})


async def _carry_out(server: ServedProcess, request: Request, by: str) -> Iterable[bytes]:
    control = server.control
    if request.command == "status":
        reports = await control.reports()
        # Afterwards it is known which workers do not answer.
        return _status(server, await control.server(), reports)
    if request.command == "reload":
        return (success(reload=await server.reload(by)),)
    if request.command == "restart":
        if server.restart is None:
            text = "this server is one process, which cannot be replaced while it serves"
            raise RequestError("impossible", f"{text}; it needs server.workers")
        return (success(restart=await server.restart(by)),)
    if request.command == "upgrade":
        if server.upgrade is None:
            text = "this server is one process, which cannot be replaced while it serves"
            how = "stop and start it; with server.workers = 2 or more it could be upgraded"
            raise RequestError("impossible", f"{text}: {how}")
        await server.upgrade(by)
    if request.command == "limit":
        try:
            await control.set_limit(request.id, request.limit, by)
        except ValueError as error:
            raise RequestError("bad-limit", str(error)) from None
    elif request.command in ("pause", "resume", "drain"):
        change = {"pause": control.pause, "resume": control.resume, "drain": control.drain}
        await change[request.command](request.id, by)
    return (success(),)


def _check_config(server: ServedProcess, request: Request) -> None:
    if request.config and request.config != server.config:
        serves = quote(server.config) if server.config else "the embedded default"
        raise RequestError("wrong-server", f"this server was started with {serves}")


def _unknown(id: str, ids: Sequence[str]) -> str:
    """Return the message about an unknown listener, with the one that was probably meant."""
    text = f"there is no listener {quote(id)}"
    if meant := likely(id, tuple(ids)):
        return f"{text}; did you mean {quote(meant)}?"
    if len(ids) <= _MAX_NAMED:
        return f"{text}; there are {', '.join(map(quote, ids))}" if ids else text
    return text


def _status(
    server: ServedProcess, whole: ServerReport, reports: Sequence[ListenerReport]
) -> Iterator[bytes]:
    head = {
        "ok": True,
        "format": FORMAT,
        "server": {
            "pid": server.pid,
            "config": server.config or None,
            "workers": [
                {
                    "number": number,
                    "restarts": restarts,
                    "responding": number not in whole.stale,
                }
                for number, restarts in whole.worker_restarts.items()
            ],
            "reload-succeeded": whole.reload_succeeded,
            "certificate-expiry": whole.certificate_expiry,
        },
    }
    yield json.dumps(head)[:-1].encode() + b', "listeners": ['
    for start in range(0, len(reports), _BATCH):
        batch = (json.dumps(_listener(one)) for one in reports[start : start + _BATCH])
        yield (", " if start else "").encode() + ", ".join(batch).encode()
    yield b"]}\n"


def _listener(report: ListenerReport) -> dict[str, Any]:
    workers = [
        {
            "number": number,
            "connections": counters.connections,
            "accepted": counters.accepted,
            "refused": dict(counters.refused),
        }
        for number, counters in report.workers.items()
    ]
    return {**listener_json(report), "workers": workers}


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"
