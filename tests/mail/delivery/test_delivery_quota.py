"""Quotas at delivery: never more than fits, by whomever and over processes; and never an error."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.deliveries import ALICE, BOB, CAROL, commit, in_office, opened
from support.mail_store import deliver, index_of

from fastlisten.mail.accounts.quota import OwnQuota, Quota
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.mailbox_room import QuotaExceededError
from fastlisten.mail.delivery.message_writer import MessageWriter
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import unique_name
from fastlisten.mail.store import absorb, files
from fastlisten.mail.store import usage as store_usage
from fastlisten.mail.store.folders import create
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.usage import catch_up, sums

MESSAGE = b"Subject: x\r\n\r\nx\r\n"


def count(office: PostOffice, account: Account) -> int:
    return len(office.maildir(account).messages())


async def refused(office: PostOffice, *accounts: Account, data: bytes = MESSAGE) -> bool:
    """Deliver; return whether that was refused for now."""
    try:
        await office.deliver(accounts, data)
    except QuotaExceededError as error:
        return not error.never and str(error) == "Quota exceeded (mailbox for user is full)"
    return False


@in_office
async def test_messages_and_octets_count(office: PostOffice) -> None:
    office.quota = Quota(None, 2)
    assert [await refused(office, ALICE) for _ in range(4)] == [False, False, True, True]
    office.quota = Quota(3 * len(MESSAGE) + 5)
    assert [await refused(office, ALICE) for _ in range(2)] == [False, True]
    assert not await refused(office, ALICE, data=b"12\r\n")
    assert count(office, ALICE) == 4
    assert not os.listdir(office.maildir(ALICE).tmp)


@in_office
async def test_lines_that_end_with_lf_count_as_they_are_served(office: PostOffice) -> None:
    office.quota = Quota(22)
    lines = [b"\n" * 10, b"\n" * 2, b"\n"]
    assert [await refused(office, ALICE, data=data) for data in lines] == [False, True, False]


@in_office
async def test_a_message_that_never_fits(office: PostOffice) -> None:
    office.quota = Quota(len(MESSAGE) - 1)
    with pytest.raises(QuotaExceededError) as caught:
        await office.deliver([ALICE], MESSAGE)
    assert caught.value.never


@in_office
async def test_all_get_the_message_or_none(office: PostOffice) -> None:
    office.quota = Quota(None, 1)
    rich = Account(CAROL.name, quota=OwnQuota(None, 0))
    assert not await refused(office, BOB)
    assert await refused(office, rich, BOB, ALICE)
    assert [count(office, one) for one in (rich, BOB, ALICE)] == [0, 1, 0]
    assert not await refused(office, rich, ALICE)


def test_locks_are_taken_in_one_order(tmp_path: Path) -> None:
    """By account, whether mail goes into inboxes or folders: another order could block both."""
    taken: list[str] = []

    class Room:
        def __init__(self, path: str) -> None:
            self.path = path

        def taken(self, path: str) -> contextlib.AbstractContextManager[None]:
            taken.append(self.path)
            return contextlib.nullcontext()

    one, other = f"{tmp_path}/a@example.co", f"{tmp_path}/a@example.co.uk"
    for first in (one, f"{one}/.Work"):
        for paths in ([first, other], [other, first]):
            rooms = {path: Room(path) for path in paths}
            staged = StagedMessage([Maildir(path) for path in paths], unique_name(), rooms=rooms)
            staged.write([MESSAGE])
            commit(staged)
            assert taken == [other, first]
            taken.clear()


@in_office
async def test_independent_recipients(office: PostOffice) -> None:
    office.quota = Quota(None, 1)
    assert not await refused(office, BOB)
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    accounts = [ALICE, BOB, CAROL]
    writer = MessageWriter(office, accounts, unique_name(), loop, changed.set, independent=True)
    writer.add(MESSAGE)
    writer.commit()
    while not writer.done:
        await changed.wait()
        changed.clear()
    assert writer.error is None
    assert list(writer.errors) == [BOB.name]
    assert isinstance(writer.errors[BOB.name], QuotaExceededError)
    assert [count(office, one) for one in accounts] == [1, 1, 1]


@in_office
async def test_what_others_put_in_and_take_away_counts(office: PostOffice) -> None:
    office.quota = Quota(None, 4)
    box = office.maildir(ALICE)
    with index_of(box.path) as index:
        create(index, "Work")
    deliver(f"{box.path}/.Work")
    Path(box.path, ".Work", "cur", "1.foreign:2,S").write_bytes(MESSAGE)
    deliver(box)
    assert [await refused(office, ALICE) for _ in range(2)] == [False, True]
    for file in (*Path(box.cur).iterdir(), *Path(box.new).iterdir()):
        file.unlink()
    # A file is gone only if two settled listings lack it.
    for _ in range(200):
        if not await refused(office, ALICE):
            break
        await asyncio.sleep(0.02)
    assert count(office, ALICE) == 1


def test_directories_are_not_listed_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    compare = absorb._compare

    def counted(index: Index, folder: int, box: Maildir) -> Any:
        compared.append(folder)
        return compare(index, folder, box)

    monkeypatch.setattr(absorb, "_compare", counted)
    monkeypatch.setattr(files, "_TICK", 0)  # directories are quiet at once

    async def main() -> None:
        async with opened(tmp_path) as office:
            await office.deliver([ALICE], MESSAGE)  # the first look takes something over
            office.quota = Quota(None, 20)
            for _ in range(12):
                assert not await refused(office, ALICE)

    asyncio.run(main())
    assert len(compared) == 1


def test_large_folders_are_not_listed_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bool] = []

    def look(index: Index, folder: int, **options: bool) -> None:
        looked.append(bool(options))

    with index_of(tmp_path) as index:
        monkeypatch.setattr(store_usage, "look", look)
        monkeypatch.setattr(store_usage, "_LARGE", -1)  # every folder is large
        monkeypatch.setattr(store_usage, "_PAUSE", 1e9)
        deliver(index.maildir)
        for _ in range(3):
            catch_up(index)
        assert looked == [False, True, True]
        index.pauses.clear()
        catch_up(index)
        assert looked[3:] == [False]


@in_office
async def test_the_lock_is_held_while_a_message_is_moved(office: PostOffice) -> None:
    office.quota = Quota(None, 5)
    box, room = office.maildir(ALICE), office.room(ALICE)
    assert room is not None
    box.prepare()
    Path(box.tmp, "name").write_bytes(MESSAGE)
    with room.taken(f"{box.tmp}/name"):
        fd = os.open(f"{box.path}/index.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


@in_office
async def test_a_prepared_message_has_its_place(office: PostOffice) -> None:
    """The relay has taken it, so that it must not fail any more."""
    office.quota = Quota(None, 1)
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    writer = MessageWriter(office, [ALICE], unique_name(), loop, changed.set, spool=True)
    writer.add(MESSAGE)
    writer.prepare()
    while not (writer.prepared or writer.done):
        await changed.wait()
        changed.clear()
    assert writer.prepared
    assert not await refused(office, ALICE)
    writer.commit()
    while not writer.done:
        await changed.wait()
        changed.clear()
    assert writer.error is None
    assert count(office, ALICE) == 2
    late = MessageWriter(office, [ALICE], unique_name(), loop, changed.set, spool=True)
    late.add(MESSAGE)
    late.prepare()
    while not (late.prepared or late.done):
        await changed.wait()
        changed.clear()
    assert isinstance(late.error, QuotaExceededError)


def test_a_damaged_index_does_not_stop_mail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "fastlisten.mail")

    async def main() -> None:
        async with opened(tmp_path) as office:
            office.quota = Quota(None, 1)
            root = Path(office.maildir(ALICE).path)
            office.maildir(ALICE).prepare()
            (root / "index.db").mkdir()
            assert [await refused(office, ALICE) for _ in range(2)] == [False, False]
            assert count(office, ALICE) == 2

    asyncio.run(main())
    assert "the quota cannot be checked" in caplog.text


@in_office
async def test_an_account_that_was_removed_and_came_back(office: PostOffice) -> None:
    office.quota = Quota(None, 2)
    assert [await refused(office, ALICE) for _ in range(3)] == [False, False, True]
    shutil.rmtree(office.maildir(ALICE).path)
    assert [await refused(office, ALICE) for _ in range(3)] == [False, False, True]


#: Delivers 8 messages at a time, and prints how many were taken.
PROGRAM = """
import asyncio, sys
from fastlisten.mail.accounts.quota import Quota
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.post_office import PostOffice
async def main():
    office = PostOffice.enter(sys.argv[1])
    office.quota = Quota(None, 11)
    account = Account("alice@example.org")
    sys.stdin.readline()
    tries = [office.deliver([account], b"x") for _ in range(8)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    await asyncio.to_thread(office.leave)
    print(sum(isinstance(result, str) for result in results))
asyncio.run(main())
"""


def test_the_last_place_is_taken_once_over_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    programs = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = []
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("go\n")
        program.stdin.flush()
    for program in programs:
        outputs.append(int(program.communicate()[0]))
        assert program.returncode == 0
    assert sum(outputs) == 11
    root = str(tmp_path / "mail" / ALICE.name)
    assert len(Maildir(root).messages()) == 11
    with index_of(root) as index:
        catch_up(index)
        assert sums(index).messages == 11
