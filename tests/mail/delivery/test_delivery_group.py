"""Group commit: messages that are ready together share syncs, but not failures.

Rules of this file: messages become ready together because all threads of the pool are kept busy,
not by timing. Syncs are counted by the kind of their descriptor.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import functools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.deliveries import ALICE, ALL, BOB, CAROL, WatchedDelivery, files, in_office, new

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery import delivery_queue, storage
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.delivery.staged_message import StagedMessage

#: As many as one mailbox may get at the same moment.
MANY = 40


class Syncs:
    """Counts what is synced.

    Attributes:
        directories: how often each was, by its path.
        files: how many files were.
    """

    def __init__(self) -> None:
        self.directories = collections.Counter[str]()
        self.files = 0
        self._lock = threading.Lock()
        self._real = os.fsync

    def sync(self, fd: int) -> None:
        self._real(fd)
        with self._lock:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                self.directories[os.readlink(f"/proc/self/fd/{fd}")] += 1
            else:
                self.files += 1


@contextlib.contextmanager
def counted() -> Iterator[Syncs]:
    syncs = Syncs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", syncs.sync)
        yield syncs


@contextlib.contextmanager
def all_threads_busy(office: PostOffice) -> Iterator[None]:
    """Keep all threads of the pool busy: what is handed over meanwhile is ready together."""
    done = threading.Event()
    for _ in range(storage.THREADS):
        office.submit(lambda: (done.wait(20), None)[1])
    try:
        yield
    finally:
        done.set()


@contextlib.contextmanager
def one_thread(office: PostOffice) -> Iterator[None]:
    """Let one thread work on what is handed over in the block, after its end."""
    with all_threads_busy(office):
        office.queue._threads = 1
        yield


async def ready_together(
    office: PostOffice, *recipients: list[Account], **options: bool
) -> list[WatchedDelivery]:
    """Hand over a message for each list of recipients; return them when all have been answered."""
    messages = [WatchedDelivery(office, to, **options) for to in recipients]
    for number, message in enumerate(messages):
        message.delivery.add(b"%d" % number)
    with one_thread(office):
        for message in messages:
            message.delivery.commit()
    for message in messages:
        await message.until(lambda it: it.done)
    return messages


async def prepared(office: PostOffice) -> None:
    """Let the mailboxes exist: their making syncs directories too."""
    for account in ALL:
        await asyncio.to_thread(office.maildir(account).prepare)


@in_office
async def test_messages_for_a_mailbox_share_its_directory_sync(office: PostOffice) -> None:
    await prepared(office)
    messages = [WatchedDelivery(office, [ALICE]) for _ in range(MANY)]
    with counted() as syncs:
        with all_threads_busy(office):
            for number, message in enumerate(messages):
                message.delivery.add(b"%d" % number)
                message.delivery.commit()
        for message in messages:
            await message.until(lambda it: it.done)
            assert message.delivery.error is None
    assert syncs.files == MANY
    # One for each group, and at most as many groups as it takes when each thread takes its share.
    assert list(syncs.directories) == [office.maildir(ALICE).new]
    assert 1 <= syncs.directories.total() <= 2 * storage.THREADS < MANY
    assert files(office) == new(ALICE) * MANY


@in_office
async def test_group_syncs_each_directory_once(office: PostOffice) -> None:
    await prepared(office)
    with counted() as syncs:
        await ready_together(office, [ALICE, BOB], [BOB], [BOB, CAROL], [CAROL], [ALICE])
    assert syncs.files == 5
    assert dict(syncs.directories) == {office.maildir(one).new: 1 for one in ALL}
    assert files(office) == sorted(new(ALICE, BOB, BOB, BOB, CAROL, CAROL, ALICE))


@in_office
async def test_group_size_is_limited(office: PostOffice) -> None:
    await prepared(office)
    with counted() as syncs:
        await ready_together(office, *([ALICE] for _ in range(MANY)))
    groups = -(-MANY // delivery_queue.LARGEST_GROUP)
    assert syncs.directories.total() == groups


@in_office
async def test_no_result_before_both_syncs(office: PostOffice) -> None:
    await prepared(office)
    calls, real = [], {name: getattr(os, name) for name in ("fsync", "rename")}

    def noted_sync(fd: int) -> None:
        calls.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real["fsync"](fd)

    def noted_rename(*arguments: str) -> None:
        calls.append("rename")
        real["rename"](*arguments)

    def told(then: Callable[[], None]) -> None:
        calls.append("told")
        then()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", noted_sync)
        patch.setattr(os, "rename", noted_rename)
        messages = [WatchedDelivery(office, [account]) for account in ALL]
        with one_thread(office):
            for message in messages:
                changed = message.changed.set
                message.delivery._changed = functools.partial(told, changed)
                message.delivery.add(b"x")
                message.delivery.commit()
        for message in messages:
            await message.until(lambda it: it.done)
    assert calls == [*["file"] * 3, *["rename"] * 3, *["directory"] * 3, *["told"] * 3]


@in_office
async def test_single_message_is_committed_at_once(office: PostOffice) -> None:
    await prepared(office)

    def fail(*_: object) -> None:
        raise AssertionError("a timer")

    with pytest.MonkeyPatch.context() as patch:
        loop = asyncio.get_running_loop()
        patch.setattr(loop, "call_later", fail)
        patch.setattr(loop, "call_at", fail)
        message = WatchedDelivery(office, [ALICE])
        message.delivery.add(b"x")
        taken, real = threading.Event(), office.queue._work

        def work() -> None:
            taken.set()
            real()

        patch.setattr(delivery_queue.DeliveryQueue, "_work", lambda self: work())
        message.delivery.commit()
        assert taken.wait(20)  # although the loop has not run since
        await message.until(lambda it: it.done)
    assert files(office) == new(ALICE)


# --- errors ---------------------------------------------------------------------------------------


def failing(call: str, where: str) -> contextlib.AbstractContextManager[None]:
    """Let a call fail whose argument is below a path, or is a descriptor of something there."""

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        real = getattr(os, call)

        def wrapped(first: int | str, *more: object) -> object:
            path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else first
            if where in path:
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return real(first, *more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, call, wrapped)
            yield

    return patched()


@pytest.mark.parametrize(
    ("call", "where"),
    [("fsync", "bob@example.org/tmp/"), ("rename", "bob@"), ("fsync", "bob@example.org/new")],
)
@pytest.mark.parametrize("independent", [False, True])
def test_error_fails_only_the_affected_messages(
    tmp_path: Path, call: str, where: str, independent: bool
) -> None:
    """BOB's disk fails: other messages are delivered, those for both as SMTP or LMTP requires."""

    @in_office
    async def scene(office: PostOffice) -> None:
        await prepared(office)
        to = [[ALICE], [BOB], [ALICE, BOB], [CAROL], [BOB], [CAROL, ALICE]]
        with failing(call, where):
            messages = await ready_together(office, *to, independent=independent)
        delivered = []
        for accounts, message in zip(to, messages, strict=True):
            delivery, concerned = message.delivery, BOB in accounts
            # A shared file is written in the first recipient's tmp/: there BOB's only if alone.
            if where.endswith("tmp/"):
                concerned = accounts[0] is BOB
            if concerned and (accounts == [BOB] or not independent):
                assert delivery.error is not None
                assert delivery.error.errno == errno.EIO
                continue
            assert delivery.error is None
            lost = [BOB.name] if concerned else []
            assert list(delivery.errors) == lost
            delivered += [account for account in accounts if account.name not in lost]
        assert files(office) == sorted(new(*delivered))

    scene(tmp_path)


@in_office
async def test_internal_error_fails_only_one_message(office: PostOffice) -> None:
    await prepared(office)
    messages = [WatchedDelivery(office, [account]) for account in ALL]
    victim = messages[1].delivery._staged.name
    move, discard = StagedMessage.move, StagedMessage.discard

    def fail(self: StagedMessage) -> list[str]:
        if self.name == victim:
            raise ZeroDivisionError
        return move(self)

    def fail_too(self: StagedMessage) -> None:
        discard(self)
        if self.name == victim:
            raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StagedMessage, "move", fail)
        patch.setattr(StagedMessage, "discard", fail_too)
        with one_thread(office):
            for message in messages:
                message.delivery.add(b"x")
                message.delivery.commit()
        for message in messages:
            await message.until(lambda it: it.done)
    errors = [message.delivery.error for message in messages]
    assert [error and error.errno for error in errors] == [None, errno.EIO, None]
    assert files(office) == new(ALICE, CAROL)


@in_office
async def test_failing_callback_does_not_delay_others(office: PostOffice) -> None:
    messages = [WatchedDelivery(office, [ALICE]) for _ in range(3)]

    def fail() -> None:
        raise ZeroDivisionError

    messages[0].delivery._changed = fail
    with one_thread(office):
        for message in messages:
            message.delivery.add(b"x")
            message.delivery.commit()
    for message in messages[1:]:
        await message.until(lambda it: it.done)
    assert files(office) == new(ALICE) * 3


@in_office
async def test_aborted_message_of_a_group_is_not_delivered(office: PostOffice) -> None:
    await prepared(office)
    messages = [WatchedDelivery(office, [account]) for account in ALL]
    reached, go, real = threading.Event(), threading.Event(), os.fsync

    def wait(fd: int) -> None:
        real(fd)
        reached.set()
        assert go.wait(20)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", wait)
        with one_thread(office):
            for message in messages:
                message.delivery.add(b"x")
                message.delivery.commit()
        assert await asyncio.to_thread(reached.wait, 20)
        messages[0].delivery.abort()  # its file has been synced already
        messages[2].delivery.abort()  # its turn has not come
        go.set()
        await messages[1].until(lambda it: it.done)
    while files(office) != new(BOB):
        await asyncio.sleep(0)
