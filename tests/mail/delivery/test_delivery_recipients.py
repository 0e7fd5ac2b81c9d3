"""Deliveries to several recipients: each gets the message or an error of its own."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from support.deliveries import (
    ALICE,
    ALL,
    BOB,
    CAROL,
    SIZES,
    WatchedDelivery,
    commit,
    files,
    in_office,
    new,
)
from support.kernel import open_below

from fastlisten.mail.delivery import staged_message
from fastlisten.mail.delivery.message_writer import SPOOL_SIZE
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import Spool
from fastlisten.private_files import write_all


@in_office
async def test_failure_affects_only_its_recipient(office: PostOffice) -> None:
    Path(office.mail).mkdir()
    for spool in (False, True):
        for broken in ALL:
            shutil.rmtree(office.mail / broken.name, ignore_errors=True)
            (office.mail / broken.name).write_text("no directory")
            for size in SIZES:
                watched = WatchedDelivery(office, ALL, independent=True, spool=spool)
                content = watched.fill(size)
                await watched.commit()
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
async def test_only_successful_recipients_are_notified(office: PostOffice) -> None:
    Path(office.mail).mkdir()
    (office.mail / BOB.name).write_text("no directory")
    heard: list[str] = []
    ends = [
        office.subscribe(account.name, lambda event: heard.append(event.account)) for account in ALL
    ]
    watched = WatchedDelivery(office, ALL, independent=True)
    watched.fill(10)
    await watched.commit()
    assert sorted(heard) == [ALICE.name, CAROL.name]
    for end in ends:
        end()


@in_office
async def test_internal_error_leaves_no_files(office: PostOffice) -> None:
    def fail(*_: object) -> bool:
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StagedMessage, "move", fail)
        watched = WatchedDelivery(office, [ALICE])
        watched.fill(SPOOL_SIZE + 10)
        await watched.commit()
    assert watched.delivery.error is not None
    assert watched.delivery.error.errno == errno.EIO
    assert files(office) == []


@in_office
async def test_abandoned_before_start_writes_nothing(office: PostOffice) -> None:
    go, written = threading.Event(), []

    def wait() -> None:
        assert go.wait(20)

    def write(self: StagedMessage, pieces: list[bytes]) -> None:
        written.append(pieces)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StagedMessage, "write", write)
        for _ in range(8):  # all threads of the pool
            office.submit(wait)
        watched = WatchedDelivery(office, [ALICE])
        watched.fill(10)
        watched.delivery.commit()
        watched.delivery.abort()
        go.set()
        await asyncio.to_thread(office.leave)
    assert written == []
    assert files(office) == []


@in_office
async def test_abandoned_during_write_is_not_delivered(office: PostOffice) -> None:
    reached, go, real = threading.Event(), threading.Event(), StagedMessage.write

    def write(self: StagedMessage, pieces: list[bytes]) -> None:
        real(self, pieces)
        reached.set()
        assert go.wait(20)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StagedMessage, "write", write)
        watched = WatchedDelivery(office, [ALICE])
        watched.fill(10)
        watched.delivery.commit()
        assert await asyncio.to_thread(reached.wait, 20)
        watched.delivery.abort()
        go.set()
        await asyncio.to_thread(office.leave)
    await asyncio.sleep(0)
    assert files(office) == []


@in_office
async def test_failure_of_all_recipients_is_an_error(office: PostOffice) -> None:
    office.mail.write_text("no directory")
    for options in ({}, {"spool": True}):
        watched = WatchedDelivery(office, ALL, independent=True, **options)
        watched.fill(10)
        await watched.commit()
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
def test_any_failing_call_leaves_message_or_error(
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

    before = open_below(tmp_path)
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
            commit(one)
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
    assert open_below(tmp_path) == before
    if not failed and count >= at:
        assert len(one.errors) <= 1


def test_full_disk_moves_on_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    commit(one)
    assert list(one.errors) == [boxes[0].path, boxes[1].path]
    assert (Path(boxes[2].new) / "name").read_bytes() == b"".join(content)
    assert [path for box in boxes[:2] for path in Path(box.path).rglob("*") if path.is_file()] == []


@in_office
async def test_memory_of_small_pieces_is_bounded(office: PostOffice) -> None:
    ends = threading.Event()

    def wait() -> None:
        ends.wait(20)

    for _ in range(8):  # all threads of the pool
        office.submit(wait)
    watched = WatchedDelivery(office, [ALICE])
    delivery = watched.delivery
    added = 0
    while not delivery.full:
        delivery.add(b"ab")
        added += 1
    # At most twice the spool size, at 56 octets for each object and its list entry.
    assert added <= 2 * SPOOL_SIZE // 56
    ends.set()
    delivery.commit()
    await watched.until(lambda it: it.done)
    assert delivery.error is None
    (message,) = Path(office.maildir(ALICE).new).iterdir()
    assert message.read_bytes() == b"ab" * added
