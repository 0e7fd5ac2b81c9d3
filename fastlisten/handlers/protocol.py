"""What a protocol is, apart from the code that speaks it: `Protocol`, one object for each.

A package that speaks a protocol makes one and registers it under the protocol's name in the entry
points `fastlisten.protocols`. The configuration reads it and knows nothing else of the protocol.

Rules of this file, and of the modules that make these objects (`settings.py` in each package): no
event loop, no native module and no handler is imported, because reading a configuration imports
all of them. Handlers are named by text and imported when a listener is about to be served.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastlisten.option import Option

if TYPE_CHECKING:
    from fastlisten.handlers.base import Handler
    from fastlisten.handlers.check_interface import CheckedProtocol

__all__ = ["Protocol"]


@dataclass(frozen=True, slots=True, eq=False)
class Protocol:
    """One protocol.

    A variant of a protocol is made by `dataclasses.replace`: another name, another handler.

    Attributes:
        name: the word for it in `protocol = `, in lower case.
        handler: the class that speaks it, as ``package.module:Class``; empty while nothing does.
        port: the port of a bind that names none, 0 if the protocol has no standard port.
        tls_port: the same with `tls.implicit`, 0 to use `port` for that too.
        server_speaks_first: the server greets and clients wait for it.
        starttls: whether a connection can go over to TLS within the protocol. True: it can, so
            that a listener has a certificate unless it says `tls.enable = false`. False: it cannot.
            None: not known; the listener has a certificate if its settings ask for one.
        options: the rows of its own table: ``relay`` is `smtp.relay` on a listener.
        listener_options: rows for its listeners alone that stand among those of every listener.
        defaults: defaults of general keys that differ: ``{"timeout.idle": 1800.0}``, typed.
        default_app: what serves a listener that names no `app`: ``package.module:function``, which
            is called with the handler's settings. Empty where applications are no part of it.
        other_names: words that people write for it, each with what to write instead.
        check: called once for each configuration; reports values that contradict each other.
        of_class: made of a handler's class variables, which may leave unsaid what is so.
    """

    name: str
    handler: str = ""
    port: int = 0
    tls_port: int = 0
    server_speaks_first: bool = False
    starttls: bool | None = None
    options: tuple[Option, ...] = ()
    listener_options: tuple[Option, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    default_app: str = ""
    other_names: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[CheckedProtocol], None] | None = None
    of_class: bool = False

    def standard_port(self, implicit_tls: bool) -> int:
        """Return the port of a bind that names none, 0 if there is no such port."""
        return (implicit_tls and self.tls_port) or self.port

    def spoken_by(self, kind: type[Handler], handler: str) -> Protocol:
        """Return this protocol as a class speaks it.

        What the class's variables say goes before what is said here; what they leave at the values
        of `Handler` stays as it is.

        Args:
            kind: the class.
            handler: its name, ``package.module:Class``.
        """
        own = {option.key: option for option in (*self.options, *kind.options)}
        return dataclasses.replace(
            self,
            handler=handler,
            port=kind.default_port or self.port,
            tls_port=kind.default_tls_port or self.tls_port,
            server_speaks_first=kind.server_speaks_first or self.server_speaks_first,
            starttls=kind.starttls or self.starttls,
            options=tuple(own.values()),
        )
