"""A filesystem of a few megabytes that is filled up to the last page while the store works.

Rules of this file: it runs in a process of its own (`python -m support.small_disk WORK STEP
DIRECTORY`) in a mount namespace of its own, so that the filesystem goes with it. A piece of work is
tried with no page free, then with some more each time, until it succeeds. Each time it may succeed
or be refused as a whole; then there is space again, the same work is done, and everything is
checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.interface import (
    Account,
    Flag,
    Folder,
    StoreError,
    StoreFullError,
    StoreMode,
    StoreUnavailableError,
)
from support.mail_store import check_account, deliver, index_of
from support.store_kills import contents_of, settle

__all__ = ["in_namespace", "on_small_disk"]

_PAGE = 4096

#: More pages than any of the work takes.
_MOST = 60


def in_namespace(module: str, *arguments: str) -> None:
    """Run a module with an empty tmpfs of 8 MiB, whose directory is its last argument."""
    if os.geteuid():
        pytest.skip("only root can mount a filesystem")
    script = 'mount -t tmpfs -o size=8m,mode=700 tmpfs "$0" && exec "$@" "$0"'
    path = os.pathsep.join(entry for entry in sys.path if entry)
    place = arguments[-1]
    command = [sys.executable, "-m", module, *arguments[:-1]]
    unshare = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    done = subprocess.run(
        [*unshare, "sh", "-c", script, place, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]


def on_small_disk(work: str, directory: Path, step: int = 1) -> None:
    """Try a piece of work.

    Args:
        work: the name of a function below.
        directory: an empty one.
        step: how many pages more are free each time.
    """
    in_namespace("support.small_disk", work, str(step), str(directory))


def fill(ballast: str, leave: int) -> None:
    """Write until nothing is left, then leave some pages free."""
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        size = 0
        with contextlib.suppress(OSError):
            while True:
                size += os.write(fd, bytes(_PAGE))
        os.ftruncate(fd, max(0, (size // _PAGE - leave) * _PAGE))
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def opened(root: str) -> AsyncIterator[Account]:
    with ThreadPoolExecutor(2) as pool:
        account = MaildirAccount(root, pool)
        try:
            yield account
        finally:
            await account.close()


# --- pieces of work -------------------------------------------------------------------------------

#: Large enough to need pages of its own.
BODY = b"Subject: x\r\n\r\n" + b"x" * 3 * _PAGE

State = dict[str, Counter[tuple[bytes, int, str]]]

Work = Callable[[Account, Folder, Folder], Awaitable[object]]


async def append(account: Account, box: Folder, work: Folder) -> None:
    appending = await account.append("Work")
    try:
        for text in (b"first", b"second"):
            await appending.begin(Flag.SEEN, ["New"])
            await appending.add(text + BODY)
        await appending.commit()
    finally:
        await appending.abort()


async def store(account: Account, box: Folder, work: Folder) -> None:
    await box.store(box.uids(), StoreMode.ADD, Flag.FLAGGED, ["Word", "Other"])


async def expunge(account: Account, box: Folder, work: Folder) -> None:
    await box.store(list(box.uids())[:20], StoreMode.ADD, Flag.DELETED)
    await box.expunge()


async def copy(account: Account, box: Folder, work: Folder) -> None:
    await box.copy(list(box.uids()), "Work")


async def move(account: Account, box: Folder, work: Folder) -> None:
    await box.move(list(box.uids()), "Work")


async def create(account: Account, box: Folder, work: Folder) -> None:
    if not any(one.name == "New" and one.exists for one in await account.folders()):
        await account.create("New", "Archive")


async def absorb(account: Account, box: Folder, work: Folder) -> None:
    """Whether what has arrived can be shown or not, the rest is."""
    await box.sync()
    assert len(box.uids()) >= MESSAGES


async def select(account: Account, box: Folder, work: Folder) -> None:
    """A folder that is known opens, and is read, whatever is free."""
    folder = await account.open("INBOX")
    assert list(folder.uids())[:MESSAGES] == list(range(1, MESSAGES + 1))
    message = await folder.message(1)
    assert await message.read(0, 100) == b"m0"
    message.close()
    assert [one.name for one in await account.folders()] == ["INBOX", "Work"]
    assert (await account.status("INBOX")).messages >= MESSAGES


MESSAGES = 40


def prepare(root: str) -> None:
    with index_of(root) as index:
        for number in range(MESSAGES):
            deliver(index.maildir, b"m%d" % number, f"{number}.a")

    async def main() -> None:
        async with opened(root) as account:
            await account.create("Work")
            await account.open("INBOX")

    asyncio.run(main())


def state(root: str) -> State:
    """Return what each folder has, after everything has been looked at."""
    with index_of(root) as index:
        settle(index)
        check_account(index)
        found = {}
        for folder, name in index.query("SELECT id, name FROM folder"):
            found[name] = Counter(contents_of(index, folder).values())
        return found


async def attempt(root: str, work: Work, ballast: str, leave: int) -> bool:
    """Do it with some pages free; return whether it succeeded."""
    if work is select:  # by a process that has just started
        for number in range(5):
            deliver(root, b"new" + BODY, f"9{number}.new")
        fill(ballast, leave)
        try:
            async with opened(root) as account:
                folder = await account.open("INBOX")
                await work(account, folder, folder)
        finally:
            os.unlink(ballast)
        return True
    async with opened(root) as account:
        box, other = await account.open("INBOX"), await account.open("Work")
        for number in range(5):
            deliver(root, b"new" + BODY, f"9{number}.new")
        fill(ballast, leave)
        try:
            await work(account, box, other)
        except StoreFullError:
            return False
        finally:
            os.unlink(ballast)
    return True


async def again(root: str, work: Work) -> None:
    async with opened(root) as account:
        box, other = await account.open("INBOX"), await account.open("Work")
        await work(account, box, other)


def main(name: str, step: str, place: str) -> None:
    """Try a piece of work with more and more space."""
    if name == "read_only":
        read_only(place)
        return
    work: Work = globals()[name]
    refused = 0
    for leave in range(0, _MOST, int(step)):
        root = f"{place}/account"
        prepare(root)
        try:
            done = asyncio.run(attempt(root, work, f"{place}/ballast", leave))
        except StoreError as error:
            raise AssertionError(f"{leave} pages: {error!r}") from error
        found = state(root)
        judge(name, found, done, leave)
        if not done:
            refused += 1
            asyncio.run(again(root, work))
            judge(name, state(root), True, leave)
        shutil.rmtree(root)
        if done and leave > 12:
            break
    assert done
    # The rest says that there was too little space to do it.
    assert (refused > 0) == (name not in ("absorb", "select"))


async def on_read_only(root: str, place: str) -> None:
    """Read what there is; be refused politely; go on when it can be written again."""
    async with opened(root) as account:
        remount(place, "ro")
        box = await account.open("INBOX")
        await select(account, box, box)
        assert await account.status("Work")
        assert len(box.uids()) == MESSAGES
        refused: list[Awaitable[object]] = [
            box.store([1], StoreMode.ADD, Flag.SEEN),
            append(account, box, box),
            copy(account, box, box),
            account.create("New"),
            account.delete("Work"),
        ]
        for one in refused:
            try:
                await one
            except StoreUnavailableError:
                continue
            raise AssertionError("it cannot have been done")
        remount(place, "rw")
        await box.store([1], StoreMode.ADD, Flag.SEEN)
        again = await account.open("INBOX")
        assert len(again.uids()) == MESSAGES + 5
        await append(account, box, box)


def remount(place: str, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)


def read_only(place: str) -> None:
    """Let a filesystem be read-only for a while."""
    root = f"{place}/account"
    prepare(root)
    for number in range(5):
        deliver(root, b"new", f"9{number}.new")
    asyncio.run(on_read_only(root, place))
    found = state(root)
    assert found[".Work"].total() == 2
    assert found[""].total() == MESSAGES + 5


def judge(name: str, found: State, done: bool, at: int) -> None:
    """Check that it has been done as a whole, or not at all."""
    inbox, work = found[""], found[".Work"]
    mine = Counter({one: count for one, count in inbox.items() if not one[0].startswith(b"new")})
    arrived = [one for one in (*inbox.elements(), *work.elements()) if one[0].startswith(b"new")]
    assert len(arrived) == 5 or name == "copy"
    plain = {b"m%d" % number for number in range(MESSAGES)}
    note = f"{name}, {at} pages free, done: {done}: {len(mine)} {len(work)}"
    if name == "append":
        assert work.total() == (2 if done else 0), note
    elif name == "copy":
        assert {one[0] for one in work if one[0] in plain} == (plain if done else set()), note
        assert max((n for one, n in work.items() if one[0] in plain), default=1) == 1, note
    elif name == "move":
        both = Counter(one[0] for one in (*mine.elements(), *work.elements()) if one[0] in plain)
        assert both == Counter(plain), note
    elif name == "expunge":
        left = {one[0] for one in mine}
        assert len(left) == len(plain) - 20 if done else len(left) in (len(plain), len(plain) - 20)
    else:
        assert {one[0] for one in mine} == plain, note
        assert mine.total() == len(plain), note
    if name == "store" and done:
        assert all(one[1] == Flag.FLAGGED and one[2] == "Other Word" for one in mine), note


if __name__ == "__main__":
    main(*sys.argv[1:])
