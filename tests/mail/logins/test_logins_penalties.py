"""Penalties of addresses that fail to log in: how long attempts wait, in virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loops import run_virtually

from fastlisten.mail.logins import penalties
from fastlisten.mail.logins.failed_names import FORGOTTEN
from fastlisten.mail.logins.penalties import FREE, LoginsBusyError, Penalties, source_of

HERE, THERE = "192.0.2.1", "192.0.2.2"

#: A digest.
NAME = "0a"


def now() -> float:
    return asyncio.get_running_loop().time()


def make_table() -> Penalties:
    return Penalties(asyncio.get_running_loop().time)


async def fail(table: Penalties, mistake: bytes, address: str = HERE) -> float:
    """Fail once; return how long the attempt waited."""
    began = now()
    source = await table.enter(address, NAME)
    waited = now() - began
    source.leave(mistake)
    return waited


async def succeed(table: Penalties, address: str = HERE) -> float:
    began = now()
    (await table.enter(address, NAME)).leave(None)
    return now() - began


def test_each_failure_doubles_the_delay() -> None:
    async def main() -> None:
        table = make_table()
        waited = [await fail(table, b"%d" % number) for number in range(11)]
        assert waited == pytest.approx([0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30])
        assert await fail(table, b"x", THERE) == 0

    run_virtually(main())


def test_forgotten_mistakes_count_again() -> None:
    async def main() -> None:
        table = make_table()
        assert await fail(table, b"x") == 0
        await asyncio.sleep(FORGOTTEN)
        waited = [await fail(table, b"%d" % number) for number in range(6)]
        assert waited == pytest.approx([0, 0, 0, 1, 2, 4])
        assert await fail(table, b"x") == pytest.approx(8)
        assert await fail(table, b"y") == pytest.approx(16)

    run_virtually(main())


def test_parallel_connections_do_not_help() -> None:
    async def main() -> None:
        table = make_table()
        entered: list[float] = []
        inside = 0

        async def attempt(number: int) -> None:
            nonlocal inside
            source = await table.enter(HERE, NAME)
            entered.append(now() - began)
            inside += 1
            assert inside <= FREE
            await asyncio.sleep(0.25)
            inside -= 1
            source.leave(b"%d" % number)

        began = now()
        await asyncio.gather(*(attempt(number) for number in range(9)))
        # Three at once; then each after its delay since the end of the previous one.
        expected = [0.0, 0.0, 0.0]
        for pause in (1, 2, 4, 8, 16, 30):
            expected.append(expected[-1] + 0.25 + pause)
        assert entered == pytest.approx(expected)

    run_virtually(main())


def test_successful_attempts_wait_only_for_a_place() -> None:
    async def main() -> None:
        table = make_table()

        async def attempt() -> None:
            source = await table.enter(HERE, NAME)
            await asyncio.sleep(0.1)
            source.leave(None)

        began = now()
        await asyncio.gather(*(attempt() for _ in range(30)))
        assert now() - began == pytest.approx(1.0)  # three at a time
        assert len(table) == 0

    run_virtually(main())


def test_time_since_the_last_failure_counts() -> None:
    async def main() -> None:
        table = make_table()
        for number in range(FREE + 2):
            await fail(table, b"%d" % number)
        await asyncio.sleep(3.5)
        assert await fail(table, b"x") == pytest.approx(0.5)
        await asyncio.sleep(100)
        assert await fail(table, b"y") == 0
        assert await fail(table, b"z") == pytest.approx(16)

    run_virtually(main())


def test_success_does_not_reset_failures() -> None:
    async def main() -> None:
        table = make_table()
        for number in range(FREE):
            await fail(table, b"%d" % number)
            await succeed(table)
        assert await fail(table, b"x") == 0  # the success before it waited for a second
        assert await succeed(table) == pytest.approx(2)
        assert await succeed(table) == 0
        assert await fail(table, b"y") == 0
        assert await fail(table, b"z") == pytest.approx(4)

    run_virtually(main())


def test_failures_are_forgotten_after_ten_minutes() -> None:
    async def main() -> None:
        table = make_table()
        for number in range(9):
            await fail(table, b"%d" % number)
        await asyncio.sleep(FORGOTTEN)
        assert [await fail(table, b"%d" % number) for number in range(3)] == [0, 0, 0]
        assert await fail(table, b"x") == pytest.approx(1)
        await asyncio.sleep(FORGOTTEN)
        await succeed(table)
        assert len(table) == 0

    run_virtually(main())


def test_repeated_mistake_counts_less() -> None:
    async def main() -> None:
        table = make_table()
        waited = [await fail(table, b"old password") for _ in range(9)]
        assert waited == pytest.approx([0, 0, 0, 1, 2, 4, 4, 4, 4])
        # Another mistake counts in full, and repeating one does not reset the delay.
        assert await fail(table, b"guess") == pytest.approx(4)
        assert await fail(table, b"old password") == pytest.approx(8)
        assert await fail(table, b"another guess") == pytest.approx(8)
        assert await fail(table, b"third guess") == pytest.approx(16)

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
def test_source_of_address(address: str, source: str) -> None:
    assert source_of(address) == source


def test_no_penalty_without_an_address() -> None:
    async def main() -> None:
        table = make_table()
        assert [await fail(table, b"%d" % number, "") for number in range(20)] == [0] * 20
        assert len(table) == 0

    run_virtually(main())


def test_full_table_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "SIZE", 10)

    async def main() -> None:
        table = make_table()
        source = await table.enter("10.0.0.0", NAME)  # in use, so it stays
        for number in range(1, 40):
            for mistake in range(FREE):
                await fail(table, b"%d" % mistake, f"10.0.0.{number}")
            assert len(table) <= 10
        assert await fail(table, b"x", "10.0.0.39") == pytest.approx(1)
        assert await fail(table, b"x", "10.0.0.1") == 0
        source.leave(b"x")
        assert len(table) <= 10

    run_virtually(main())


def test_full_queue_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "WAITING", 5)

    async def main() -> None:
        table = make_table()
        sources = [await table.enter(HERE, NAME) for _ in range(FREE)]
        waiting = [asyncio.create_task(table.enter(HERE, NAME)) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(LoginsBusyError):
            await table.enter(HERE, NAME)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert await succeed(table, THERE) == 0
        for source in sources:
            source.leave(None)
        assert len(table) == 0

    run_virtually(main())


def test_cancelled_attempt_lets_the_next_one_in() -> None:
    async def main() -> None:
        table = make_table()
        sources = [await table.enter(HERE, NAME) for _ in range(FREE)]
        first, second, third = (asyncio.create_task(succeed(table)) for _ in range(3))
        await asyncio.sleep(1)
        second.cancel()
        for source in sources:
            source.leave(None)
        first.cancel()  # it has been woken, but does not enter
        await third
        assert len(table) == 0
        assert first.cancelled() or first.done()

    run_virtually(main())


def test_first_in_queue_cancelled_while_waiting() -> None:
    async def main() -> None:
        table = make_table()
        for number in range(FREE + 1):
            await fail(table, b"%d" % number)
        first = asyncio.create_task(succeed(table))
        second = asyncio.create_task(succeed(table))
        await asyncio.sleep(0.5)
        first.cancel()
        assert await second == pytest.approx(2)

    run_virtually(main())


def test_shared_by_loops_in_several_threads() -> None:
    table = Penalties()
    turns: list[int] = []

    def use(number: int) -> None:
        async def main() -> None:
            for _ in range(50):
                source = await table.enter(HERE, NAME)
                turns.append(number)
                await asyncio.sleep(0)
                source.leave(None)

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
    assert len(table) == 0


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
def test_any_attempts(attempts: list[tuple[int, int, int, int | None, int | None]]) -> None:
    async def main() -> None:
        table = make_table()
        inside = [0, 0, 0]
        failed: list[list[float]] = [[], [], []]

        async def attempt(
            number: int, comes: int, takes: int, mistake: int | None, gives_up: int | None
        ) -> None:
            await asyncio.sleep(comes)
            try:
                async with asyncio.timeout(gives_up):
                    source = await table.enter(f"192.0.2.{number}", NAME)
            except TimeoutError:
                return
            inside[number] += 1
            assert inside[number] <= FREE
            if len(failed[number]) >= FREE:
                assert inside[number] == 1
                assert now() - failed[number][-1] >= 1
            await asyncio.sleep(takes)
            inside[number] -= 1
            source.leave(None if mistake is None else b"%d" % mistake)
            if mistake is not None:
                failed[number].append(now())

        await asyncio.gather(*(attempt(*one) for one in attempts))
        assert len(table) == sum(map(bool, failed))

    run_virtually(main())
