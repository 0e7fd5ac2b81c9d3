"""`PostOffice.deliver` for whole messages, and subscriptions to deliveries."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.smtp_harness import DIALOGUE, DONE, body_of, codes, serve

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.events import Delivered
from fastlisten.mail.delivery.message_writer import SPOOL_SIZE
from fastlisten.mail.delivery.post_office import PostOffice

ALICE, BOB = Account("alice@example.org"), Account("bob@example.org")


def run(test: Callable[[PostOffice], object], directory: Path) -> None:
    async def main() -> None:
        office = PostOffice.enter(str(directory))
        try:
            await test(office)  # type: ignore[misc]
            assert len(office.subscriptions) == 0
        finally:
            await asyncio.to_thread(office.leave)

    asyncio.run(main())


def test_deliver_whole_message(tmp_path: Path) -> None:
    async def main(office: PostOffice) -> None:
        for content in (b"", b"x\r\n", b"y" * (2 * SPOOL_SIZE)):
            name = await office.deliver([ALICE, BOB, ALICE], content)
            for account in (ALICE, BOB):
                box = office.maildir(account)
                assert [it.name for it in box.messages()] == [name]
                assert box.read(name) == content
                box.remove(name)
        assert list(office.mail.glob("*/tmp/*")) == []

    run(main, tmp_path)


def test_deliver_fails(tmp_path: Path) -> None:
    async def main(office: PostOffice) -> None:
        heard: list[Delivered] = []
        end = office.subscribe(ALICE.name, heard.append)
        office.mail.write_text("no directory")
        with pytest.raises(OSError, match=r"ot a directory|exists"):
            await office.deliver([ALICE], b"x")
        await asyncio.sleep(0)
        assert heard == []
        end()

    run(main, tmp_path)


def test_cancelled_delivery_is_whole_or_nothing(tmp_path: Path) -> None:
    async def main(office: PostOffice) -> None:
        for rounds in range(20):
            task = asyncio.create_task(office.deliver([ALICE, BOB], b"x" * 300_000))
            await asyncio.sleep(0.0005 * rounds)
            task.cancel()
            await asyncio.wait([task])
        while list(office.mail.glob("*/tmp/*")):
            await asyncio.sleep(0.001)

    run(main, tmp_path)
    office = PostOffice.enter(str(tmp_path))
    alice, bob = (office.maildir(account).messages() for account in (ALICE, BOB))
    office.leave()
    assert [it.name for it in alice] == [it.name for it in bob]
    assert {Path(it.path).stat().st_size for it in alice} <= {300_000}


def test_subscribers_are_notified(tmp_path: Path) -> None:
    async def main(office: PostOffice) -> None:
        heard: list[tuple[str, Delivered]] = []
        loop_thread = threading.get_ident()

        def listener(name: str) -> Callable[[Delivered], None]:
            def hear(event: Delivered) -> None:
                assert threading.get_ident() == loop_thread
                assert Path(event.path).read_bytes() == b"12345"
                heard.append((name, event))

            return hear

        ends = [
            office.subscribe(ALICE.name, listener("first")),
            office.subscribe(ALICE.name, listener("second")),
            office.subscribe(BOB.name, listener("third")),
        ]
        name = await office.deliver([ALICE], b"12345")
        while len(heard) < 2:
            await asyncio.sleep(0.001)
        event = Delivered(ALICE.name, name, f"{office.maildir(ALICE).new}/{name}", 5)
        assert heard == [("first", event), ("second", event)]
        heard.clear()
        ends[0]()
        ends[0]()
        await office.deliver([ALICE, BOB], b"12345")
        while len(heard) < 2:
            await asyncio.sleep(0.001)
        assert sorted(who for who, _ in heard) == ["second", "third"]
        for end in ends:
            end()

    run(main, tmp_path)


def test_ended_subscription_gets_no_pending_event(tmp_path: Path) -> None:
    async def main(office: PostOffice) -> None:
        heard: list[Delivered] = []
        end = office.subscribe(ALICE.name, heard.append)
        office.subscriptions.announce(Delivered(ALICE.name, "name", "path", 1))
        end()
        await asyncio.sleep(0.01)
        assert heard == []

    run(main, tmp_path)


def test_subscriptions_of_closed_loop_are_removed(tmp_path: Path) -> None:
    office = PostOffice.enter(str(tmp_path))

    async def wait() -> None:
        office.subscribe(ALICE.name, lambda event: None)

    asyncio.run(wait())
    assert len(office.subscriptions) == 1
    asyncio.run(office.deliver([ALICE], b"x"))
    office.leave()
    assert len(office.subscriptions) == 0


def test_delivery_by_smtp_notifies_subscribers(tmp_path: Path) -> None:
    heard: list[Delivered] = []
    with serve(tmp_path) as server:
        end = server.call(lambda: server.handler.office.subscribe(ALICE.name, heard.append))
        assert codes(server.say(DIALOGUE)) == DONE
        server.call(end)
        (event,) = heard
        stored = Path(event.path).read_bytes()
        assert event.size == len(stored)
        assert [stored] == server.delivered()
        assert body_of(stored) != stored
