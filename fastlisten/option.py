"""What a row of the option table is: the shape shared by the configuration and by handlers.

Rules of this file: data shapes only. It imports nothing of the package, so that a handler can
contribute rows without importing the configuration, and the configuration can read a handler's
rows without importing a loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Option", "Origin", "Reload", "SocketOption"]

#: Where a resolved value came from.
Origin = Literal["default", "server", "listener"]

#: What a reload does with a changed value: applied to the running listener, needs a new socket,
#: or needs a new process.
Reload = Literal["live", "rebind", "restart"]


@dataclass(frozen=True, slots=True)
class SocketOption:
    """One setsockopt call.

    Attributes:
        family: ``inet``, ``inet6``, ``ip`` (both of these, set once), ``unix`` or ``any``: the
            sockets it is for. A dual-stack inet6 socket takes the rows of both inet and inet6.
        phase: ``bind`` (before bind), ``listen`` (after bind, before listen) or ``accepted``
            (per connection, because the kernel does not inherit it).
        level: level number for setsockopt(2), e.g. ``socket.IPPROTO_TCP``.
        name: option number for setsockopt(2).
        symbol: its name in C, for errors, e.g. ``TCP_NODELAY``.
    """

    family: Literal["inet", "inet6", "ip", "unix", "any"]
    phase: Literal["bind", "listen", "accepted"]
    level: int
    name: int
    symbol: str


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the option table.

    Attributes:
        key: dotted path relative to the place it stands in: ``socket.backlog``, ``tls.implicit``.
        kind: name of the value grammar in ``config/values/kinds.py`` (``boolean``, ``integer``,
            ``duration``, ``size``, ``string``, ...).
        default: the typed value that holds when nobody wrote one.
        text: one sentence of documentation.
        scopes: the places where it may stand: ``listener``, ``server`` (a default that listeners
            override), ``process`` (a property of the whole process, in ``[server]`` only).
        minimum: smallest allowed value, in the value's own unit, or None.
        maximum: largest allowed value, or None.
        choices: the allowed words, where the value is one of a set.
        unit: ``bytes``, ``seconds``, ``connections``, ... for the documentation.
        reload: what a reload does with it.
        sockets: the setsockopt calls that carry it out, empty for other options.
        available: False while this version parses the key but cannot carry it out yet.
        inert: values that ask for nothing, so that an unavailable key set to one is no obstacle.
        extra: anything else a value grammar needs: ``optional`` (`false` means not set),
            ``default-text`` (what the documentation says of a default that the host decides),
            ``whole`` (whole seconds only), ``greets`` (only listeners that greet have it),
            ``older`` (an older spelling that means the same).
    """

    key: str
    kind: str
    default: Any
    text: str
    scopes: tuple[Literal["listener", "server", "process"], ...] = ("listener", "server")
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    reload: Reload = "live"
    sockets: tuple[SocketOption, ...] = ()
    available: bool = True
    inert: tuple[Any, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
