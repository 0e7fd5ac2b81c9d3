"""Coroutines without an event loop, for the supervisor's poll loop.

`Control` has coroutines. In the supervisor they wait for nothing but answers of workers, which
arrive as messages; so all that is needed is an object to wait for, and a function that continues
the coroutine when it has its value.

Rules of this file: no I/O, no threads, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar, cast

__all__ = ["Pending", "run"]

T = TypeVar("T")


class Pending(Generic[T]):
    """A value, or an error, that will be known later; any number of coroutines may await it."""

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: Exception | None = None
        self._waiting: list[Callable[[], None]] = []

    def resolve(self, value: T) -> None:
        """Set the value; continues those who await it before it returns."""
        self._finish(value, None)

    def fail(self, error: Exception) -> None:
        """Set the error that is raised where the value is awaited."""
        self._finish(None, error)

    def _finish(self, value: T | None, error: Exception | None) -> None:
        if self.done:
            raise RuntimeError("the value is known already")
        self.done, self._value, self._error = True, value, error
        waiting, self._waiting = self._waiting, []
        for proceed in waiting:
            proceed()

    def result(self) -> T:
        """Return the value.

        Raises:
            Exception: the error.
        """
        if not self.done:
            raise RuntimeError("the value is not known yet")
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def when_done(self, call: Callable[[], None]) -> None:
        """Call a function when the value is known; at once if it is."""
        if self.done:
            call()
        else:
            self._waiting.append(call)

    def __await__(self) -> Generator[Pending[T], None, T]:
        if not self.done:
            yield self
        return self.result()


def run(coroutine: Coroutine[Any, Any, T]) -> Pending[T]:
    """Run a coroutine until it awaits a `Pending`, and from there whenever that is done.

    Returns:
        What the coroutine returns or raises.
    """
    outcome: Pending[T] = Pending()

    def proceed() -> None:
        try:
            awaited = coroutine.send(None)
        except StopIteration as stop:
            outcome.resolve(stop.value)
        except Exception as error:
            outcome.fail(error)
        else:
            if not isinstance(awaited, Pending):
                coroutine.close()
                raise TypeError(f"without an event loop {awaited!r} cannot be awaited")
            awaited.when_done(proceed)

    proceed()
    return outcome
