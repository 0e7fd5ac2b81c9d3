"""Deliveries: prepared before they are published, through a spool, and failing one by one."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery import staged_message
from fastlisten.mail.delivery.delivery import SPOOL_SIZE, Delivery
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import Spool, unique_name
from fastlisten.private_files import write_all

ALICE, BOB, CAROL = (Account(f"{name}@example.org") for name in ("alice", "bob", "carol"))
ALL = [ALICE, BOB, CAROL]

SIZES = [0, 100, SPOOL_SIZE + 1, 3 * SPOOL_SIZE + 5]


def running() -> set[threading.Thread]:
    """Return the threads, but those of `asyncio.to_thread`, of which there is one or more."""
    return {one for one in threading.enumerate() if not one.name.startswith("asyncio_")}


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[PostOffice]:
    """Open a post office; at the end nothing may be left of its threads and descriptors."""
    threads, descriptors = running(), len(os.listdir("/proc/self/fd"))
    office = PostOffice.enter(str(directory))
    try:
        yield office
    finally:
        await asyncio.to_thread(office.leave)
        assert running() <= threads
        assert len(os.listdir("/proc/self/fd")) == descriptors


def in_office(test: Callable[[PostOffice], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def main() -> None:
            async with opened(tmp_path) as office:
                await test(office)

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


class Watched:
    """A delivery whose stages can be awaited."""

    def __init__(self, office: PostOffice, accounts: list[Account], **options: bool) -> None:
        self.changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.delivery = Delivery(office, accounts, unique_name(), loop, self.changed.set, **options)

    def fill(self, size: int) -> bytes:
        content = os.urandom(size)
        for start in range(0, size, 50_000):
            self.delivery.add(content[start : start + 50_000])
        return content

    async def until(self, stage: Callable[[Delivery], bool]) -> None:
        while not stage(self.delivery):
            self.changed.clear()
            await self.changed.wait()

    async def prepare(self) -> None:
        self.delivery.prepare()
        await self.until(lambda it: it.prepared or it.done)

    async def publish(self) -> None:
        self.delivery.publish()
        await self.until(lambda it: it.done)

    async def finish(self) -> None:
        self.delivery.finish()
        await self.until(lambda it: it.done)


def files(office: PostOffice) -> list[str]:
    root = office.mail.parent
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(str(path.parent) for path in found)


def new(*accounts: Account) -> list[str]:
    return [f"mail/{account.name}/new" for account in accounts]


# --- prepare and publish --------------------------------------------------------------------------


@in_office
async def test_nobody_sees_what_is_prepared(office: PostOffice) -> None:
    for size in SIZES:
        watched = Watched(office, ALL)
        content = watched.fill(size)
        await watched.prepare()
        delivery = watched.delivery
        assert delivery.prepared
        assert not delivery.done
        assert Path(delivery.path).read_bytes() == content
        assert files(office) == [f"mail/{account.name}/tmp" for account in ALL]
        await watched.publish()
        assert delivery.error is None
        assert delivery.errors == {}
        assert files(office) == new(*ALL)
        for account in ALL:
            box = office.maildir(account)
            (message,) = box.messages()
            assert box.read(message) == content
            box.remove(message)


@in_office
async def test_what_is_prepared_can_be_abandoned(office: PostOffice) -> None:
    for rounds in range(12):
        watched = Watched(office, ALL, spool=rounds % 2 == 0)
        watched.fill(SIZES[rounds % 4])
        if rounds < 4:
            await watched.prepare()
        else:
            watched.delivery.prepare()
            await asyncio.sleep(0.001 * (rounds % 5))
        watched.delivery.abandon()
        while files(office):
            await asyncio.sleep(0.001)


@in_office
async def test_abandoned_while_it_is_published_it_is_whole_or_gone(office: PostOffice) -> None:
    for rounds in range(10):
        watched = Watched(office, ALL)
        watched.fill(100)
        await watched.prepare()
        watched.delivery.publish()
        await asyncio.sleep(0.0005 * rounds)
        watched.delivery.abandon()
    await asyncio.to_thread(office._pool.submit(lambda: None).result)
    while any("/tmp" in path for path in files(office)):
        await asyncio.sleep(0.001)
    counts = {len(office.maildir(account).messages()) for account in ALL}
    assert len(counts) == 1


@in_office
async def test_a_preparation_that_fails_is_the_end(office: PostOffice) -> None:
    Path(office.mail).mkdir()
    (office.mail / BOB.name).write_text("no directory")
    for early in (False, True):
        watched = Watched(office, ALL)
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
async def test_mail_for_no_account_lies_in_the_spool(office: PostOffice) -> None:
    for size in SIZES:
        watched = Watched(office, [], spool=True)
        content = watched.fill(size)
        await watched.prepare()
        assert Path(watched.delivery.path).read_bytes() == content
        assert files(office) == ["spool/tmp"]
        await watched.publish()
        assert watched.delivery.error is None
        assert files(office) == []


@in_office
async def test_mail_for_both_lies_there_until_the_end(office: PostOffice) -> None:
    for size in SIZES:
        watched = Watched(office, [ALICE, BOB], spool=True)
        content = watched.fill(size)
        await watched.prepare()
        assert files(office) == [*(f"mail/{it.name}/tmp" for it in (ALICE, BOB)), "spool/tmp"]
        assert watched.delivery.path.startswith(office.spool.tmp)
        await watched.publish()
        assert files(office) == new(ALICE, BOB)
        for account in (ALICE, BOB):
            (message,) = office.maildir(account).messages()
            assert office.maildir(account).read(message) == content
            office.maildir(account).remove(message)


# --- independent recipients -----------------------------------------------------------------------


@in_office
async def test_one_recipient_s_failure_is_not_the_others(office: PostOffice) -> None:
    Path(office.mail).mkdir()
    for spool in (False, True):
        for broken in ALL:
            shutil.rmtree(office.mail / broken.name, ignore_errors=True)
            (office.mail / broken.name).write_text("no directory")
            for size in SIZES:
                watched = Watched(office, ALL, independent=True, spool=spool)
                content = watched.fill(size)
                await watched.finish()
                delivery = watched.delivery
                assert delivery.error is None
                assert list(delivery.errors) == [broken.name]
                assert delivery.errors[broken.name].errno in (errno.ENOTDIR, errno.EEXIST)
                others = [account for account in ALL if account is not broken]
                assert [path for path in files(office) if path != "mail"] == new(*others)
                for account in others:
                    (message,) = office.maildir(account).messages()
                    assert office.maildir(account).read(message) == content
                    office.maildir(account).remove(message)
            (office.mail / broken.name).unlink()


@in_office
async def test_only_who_has_it_hears_of_it(office: PostOffice) -> None:
    Path(office.mail).mkdir()
    (office.mail / BOB.name).write_text("no directory")
    heard: list[str] = []
    ends = [
        office.subscribe(account.name, lambda event: heard.append(event.account)) for account in ALL
    ]
    watched = Watched(office, ALL, independent=True)
    watched.fill(10)
    await watched.finish()
    assert sorted(heard) == [ALICE.name, CAROL.name]
    for end in ends:
        end()


@in_office
async def test_a_fault_of_the_code_leaves_nothing_behind(office: PostOffice) -> None:
    def fail(*_: object) -> bool:
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StagedMessage, "commit", fail)
        watched = Watched(office, [ALICE])
        watched.fill(SPOOL_SIZE + 10)
        await watched.finish()
    assert watched.delivery.error is not None
    assert watched.delivery.error.errno == errno.EIO
    assert files(office) == []


@in_office
async def test_abandoned_before_its_turn_nothing_is_written(office: PostOffice) -> None:
    go, written = threading.Event(), []

    def wait() -> None:
        assert go.wait(20)

    def write(self: StagedMessage, pieces: list[bytes]) -> None:
        written.append(pieces)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StagedMessage, "write", write)
        for _ in range(8):  # all threads of the pool
            office.submit(wait)
        watched = Watched(office, [ALICE])
        watched.fill(10)
        watched.delivery.finish()
        watched.delivery.abandon()
        go.set()
        await asyncio.to_thread(office.leave)
    assert written == []
    assert files(office) == []


@in_office
async def test_abandoned_while_it_is_written_it_is_not_delivered(office: PostOffice) -> None:
    reached, go, real = threading.Event(), threading.Event(), StagedMessage.write

    def write(self: StagedMessage, pieces: list[bytes]) -> None:
        real(self, pieces)
        reached.set()
        assert go.wait(20)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StagedMessage, "write", write)
        watched = Watched(office, [ALICE])
        watched.fill(10)
        watched.delivery.finish()
        assert await asyncio.to_thread(reached.wait, 20)
        watched.delivery.abandon()
        go.set()
        await asyncio.to_thread(office.leave)
    await asyncio.sleep(0)
    assert files(office) == []


@in_office
async def test_where_nobody_gets_it_that_is_the_error(office: PostOffice) -> None:
    office.mail.write_text("no directory")
    for options in ({}, {"spool": True}):
        watched = Watched(office, ALL, independent=True, **options)
        watched.fill(10)
        await watched.finish()
        assert watched.delivery.error is not None
        assert files(office) == ["."]


def boxes_in(tmp_path: Path) -> list[Maildir]:
    boxes = [Maildir(str(tmp_path / name)) for name in ("a", "b", "c")]
    for box in boxes:
        box.prepare()
    return boxes


@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "link", "rename", "close"])
@pytest.mark.parametrize("at", range(1, 9))
def test_whatever_fails_each_has_it_or_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, at: int, spool: bool
) -> None:
    boxes, real, count = boxes_in(tmp_path), getattr(os, call), 0

    def failing(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            if call == "close":
                real(*arguments)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    descriptors = len(os.listdir("/proc/self/fd"))
    place = Spool(str(tmp_path / "spool"))
    place.prepare()
    one = StagedMessage(boxes, "name", independent=True, spool=place if spool else None)
    content = [os.urandom(1000), os.urandom(2000)]
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        try:
            for piece in content:
                one.write([piece])
                one.suspend()
            one.write([])
            one.commit(lambda: True)
            failed = False
        except OSError:
            failed = True
            one.discard()
    for box in boxes:
        found = [path.read_bytes() for path in Path(box.new).iterdir()]
        has_it = not failed and box.path not in one.errors
        assert found == [b"".join(content)] * has_it
        assert list(Path(box.tmp).iterdir()) == []
    assert list(Path(place.tmp).iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
    if not failed and count >= at:
        assert len(one.errors) <= 1


def test_a_disk_that_fills_up_is_left_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes, real = boxes_in(tmp_path), write_all

    def fill(fd: int, data: bytes) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{fd}")).parts[-3]
        room = {"a": 25_000, "b": 45_000, "c": 10**9}[place] - os.fstat(fd).st_size
        real(fd, data[: max(0, room)])
        if room < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(staged_message, "write_all", fill)
    one = StagedMessage(boxes, "name", independent=True)
    content = [os.urandom(10_000) for _ in range(8)]
    for piece in content:
        one.write([piece])
        one.suspend()
    one.write([])
    assert one.commit(lambda: True)
    assert list(one.errors) == [boxes[0].path, boxes[1].path]
    assert (Path(boxes[2].new) / "name").read_bytes() == b"".join(content)
    assert [path for box in boxes[:2] for path in Path(box.path).rglob("*") if path.is_file()] == []


@in_office
async def test_small_pieces_are_held_within_bounds(office: PostOffice) -> None:
    ends = threading.Event()

    def wait() -> None:
        ends.wait(20)

    for _ in range(8):  # all threads of the pool
        office.submit(wait)
    watched = Watched(office, [ALICE])
    delivery = watched.delivery
    added = 0
    while not delivery.full:
        delivery.add(b"ab")
        added += 1
    # Twice the spool, of objects that take 56 octets each with their place in a list.
    assert added <= 2 * SPOOL_SIZE // 56
    ends.set()
    delivery.finish()
    await watched.until(lambda it: it.done)
    assert delivery.error is None
    (message,) = Path(office.maildir(ALICE).new).iterdir()
    assert message.read_bytes() == b"ab" * added
