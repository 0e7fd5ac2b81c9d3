"""Deliveries in two stages, prepare and commit; abandoned deliveries; the spool."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.deliveries import ALICE, ALL, BOB, SIZES, WatchedDelivery, files, in_office, new

from fastlisten.mail.delivery.message_writer import SPOOL_SIZE
from fastlisten.mail.delivery.post_office import PostOffice

# --- prepare and commit ---------------------------------------------------------------------------


@in_office
async def test_prepared_message_is_not_visible(office: PostOffice) -> None:
    for size in SIZES:
        watched = WatchedDelivery(office, ALL)
        content = watched.fill(size)
        await watched.prepare()
        delivery = watched.delivery
        assert delivery.prepared
        assert not delivery.done
        assert Path(delivery.path).read_bytes() == content
        assert files(office) == [f"mail/{account.name}/tmp" for account in ALL]
        await watched.commit()
        assert delivery.error is None
        assert delivery.errors == {}
        assert files(office) == new(*ALL)
        for account in ALL:
            box = office.maildir(account)
            (message,) = box.messages()
            assert box.read(message) == content
            box.remove(message)


@in_office
async def test_prepared_message_is_abandoned(office: PostOffice) -> None:
    for rounds in range(12):
        watched = WatchedDelivery(office, ALL, spool=rounds % 2 == 0)
        watched.fill(SIZES[rounds % 4])
        if rounds < 4:
            await watched.prepare()
        else:
            watched.delivery.prepare()
            await asyncio.sleep(0.001 * (rounds % 5))
        watched.delivery.abort()
        while files(office):
            await asyncio.sleep(0.001)


@in_office
async def test_abandoned_during_commit_is_whole_or_gone(office: PostOffice) -> None:
    for rounds in range(10):
        watched = WatchedDelivery(office, ALL)
        watched.fill(100)
        await watched.prepare()
        watched.delivery.commit()
        await asyncio.sleep(0.0005 * rounds)
        watched.delivery.abort()
    await asyncio.to_thread(office._pool.submit(lambda: None).result)
    while any("/tmp" in path for path in files(office)):
        await asyncio.sleep(0.001)
    counts = {len(office.maildir(account).messages()) for account in ALL}
    assert len(counts) == 1


@in_office
async def test_failed_preparation_ends_the_delivery(office: PostOffice) -> None:
    Path(office.mail).mkdir()
    (office.mail / BOB.name).write_text("no directory")
    for early in (False, True):
        watched = WatchedDelivery(office, ALL)
        if early:
            (office.mail / ALICE.name).rename(office.mail / "away")
            (office.mail / ALICE.name).write_text("no directory")
            watched.fill(2 * SPOOL_SIZE)
            await watched.until(lambda it: it.error is not None)
            watched.delivery.prepare()
            assert watched.delivery.done
        else:
            watched.fill(10)
            await watched.prepare()
        assert watched.delivery.done
        assert not watched.delivery.prepared
        assert watched.delivery.error is not None
        assert [path for path in files(office) if path != "mail"] == []


# --- the spool ------------------------------------------------------------------------------------


@in_office
async def test_message_without_accounts_is_spooled(office: PostOffice) -> None:
    for size in SIZES:
        watched = WatchedDelivery(office, [], spool=True)
        content = watched.fill(size)
        await watched.prepare()
        assert Path(watched.delivery.path).read_bytes() == content
        assert files(office) == ["spool/tmp"]
        await watched.commit()
        assert watched.delivery.error is None
        assert files(office) == []


@in_office
async def test_message_for_accounts_and_relay_is_spooled(office: PostOffice) -> None:
    for size in SIZES:
        watched = WatchedDelivery(office, [ALICE, BOB], spool=True)
        content = watched.fill(size)
        await watched.prepare()
        assert files(office) == [*(f"mail/{it.name}/tmp" for it in (ALICE, BOB)), "spool/tmp"]
        assert watched.delivery.path.startswith(office.spool.tmp)
        await watched.commit()
        assert files(office) == new(ALICE, BOB)
        for account in (ALICE, BOB):
            (message,) = office.maildir(account).messages()
            assert office.maildir(account).read(message) == content
            office.maildir(account).remove(message)
