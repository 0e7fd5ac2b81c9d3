"""`Option`, a row of the option table, shared by the configuration and by handlers.

Rules of this file: data only. It imports nothing of the package, so handlers can add rows without
importing the configuration, and the configuration can read them without importing an event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Option", "Origin", "Reload", "SocketOption"]

#: Where a value comes from.
Origin = Literal["default", "server", "listener"]

#: What a reload does with a changed value: it is used for new connections, it is used with a new
#: socket, or the old one stays in use until a restart.
Reload = Literal["live", "rebind", "restart"]


@dataclass(frozen=True, slots=True)
class SocketOption:
    """One setsockopt call.

    Attributes:
        family: the sockets it is for: ``inet``, ``inet6``, ``ip`` (both of these, set once),
            ``unix`` or ``any``. A dual-stack inet6 socket gets the options of inet and inet6.
        phase: ``bind`` (before bind), ``listen`` (after bind, before listen) or ``accepted``
            (per connection, because accepted sockets do not inherit it).
        level: level for setsockopt(2), such as ``socket.IPPROTO_TCP``.
        name: option number for setsockopt(2).
        symbol: its name in C, for errors, such as ``TCP_NODELAY``.
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
        key: dotted key within its table: ``socket.backlog``, ``tls.implicit``.
        kind: kind of value, a key of ``config/values/kinds.py``: ``boolean``, ``integer``,
            ``duration``, ``size``, ``string``, ...
        default: the typed value if the key is not set.
        text: one sentence of documentation.
        scopes: where it can be set: ``listener``, ``server`` (a default that listeners override),
            ``process`` (for the whole process, in ``[server]`` only).
        minimum: smallest allowed value, in the value's own unit, or None.
        maximum: largest allowed value, or None.
        choices: the allowed words, if the value is one of a set.
        unit: ``bytes``, ``seconds``, ``connections``, ..., for the documentation.
        reload: how a changed value takes effect.
        sockets: the setsockopt calls for it, empty for other options.
        available: False if this version parses the key but does not support it.
        inert: values without effect, which are accepted although the key is not available.
        extra: what else its kind needs: ``optional`` (`false` means not set), ``default-text``
            (describes a default that depends on the host), ``whole`` (whole seconds only),
            ``greets`` (only for protocols with a greeting), ``older`` (an older spelling).
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
