"""Penalties of addresses: who waits how long, in virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loops import run_virtually

from fastlisten.mail.logins import penalties
from fastlisten.mail.logins.penalties import FORGOTTEN, FREE, LoginsBusyError, Penalties, source_of

HERE, THERE = "192.0.2.1", "192.0.2.2"


def now() -> float:
    return asyncio.get_running_loop().time()


def table() -> Penalties:
    return Penalties(asyncio.get_running_loop().time)


async def fail(those: Penalties, mistake: bytes, address: str = HERE) -> float:
    """Fail once; return how long that had to wait."""
    began = now()
    source = await those.enter(address)
    waited = now() - began
    those.leave(source, mistake)
    return waited


async def succeed(those: Penalties, address: str = HERE) -> float:
    began = now()
    those.leave(await those.enter(address), None)
    return now() - began


def test_failures_double_the_time_to_wait() -> None:
    async def main() -> None:
        those = table()
        waited = [await fail(those, b"%d" % number) for number in range(11)]
        assert waited == pytest.approx([0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30])
        assert await fail(those, b"x", THERE) == 0

    run_virtually(main())


def test_mistakes_of_long_ago_count_again() -> None:
    async def main() -> None:
        those = table()
        assert await fail(those, b"x") == 0
        await asyncio.sleep(FORGOTTEN)
        waited = [await fail(those, b"%d" % number) for number in range(6)]
        assert waited == pytest.approx([0, 0, 0, 1, 2, 4])
        assert await fail(those, b"x") == pytest.approx(8)
        assert await fail(those, b"y") == pytest.approx(16)

    run_virtually(main())


def test_parallel_connections_gain_nothing() -> None:
    async def main() -> None:
        those = table()
        entered: list[float] = []
        inside = 0

        async def attempt(number: int) -> None:
            nonlocal inside
            source = await those.enter(HERE)
            entered.append(now() - began)
            inside += 1
            assert inside <= FREE
            await asyncio.sleep(0.25)
            inside -= 1
            those.leave(source, b"%d" % number)

        began = now()
        await asyncio.gather(*(attempt(number) for number in range(9)))
        # Three at once; then each its time after the end of the one before.
        expected = [0.0, 0.0, 0.0]
        for pause in (1, 2, 4, 8, 16, 30):
            expected.append(expected[-1] + 0.25 + pause)
        assert entered == pytest.approx(expected)

    run_virtually(main())


def test_many_who_succeed_do_not_wait_for_seconds() -> None:
    async def main() -> None:
        those = table()

        async def attempt() -> None:
            source = await those.enter(HERE)
            await asyncio.sleep(0.1)
            those.leave(source, None)

        began = now()
        await asyncio.gather(*(attempt() for _ in range(30)))
        assert now() - began == pytest.approx(1.0)  # three at a time
        assert len(those) == 0

    run_virtually(main())


def test_who_has_waited_already_does_not_wait_again() -> None:
    async def main() -> None:
        those = table()
        for number in range(FREE + 2):
            await fail(those, b"%d" % number)
        await asyncio.sleep(3.5)
        assert await fail(those, b"x") == pytest.approx(0.5)
        await asyncio.sleep(100)
        assert await fail(those, b"y") == 0
        assert await fail(those, b"z") == pytest.approx(16)

    run_virtually(main())


def test_a_success_forgets_nothing() -> None:
    async def main() -> None:
        those = table()
        for number in range(FREE):
            await fail(those, b"%d" % number)
            await succeed(those)
        assert await fail(those, b"x") == 0  # the success before it has waited its second
        assert await succeed(those) == pytest.approx(2)
        assert await succeed(those) == 0
        assert await fail(those, b"y") == 0
        assert await fail(those, b"z") == pytest.approx(4)

    run_virtually(main())


def test_ten_minutes_without_a_failure_forget_all() -> None:
    async def main() -> None:
        those = table()
        for number in range(9):
            await fail(those, b"%d" % number)
        await asyncio.sleep(FORGOTTEN)
        assert [await fail(those, b"%d" % number) for number in range(3)] == [0, 0, 0]
        assert await fail(those, b"x") == pytest.approx(1)
        await asyncio.sleep(FORGOTTEN)
        await succeed(those)
        assert len(those) == 0

    run_virtually(main())


def test_the_same_mistake_counts_less() -> None:
    async def main() -> None:
        those = table()
        waited = [await fail(those, b"old password") for _ in range(9)]
        assert waited == pytest.approx([0, 0, 0, 1, 2, 4, 4, 4, 4])
        # Another mistake counts in full, and none forgets what others have earned.
        assert await fail(those, b"guess") == pytest.approx(4)
        assert await fail(those, b"old password") == pytest.approx(8)
        assert await fail(those, b"another guess") == pytest.approx(8)
        assert await fail(those, b"third guess") == pytest.approx(16)

    run_virtually(main())


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_what_counts_as_one_address(address: str, source: str) -> None:
    assert source_of(address) == source


def test_a_client_without_an_address_has_no_penalty() -> None:
    async def main() -> None:
        those = table()
        assert [await fail(those, b"%d" % number, "") for number in range(20)] == [0] * 20
        assert len(those) == 0

    run_virtually(main())


def test_the_table_forgets_those_who_failed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "SIZE", 10)

    async def main() -> None:
        those = table()
        source = await those.enter("10.0.0.0")  # at work: stays
        for number in range(1, 40):
            for mistake in range(FREE):
                await fail(those, b"%d" % mistake, f"10.0.0.{number}")
            assert len(those) <= 10
        assert await fail(those, b"x", "10.0.0.39") == pytest.approx(1)
        assert await fail(those, b"x", "10.0.0.1") == 0
        those.leave(source, b"x")
        assert len(those) <= 10

    run_virtually(main())


def test_a_full_queue_is_busy_and_empties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "WAITING", 5)

    async def main() -> None:
        those = table()
        sources = [await those.enter(HERE) for _ in range(FREE)]
        waiting = [asyncio.create_task(those.enter(HERE)) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(LoginsBusyError):
            await those.enter(HERE)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert await succeed(those, THERE) == 0
        for source in sources:
            those.leave(source, None)
        assert len(those) == 0

    run_virtually(main())


def test_who_gives_up_lets_the_next_one_in() -> None:
    async def main() -> None:
        those = table()
        sources = [await those.enter(HERE) for _ in range(FREE)]
        first, second, third = (asyncio.create_task(succeed(those)) for _ in range(3))
        await asyncio.sleep(1)
        second.cancel()
        for source in sources:
            those.leave(source, None)
        first.cancel()  # it has been woken, and does not go in
        await third
        assert len(those) == 0
        assert first.cancelled() or first.done()

    run_virtually(main())


def test_a_head_that_gives_up_while_it_waits_for_its_time() -> None:
    async def main() -> None:
        those = table()
        for number in range(FREE + 1):
            await fail(those, b"%d" % number)
        first = asyncio.create_task(succeed(those))
        second = asyncio.create_task(succeed(those))
        await asyncio.sleep(0.5)
        first.cancel()
        assert await second == pytest.approx(2)

    run_virtually(main())


def test_loops_in_several_threads_share_it() -> None:
    those = Penalties()
    turns: list[int] = []

    def use(number: int) -> None:
        async def main() -> None:
            for _ in range(50):
                source = await those.enter(HERE)
                turns.append(number)
                await asyncio.sleep(0)
                those.leave(source, None)

        async def several() -> None:
            jobs: list[Coroutine[None, None, None]] = [main() for _ in range(4)]
            await asyncio.gather(*jobs)

        asyncio.run(several())

    threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turns) == [number for number in range(3) for _ in range(200)]
    assert len(those) == 0


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # address
            st.integers(0, 40),  # when it comes
            st.integers(0, 20),  # how long it takes
            st.none() | st.integers(0, 3),  # its mistake
            st.none() | st.integers(1, 60),  # when it gives up
        ),
        max_size=25,
    )
)
def test_whatever_comes(attempts: list[tuple[int, int, int, int | None, int | None]]) -> None:
    async def main() -> None:
        those = table()
        inside = [0, 0, 0]
        failed: list[list[float]] = [[], [], []]

        async def attempt(
            number: int, comes: int, takes: int, mistake: int | None, gives_up: int | None
        ) -> None:
            await asyncio.sleep(comes)
            try:
                async with asyncio.timeout(gives_up):
                    source = await those.enter(f"192.0.2.{number}")
            except TimeoutError:
                return
            inside[number] += 1
            assert inside[number] <= FREE
            if len(failed[number]) >= FREE:
                assert inside[number] == 1
                assert now() - failed[number][-1] >= 1
            await asyncio.sleep(takes)
            inside[number] -= 1
            those.leave(source, None if mistake is None else b"%d" % mistake)
            if mistake is not None:
                failed[number].append(now())

        await asyncio.gather(*(attempt(*one) for one in attempts))
        assert len(those) == sum(map(bool, failed))

    run_virtually(main())
