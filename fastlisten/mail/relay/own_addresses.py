"""Our ends of the open connections to relays: a client with such an address is this process.

Rules of this file: a set and three functions. They detect a relay that is this very server, which
would be a mail loop.
"""

from __future__ import annotations

__all__ = ["add_own_address", "is_own_address", "remove_own_address"]

# As servers see them: address and port.
_ends: set[tuple[str, int]] = set()


def is_own_address(peer: str, port: int) -> bool:
    """Return whether a client's address and port are our end of a connection to a relay."""
    return (peer, port) in _ends


def add_own_address(end: tuple[str, int]) -> None:
    """Add our end of a new connection."""
    _ends.add(end)


def remove_own_address(end: tuple[str, int]) -> None:
    """Remove our end of a closed connection."""
    _ends.discard(end)
