"""Our ends of the open connections to relays: a client with such an address is this process.

Rules of this file: a set and its three functions. A relay that is this very server must not send
its mail round and round.
"""

from __future__ import annotations

__all__ = ["add_own", "is_ours", "remove_own"]

# As servers see them: address and port.
_ends: set[tuple[str, int]] = set()


def is_ours(peer: str, port: int) -> bool:
    """Whether a client's address and port are those of a connection that this process has made."""
    return (peer, port) in _ends


def add_own(end: tuple[str, int]) -> None:
    """Note our end of a connection that has been made."""
    _ends.add(end)


def remove_own(end: tuple[str, int]) -> None:
    """Forget our end of a connection that is lost."""
    _ends.discard(end)
