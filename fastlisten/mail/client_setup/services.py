"""A service that users' mail programs connect to.

Rules of this file: data only. Which services there are is found out in runtime/client_services.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["ClientService", "best"]


@dataclass(frozen=True, slots=True, order=True)
class ClientService:
    """One service.

    Attributes:
        kind: ``imap`` or ``submission``.
        implicit: TLS begins with the first byte; else by STARTTLS.
        host: the server's name.
        port: a TCP port.
    """

    kind: Literal["imap", "submission"]
    implicit: bool
    host: str
    port: int


def best(services: Iterable[ClientService], kind: str) -> Sequence[ClientService]:
    """Return the services of a kind, the best first.

    Implicit TLS comes before STARTTLS (RFC 8314 3), usual ports before others, which clients and
    networks may refuse.
    """
    usual = {("imap", True, 993), ("imap", False, 143)}
    usual |= {("submission", True, 465), ("submission", False, 587)}

    def rank(one: ClientService) -> tuple[bool, bool, int]:
        return not one.implicit, (one.kind, one.implicit, one.port) not in usual, one.port

    return sorted({one for one in services if one.kind == kind}, key=rank)
