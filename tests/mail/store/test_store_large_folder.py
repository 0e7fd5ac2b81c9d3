"""Folders of many messages: whoever else uses the loop, or another thread, is not kept waiting.

Rules of this file: with 50,000 messages it is counted how much is done at a time; nothing is timed.
With a million (soak), the lag of a ticker on the loop is measured; time for which the kernel let
others run is no lag of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.mail_store import index_of

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store import arrivals, files, folder_state
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.arrivals import Arrivals, arrival_order
from fastlisten.mail.store.changes import MANY, are_many, changes, loaded
from fastlisten.mail.store.files import Files, Found, Listing
from fastlisten.mail.store.folder_state import SLICE, FolderState
from fastlisten.mail.store.interface import Changes, Flag, MessageState, StoreMode

MANY_MESSAGES = 50_000


def filled(count: int) -> FolderState:
    state = FolderState()
    whole = folder_state.Loaded(count, count + 1)
    uids = list(range(1, count + 1))
    whole.add(uids, uids, [0] * count)
    state.load(whole)
    return state


def changed(state: FolderState, uids: list[int], modseq: int) -> Changes:
    those = [MessageState(uid, Flag.SEEN, (), modseq) for uid in uids]
    return Changes(modseq, state.uidnext, (), those, ())


# --- counted --------------------------------------------------------------------------------------


def test_names_are_sorted_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Chunk(list[Any]):
        def sort(self, **how: Any) -> None:
            sizes.append(len(self))
            super().sort(**how)

    names = [f"{1_700_000_000 + number}.M{number % 977}P{number}.host" for number in range(20_000)]
    random.Random(0).shuffle(names)
    some = Arrivals(lambda name, place: Found(name, 0, place, new=False))
    some._chunks = [Chunk()]
    for name in names:
        if len(some._chunks[-1]) == arrivals._CHUNK:
            some._chunks.append(Chunk())
        some.add(name, f"/{name}")
    found = [one for files in some.slices(500) for one in files]
    assert [one.name for one in found] == sorted(names, key=arrival_order)
    assert sum(sizes) == len(names)
    assert max(sizes) <= arrivals._CHUNK
    # All of it has been freed on the way.
    assert list(some.slices(500)) == []


def test_listing_makes_no_object_for_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Maildir(str(tmp_path))
    box.prepare()
    for number in range(5_000):
        os.close(os.open(f"{box.cur}/{number}.a:2,S", os.O_CREAT | os.O_WRONLY, 0o600))
    made = []
    real = Files.found

    def counting(self: Files, name: str, place: str) -> Found:
        made.append(name)
        return real(self, name, place)

    monkeypatch.setattr(Files, "found", counting)
    listing = Listing(box)
    assert len(listing.files) == 5_000
    assert made == []
    assert max(map(len, listing.files._tables)) < 5_000 / files._TABLES * 2
    assert listing.files["7.a"].bits == Flag.SEEN
    assert made == ["7.a"]


def test_rows_are_loaded_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = folder_state.Loaded.add

    def counting(self: folder_state.Loaded, uids: list[int], *columns: Any) -> int:
        sizes.append(len(uids))
        return real(self, uids, *columns)

    monkeypatch.setattr(folder_state.Loaded, "add", counting)
    with index_of(tmp_path) as index:
        ((folder,),) = index.query("SELECT id FROM folder")
        with index.locked(), index.transaction() as db:
            _insert(db, folder, MANY_MESSAGES)
        whole = loaded(index, folder)
    assert len(whole.uids) == MANY_MESSAGES == sum(sizes)
    assert max(sizes) <= SLICE


def _insert(db: Any, folder: int, count: int) -> None:
    """Insert rows of messages that have no files."""
    db.execute(
        "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)"
        " INSERT INTO email (id, createseq, modseq, size, eol, date, octets, mtime, inode)"
        " SELECT n, n, n, 1, 0, 0, 1, 0, n FROM number",
        (count,),
    )
    db.execute(
        "INSERT INTO message (folder, uid, email, name, flags, keywords, createseq, modseq)"
        " SELECT ?, id, id, id || '.a', 0, '', id, id FROM email",
        (folder,),
    )


class Counted(FolderState):
    """Counts the messages that are looked at."""

    __slots__ = ("looked",)

    def __init__(self) -> None:
        super().__init__()
        self.looked = 0

    def _at(self, place: int) -> MessageState:
        self.looked += 1
        return super()._at(place)


def counted(count: int) -> Counted:
    state = Counted()
    whole = folder_state.Loaded(count, count + 1)
    uids = list(range(1, count + 1))
    whole.add(uids, uids, [0] * count)
    state.load(whole)
    return state


def test_a_change_costs_as_much_as_it_changes() -> None:
    state = counted(MANY_MESSAGES)
    views = [state.view() for _ in range(3)]
    state.apply(changed(state, [7, 40_000], MANY_MESSAGES + 1))
    for view in views:
        assert not view.is_slow()
        assert [one.uid for one in view.advance(expunge=True).changed] == [7, 40_000]
    assert state.looked <= 6


def test_changes_of_many_messages_are_told_in_slices() -> None:
    state = counted(MANY_MESSAGES)
    view = state.view()
    rest = [uid for uid in range(1, MANY_MESSAGES) if uid % 3]
    for start in range(0, len(rest), 1_000):
        state.apply(changed(state, rest[start : start + 1_000], state.cursor + 1))
    assert view.is_slow()
    most = _most_at_a_time(state, view)
    assert most <= SLICE
    assert not view.is_slow()


def _most_at_a_time(state: Counted, view: folder_state.FolderView) -> int:
    """Tell a view; return how many messages were looked at in one turn of the loop."""
    most, ended = 0, False

    async def main() -> Changes:
        nonlocal ended
        watching = asyncio.create_task(watch())
        found = await view.advance_slowly(expunge=True)
        ended = True
        await watching
        return found

    async def watch() -> None:
        nonlocal most
        while not ended:
            before = state.looked
            await asyncio.sleep(0)
            most = max(most, state.looked - before)

    state.looked = 0
    found = asyncio.run(main())
    expected = [uid for uid in range(1, MANY_MESSAGES) if uid % 3]
    assert [one.uid for one in found.changed] == expected
    assert found.cursor == state.cursor == view.cursor
    return most


def test_changes_between_slices_are_told_the_next_time() -> None:
    state = filled(MANY_MESSAGES)
    view = state.view()
    whole = folder_state.Loaded(MANY_MESSAGES + 1, MANY_MESSAGES + 1)
    uids = list(range(1, MANY_MESSAGES + 1))
    whole.add(uids, [MANY_MESSAGES + 1] * MANY_MESSAGES, [1] * MANY_MESSAGES)
    state.load(whole)

    async def main() -> None:
        telling = asyncio.create_task(view.advance_slowly(expunge=True))
        await asyncio.sleep(0)
        last = changed(state, [1, 49_000], MANY_MESSAGES + 2)
        gone = Changes(last.cursor, state.uidnext, (), last.changed, [48_000])
        state.apply(gone)
        first = await telling
        told = {one.uid for one in first.changed}
        assert len(told) >= MANY_MESSAGES - 3
        second = view.advance(expunge=True)
        assert {1, 49_000} <= {one.uid for one in second.changed}
        assert [*first.gone, *second.gone] == [48_000]

    asyncio.run(main())


def test_many_changes_are_loaded_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the loop, only columns are exchanged."""
    applied = []
    real = FolderState.apply

    def counting(self: FolderState, one: Changes) -> None:
        applied.append(len(one.changed) + len(one.arrived) + len(one.gone))
        real(self, one)

    monkeypatch.setattr(FolderState, "apply", counting)
    count = 2 * MANY
    box = Maildir(str(tmp_path))
    box.prepare()
    for number in range(count):
        os.close(os.open(f"{box.cur}/{number}.a:2,S", os.O_CREAT | os.O_WRONLY, 0o600))

    async def main() -> None:
        async with opened(tmp_path) as account:
            one, two = await account.open("INBOX"), await account.open("INBOX")
            await one.store(one.uids(), StoreMode.ADD, Flag.DELETED)
            assert len((await two.sync()).changed) == count
            await one.expunge(list(one.uids())[10:])
            assert len((await two.sync()).gone) == count - 10
            assert len(two.uids()) == 10
            await one.store([1], StoreMode.ADD, Flag.FLAGGED)
            assert [one.uid for one in (await two.sync()).changed] == [1]

    asyncio.run(main())
    assert max(applied) < MANY


def test_indexes_are_used_in_large_folders(tmp_path: Path) -> None:
    """Or each look would go through all messages."""
    plans: list[str] = []
    with index_of(tmp_path) as index:
        index._db.set_trace_callback(plans.append)
        box = index.maildir
        os.close(os.open(f"{box.new}/1.a", os.O_CREAT | os.O_WRONLY, 0o600))
        ((folder,),) = index.query("SELECT id FROM folder")
        look(index, folder)
        changes(index, folder, 5)
        are_many(index, folder, 5)
        index._db.set_trace_callback(None)
        selects = {sql for sql in plans if sql.startswith("SELECT") and "FROM message" in sql}
        slow = []
        for sql in selects:
            for *_, detail in index.query(f"EXPLAIN QUERY PLAN {sql}"):
                if detail == "SEARCH message USING PRIMARY KEY (folder=?)":
                    slow.append(sql)
    assert len(selects) >= 3
    # To compare a directory with the index, all names are needed.
    assert [sql for sql in slow if "SELECT name, flags FROM message WHERE folder" not in sql] == []


# --- measured -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def opened(root: Path) -> AsyncIterator[MaildirAccount]:
    with ThreadPoolExecutor(4) as pool:
        account = MaildirAccount(str(root), pool)
        try:
            yield account
        finally:
            await account.close()


class Ticker:
    """Measures by how much a loop is late, every 5 ms."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.all = self.all_late = 0
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + 0.005
        self._waited = self._stolen()
        self._handle = self._loop.call_at(self._due, self._tick)

    @staticmethod
    def _stolen() -> float:
        """Return for how long threads of this process could have run, and others did.

        Of all of them, because one that has the interpreter may be among them.
        """
        total = 0
        for path in Path("/proc/self/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # a thread that has ended
                total += int(path.read_text().split()[1])
        return total / 1e9

    def _tick(self) -> None:
        now, stolen = self._loop.time(), self._stolen()
        self.late.append(now - self._due - (stolen - self._waited))
        self._waited, self._due = stolen, now + 0.005
        self._handle = self._loop.call_at(self._due, self._tick)

    async def during(self, what: str, work: Awaitable[Any]) -> Any:
        """Await something; print how long that took and how late the loop was."""
        self.late.clear()
        before = self._loop.time()
        result = await work
        await asyncio.sleep(0.02)
        took = self._loop.time() - before
        late = sum(one > 0.02 for one in self.late)
        print(f"{what}: {took:.2f} s, late by {1000 * max(self.late):.1f} ms at most, {late} times")
        self.all += len(self.late)
        self.all_late += late
        return result


@pytest.fixture
def million() -> Iterator[Path]:
    if not os.path.isdir("/dev/shm"):
        pytest.skip("needs a filesystem in memory")
    root = Path(tempfile.mkdtemp(dir="/dev/shm"))
    box = Maildir(str(root))
    box.prepare()
    (root / "seed").write_bytes(b"Subject: x\r\n\r\nx\r\n")
    for number in range(1_000_000):
        flags = "S" if number % 3 else ""
        os.link(root / "seed", f"{box.cur}/{1_700_000_000 + number}.M{number}P1.host:2,{flags}")
    # Of the objects of a test run, a collection takes 100 ms; a server has few.
    gc.collect()
    gc.freeze()
    yield root
    gc.unfreeze()
    shutil.rmtree(root)


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_a_million_messages(million: Path) -> None:
    async def main() -> None:
        async with opened(million) as account, opened(million) as other:
            ticker = Ticker()
            folder = await ticker.during("first open", account.open("INBOX"))
            assert len(folder.uids()) == 1_000_000
            await ticker.during("open again", account.open("INBOX"))
            await ticker.during("open in another worker", other.open("INBOX"))
            some = folder.uids()[:20_000]
            await ticker.during("STORE", folder.store(some, StoreMode.ADD, Flag.DELETED))
            await ticker.during("sync", folder.sync())
            await ticker.during("EXPUNGE", folder.expunge())
            await ticker.during("sync", folder.sync())
            assert len(folder.uids()) == 980_000
            # Some are, on a machine that is busy; without slices it would be one for seconds.
            assert ticker.all_late <= ticker.all // 100

    asyncio.run(main())
