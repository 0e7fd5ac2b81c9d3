"""`Protocol`: the description of a protocol, separate from the code that speaks it.

A package that implements a protocol creates one object and registers it under the protocol's name
in the entry-point group `fastlisten.protocols`. It is all that the configuration knows about the
protocol.

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
    from fastlisten.handlers.class_description import ClassDescription

__all__ = ["Protocol"]


@dataclass(frozen=True, slots=True, eq=False)
class Protocol:
    """The description of one protocol.

    Make variants with `dataclasses.replace`: another name, another handler.

    Attributes:
        name: its name in `protocol = `, in lower case.
        handler: the class that speaks it, ``package.module:Class``; empty if there is none yet.
        port: the port of a bind without one, 0 if the protocol has no standard port.
        tls_port: the same with `tls.implicit`, 0 to use `port`.
        server_speaks_first: the server greets, and clients wait for it.
        starttls: whether a connection can switch to TLS within the protocol. True: it can, so a
            listener has a certificate unless it sets `tls.enable = false`. False: it cannot. None:
            unknown; a listener has a certificate if its settings ask for one.
        options: the options of its own table: ``relay`` is `smtp.relay` on a listener.
        listener_options: options of its listeners without the protocol's name as a prefix.
        defaults: defaults that differ for general keys, typed: ``{"timeout.idle": 1800.0}``.
        default_app: the application of a listener without `app`, ``package.module:function``; it
            is called with the handler's settings. Empty if the protocol has no applications.
        other_names: other names that people write for it, each with what to write instead.
        check: called once for each configuration; reports values that contradict each other.
        of_class: made from a handler's class variables, which may not say everything.
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
        """Return the port of a bind without one, 0 if there is no standard port."""
        return (implicit_tls and self.tls_port) or self.port

    def spoken_by(self, kind: type[Handler] | ClassDescription, handler: str) -> Protocol:
        """Return this protocol as spoken by a handler class.

        Class variables that differ from those of `Handler` take precedence over this object's
        values.

        Args:
            kind: the class, or what is known about it.
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
