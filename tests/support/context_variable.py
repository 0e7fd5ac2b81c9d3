"""A context variable that callbacks note and set, to see which of them share a context.

Rules of this file: as in support.world, where the notes go.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TypeVar

from support.world import Hook, Recorder, World

__all__ = ["setting", "setting_factory", "variable"]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

_World = TypeVar("_World", bound=World)


def noting(protocol: Recorder, *_: object) -> None:
    """Note the variable: a hook."""
    protocol.world.note("found", variable.get())


def setting(value: str) -> Hook:
    """Return a hook that notes the variable and then sets it."""

    def hook(protocol: Recorder, *_: object) -> None:
        noting(protocol)
        variable.set(value)

    return hook


def setting_factory(
    world: _World, kind: Callable[[_World, dict[str, Hook]], Recorder], who: str
) -> Callable[[], Recorder]:
    """Return a factory of protocols whose callbacks all note the variable.

    Args:
        world: where to note.
        kind: the class of protocol.
        who: the callback that also sets the variable, to its own name; or ``"factory"``.
    """

    def factory() -> Recorder:
        if who == "factory":
            variable.set(who)
        callbacks = ("connection_made", "data_received", "eof_received", "connection_lost")
        return kind(world, {name: setting(name) if name == who else noting for name in callbacks})

    return factory
