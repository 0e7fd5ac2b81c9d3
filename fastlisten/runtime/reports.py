"""Reports on a running server: snapshots that can be sent to other processes.

Rules of this file: data only. A listener's counters are kept per worker; they are added up here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from fastlisten.mail.counts import Counts
from fastlisten.runtime.listener import Listener, State

__all__ = ["Counters", "ListenerReport", "Readiness", "ServerReport"]

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters of one listener since the start.

    Attributes:
        connections: open connections now, from accept to close.
        accepted: connections accepted.
        refused: connections refused, by reason: ``limit``, ``total``, ``overload``.
        accept_errors: failures of accept(2), by errno; 0 counts all others.
        handshake_failures: failed TLS handshakes.
        timed_out: connections closed because the client was silent.
        mail: counters of mail, None if the handler has none.
    """

    connections: int
    accepted: int
    refused: Mapping[str, int]
    accept_errors: Mapping[int, int]
    handshake_failures: int
    timed_out: int
    mail: Counts | None

    @classmethod
    def of(cls, listener: Listener) -> Counters:
        """Return the counters of a listener in this process."""
        counted = listener.statistics()
        mail = listener.handler.counts
        return cls(
            connections=listener.connections,
            accepted=counted.get("accepted", 0),
            refused={
                "limit": counted.get("refused_limit", 0),
                "total": counted.get("refused_total", 0),
                "overload": counted.get("refused_overload", 0),
            },
            accept_errors=listener.accept_errors(),
            handshake_failures=counted.get("handshake_failures", 0),
            timed_out=counted.get("timed_out", 0),
            mail=None if mail is None else mail.copy(),
        )

    @classmethod
    def sum(cls, parts: Iterable[Counters]) -> Counters:
        """Return the sum of the counters of several workers."""
        parts = tuple(parts)
        if len(parts) == 1:
            return parts[0]
        mail = [one.mail for one in parts if one.mail is not None]
        return cls(
            connections=sum(one.connections for one in parts),
            accepted=sum(one.accepted for one in parts),
            refused=_sum(one.refused for one in parts),
            accept_errors=_sum(one.accept_errors for one in parts),
            handshake_failures=sum(one.handshake_failures for one in parts),
            timed_out=sum(one.timed_out for one in parts),
            mail=Counts.sum(mail) if mail else None,
        )


@dataclass(frozen=True, slots=True)
class ListenerReport:
    """A snapshot of a listener.

    Attributes:
        id: its id in the configuration.
        protocol: in lower case.
        state: its state.
        accepting: every address accepts, or would if the limit were not reached.
        addresses: the bound addresses, with the port that the kernel chose: ``127.0.0.1:25``,
            ``[::]:25``, ``unix:/run/lmtp``; kept after it is closed.
        held: places taken under the limit, by all workers.
        limit: the current `max-connections`.
        limit_action: ``refuse`` or ``wait``.
        workers: the counters of each worker, by its number.
        stale: numbers of the workers that did not report in time. Their counters, if there are
            any, are the last ones known.
    """

    id: str
    protocol: str
    state: State
    accepting: bool
    addresses: tuple[str, ...]
    held: int
    limit: int
    limit_action: Literal["refuse", "wait"]
    workers: Mapping[int, Counters]
    stale: tuple[int, ...] = ()

    @property
    def total(self) -> Counters:
        """The sum of all workers' counters."""
        return Counters.sum(self.workers.values())


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether clients can be sent to the server.

    A listener that was paused or drained on request makes the server unready, too.

    Attributes:
        ready: the server has started, and every listener accepts, or would if its limit were not
            reached.
        not_accepting: id and state of the listeners that don't.
    """

    ready: bool
    not_accepting: tuple[tuple[str, State], ...] = ()


@dataclass(frozen=True, slots=True)
class ServerReport:
    """A snapshot of what concerns the server as a whole.

    Attributes:
        worker_restarts: how often each worker, by number, ended unexpectedly and was replaced.
        reload_succeeded: false if the last reload read something that could not be used; true
            before the first.
        certificate_expiry: when certificates expire, in Unix time, by listener and certificate;
            the self-signed certificate has the empty name.
        stale: numbers of the workers that did not answer when they were last asked, or whose event
            loop does not turn.
    """

    worker_restarts: Mapping[int, int]
    reload_succeeded: bool
    certificate_expiry: Mapping[str, Mapping[str, float]]
    stale: tuple[int, ...] = ()


def _sum(parts: Iterable[Mapping[_Key, int]]) -> dict[_Key, int]:
    total: dict[_Key, int] = {}
    for part in parts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    return total
