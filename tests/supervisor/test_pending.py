"""Coroutines of a `Control` without an event loop: they run when what they wait for is known."""

from __future__ import annotations

import asyncio

import pytest

from fastlisten.runtime.supervisor.pending import Pending, run


async def double(pending: Pending[int]) -> int:
    return 2 * await pending


def test_coroutine_that_waits_for_nothing_is_done_at_once() -> None:
    known: Pending[int] = Pending()
    known.resolve(4)
    assert run(double(known)).result() == 8


def test_coroutine_goes_on_when_the_value_is_known() -> None:
    pending: Pending[int] = Pending()
    outcomes = [run(double(pending)) for _ in range(2)]
    assert not any(one.done for one in outcomes)
    with pytest.raises(RuntimeError, match="not known yet"):
        outcomes[0].result()
    pending.resolve(3)
    assert [one.result() for one in outcomes] == [6, 6]


def test_one_coroutine_waits_several_times() -> None:
    parts: list[Pending[int]] = [Pending() for _ in range(3)]

    async def total() -> int:
        return sum([await one for one in parts])

    outcome = run(total())
    for number in (2, 0, 1):
        assert not outcome.done
        parts[number].resolve(number)
    assert outcome.result() == 3


def test_error_is_raised_where_the_value_is_awaited() -> None:
    pending: Pending[int] = Pending()

    async def catch() -> str:
        try:
            return str(await pending)
        except LookupError as error:
            return f"caught {error}"

    outcomes = run(catch()), run(double(pending))
    pending.fail(LookupError("it"))
    assert outcomes[0].result() == "caught it"
    with pytest.raises(LookupError, match="it"):
        outcomes[1].result()


def test_value_is_known_only_once() -> None:
    pending: Pending[int] = Pending()
    pending.resolve(1)
    with pytest.raises(RuntimeError, match="known already"):
        pending.resolve(2)
    assert pending.result() == 1


def test_function_is_called_when_it_is_done() -> None:
    pending: Pending[int] = Pending()
    called = []
    pending.when_done(lambda: called.append("before"))
    assert called == []
    pending.resolve(1)
    pending.when_done(lambda: called.append("after"))
    assert called == ["before", "after"]


def test_what_needs_an_event_loop_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="without an event loop"):
        run(asyncio.sleep(0))
