"""Delivery on file systems that are full or read-only for real, and the post office's life."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.smtp_harness import ENVELOPE, body_of, codes, serve

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.message_writer import SPOOL_SIZE, MessageWriter
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import STALE_AFTER, Spool, unique_name

ALICE, BOB = Account("alice@example.org"), Account("bob@example.org")
ONE = ENVELOPE + b"DATA\r\n"
BOTH = ENVELOPE + b"RCPT TO:<bob@example.org>\r\nDATA\r\n"


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts small file systems, and takes them down again."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    mounted: list[Path] = []

    def make(options: str) -> Path:
        path = tmp_path / f"volume{len(mounted)}"
        path.mkdir()
        mount("-t", "tmpfs", "-o", options, "tmpfs", str(path))
        mounted.append(path)
        return path

    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def stored(root: Path) -> list[Path]:
    return [path for path in (root / "mail").rglob("*") if path.is_file()]


def test_a_full_disk_loses_and_leaves_nothing(volume: Callable[[str], Path]) -> None:
    root = volume("size=1m")
    message = b"x" * 998 + b"\r\n"
    with serve(root) as server:
        assert codes(server.say(BOTH + message * 200 + b".\r\nQUIT\r\n"))[-2:] == [250, 221]
        said = server.say(BOTH + message * 1000 + b".\r\nQUIT\r\n")
        assert codes(said)[-2:] == [452, 221]
        assert b"452 4.3.1 " in said
        assert len(stored(root)) == 2
        assert server.left_over() == []
        # Afterwards there is as much room as before.
        assert codes(server.say(BOTH + message * 300 + b".\r\nQUIT\r\n"))[-2:] == [250, 221]
        assert [len(body_of(text)) for text in server.delivered()] == [200_000, 300_000]


def test_a_disk_without_inodes_loses_and_leaves_nothing(volume: Callable[[str], Path]) -> None:
    root = volume("size=10m,nr_inodes=12")
    # Root, accounts, mail, two maildirs of four: eleven. On tmpfs a link counts as an inode too,
    # so that a message for two fails at the link, one for one has room, and the next has none.
    with serve(root) as server:
        Maildir(str(root / "mail" / ALICE.directory)).prepare()
        Maildir(str(root / "mail" / BOB.directory)).prepare()
        for envelope, code in ((BOTH, 452), (ONE, 250), (ONE, 452)):
            said = server.say(envelope + str(code).encode() + b"\r\n.\r\nQUIT\r\n")
            assert codes(said)[-2:] == [code, 221]
            assert server.left_over() == []
        assert [body_of(text) for text in server.delivered()] == [b"250\r\n"]
        assert server.delivered(BOB.name) == []


def test_a_read_only_disk(volume: Callable[[str], Path]) -> None:
    root = volume("size=1m")
    with serve(root) as server:
        mount("-o", "remount,ro", str(root))
        said = server.say(BOTH + b"x\r\n.\r\nQUIT\r\n")
        assert codes(said)[-2:] == [451, 221]
        assert b"451 4.3.0 " in said
        mount("-o", "remount,rw", str(root))
        assert codes(server.say(BOTH + b"x\r\n.\r\nQUIT\r\n"))[-2:] == [250, 221]
        assert len(stored(root)) == 2


def test_maildirs_on_two_disks(volume: Callable[[str], Path], tmp_path: Path) -> None:
    other = volume("size=1m")
    with serve(tmp_path) as server:
        (tmp_path / "mail").mkdir()
        (tmp_path / "mail" / BOB.name).symlink_to(other / "bob")
        (other / "bob").mkdir()
        assert codes(server.say(BOTH + b"x\r\n.\r\nQUIT\r\n"))[-2:] == [250, 221]
        for account in (ALICE, BOB):
            (text,) = server.delivered(account.name)
            assert body_of(text) == b"x\r\n"
        # The second disk is full: the first recipient does not get it either.
        (other / "filler").write_bytes(b"x" * 900_000)
        message = b"x" * 998 + b"\r\n"
        said = server.say(BOTH + message * 300 + b".\r\nQUIT\r\n")
        assert codes(said)[-2:] == [452, 221]
        assert len(server.delivered()) == len(server.delivered(BOB.name)) == 1
        assert server.left_over() == []


@pytest.mark.parametrize("full", [ALICE, BOB])
def test_lmtp_tells_each_recipient_what_holds_for_him(
    volume: Callable[[str], Path], tmp_path: Path, full: Account
) -> None:
    other = volume("size=1m")
    lucky = BOB if full is ALICE else ALICE
    envelope = BOTH.replace(b"EHLO", b"LHLO")
    with serve(tmp_path, lmtp=True) as server:
        (tmp_path / "mail").mkdir()
        (tmp_path / "mail" / full.name).symlink_to(other / "it")
        (other / "it").mkdir()
        assert codes(server.say(envelope + b"x\r\n.\r\nQUIT\r\n"))[-3:] == [250, 250, 221]
        message = b"x" * 998 + b"\r\n"
        # More than there is room for, so that the disk is full in the middle.
        said = server.say(envelope + message * 2000 + b".\r\nQUIT\r\n")
        expected = [452, 250] if full is ALICE else [250, 452]
        assert codes(said)[-3:] == [*expected, 221]
        assert [len(body_of(text)) for text in server.delivered(lucky.name)] == [3, 2_000_000]
        assert [len(body_of(text)) for text in server.delivered(full.name)] == [3]
        assert server.left_over() == []


@pytest.mark.parametrize("accounts", [[], [ALICE]])
def test_a_full_disk_takes_nothing_into_the_spool(
    volume: Callable[[str], Path], accounts: list[Account]
) -> None:
    root = volume("size=1m")

    async def main() -> None:
        async with opened(root) as office:
            for size, error in ((2_000_000, errno.ENOSPC), (10, None), (2_000_000, errno.ENOSPC)):
                watched = Watched(office, accounts, spool=True)
                watched.delivery.add(b"x" * size)
                await watched.commit()
                found = watched.delivery.error
                assert (found.errno if found else None) == error
                assert not list((root / "spool" / "tmp").iterdir())

    asyncio.run(main())
    assert len(stored(root)) == len(accounts)


def test_rights_that_are_missing(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        (tmp_path / "mail").write_text("not a directory")
        assert codes(server.say(BOTH + b"x\r\n.\r\nQUIT\r\n"))[-2:] == [451, 221]


# --- the post office ------------------------------------------------------------------------------


def test_listeners_share_a_post_office(tmp_path: Path) -> None:
    first = PostOffice.enter(str(tmp_path))
    assert PostOffice.enter(str(tmp_path), str(tmp_path / "accounts.toml")) is first
    other = PostOffice.enter(str(tmp_path), str(tmp_path / "other.toml"))
    assert other is not first
    other.leave()
    first.leave()
    assert PostOffice.enter(str(tmp_path)) is first
    first.leave()
    first.leave()
    again = PostOffice.enter(str(tmp_path))
    assert again is not first
    again.leave()


def test_what_crashes_left_is_removed_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Maildir(str(tmp_path / "mail" / "gone@example.org"))
    box.prepare()
    (Path(box.tmp) / "old").write_bytes(b"x")
    os.utime(Path(box.tmp) / "old", (time.time() - STALE_AFTER - 1,) * 2)
    (Path(box.tmp) / "new").write_bytes(b"x")
    (tmp_path / "mail" / "a file").write_bytes(b"x")
    for place in (box.create_folder("Work"), Spool(str(tmp_path / "spool"))):
        place.prepare()
        (Path(place.tmp) / "old").write_bytes(b"x")
        os.utime(Path(place.tmp) / "old", (time.time() - STALE_AFTER - 1,) * 2)
    office = PostOffice.enter(str(tmp_path))
    assert office.cleaned.result(20) == 3
    office.leave()
    assert [path.name for path in Path(box.tmp).iterdir()] == ["new"]
    assert "cannot clean" in caplog.text  # the file that is no maildir


@contextlib.asynccontextmanager
async def opened(tmp_path: Path):  # type: ignore[no-untyped-def]
    office = PostOffice.enter(str(tmp_path))
    try:
        yield office
    finally:
        await asyncio.to_thread(office.leave)


class Watched:
    """A delivery whose end can be awaited."""

    def __init__(self, office: PostOffice, accounts: list[Account], spool: bool = False) -> None:
        self.changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.delivery = MessageWriter(
            office, accounts, unique_name(), loop, self.changed.set, spool=spool
        )

    async def commit(self) -> None:
        self.delivery.commit()
        while not self.delivery.done:
            self.changed.clear()
            await self.changed.wait()


def test_letters_of_every_size(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as office:
            for size in (0, 1, SPOOL_SIZE - 1, SPOOL_SIZE, SPOOL_SIZE + 1, 5 * SPOOL_SIZE):
                content = os.urandom(size)
                watched = Watched(office, [ALICE, BOB])
                for start in range(0, size, 10_000):
                    watched.delivery.add(content[start : start + 10_000])
                await watched.commit()
                assert watched.delivery.error is None
                assert watched.delivery.size == size
                for account in (ALICE, BOB):
                    (path,) = Path(office.maildir(account).new).iterdir()
                    assert path.read_bytes() == content
                    path.unlink()

    asyncio.run(main())


def test_letters_are_abandoned_at_every_stage(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as office:
            for rounds in range(40):
                watched = Watched(office, [ALICE])
                for _ in range(rounds % 8):
                    watched.delivery.add(b"x" * 50_000)
                    await asyncio.sleep(0.0005 * (rounds % 3))
                watched.delivery.abort()
                assert watched.delivery.full is False
        assert stored(tmp_path) == []

    asyncio.run(main())


def test_a_loop_that_is_gone_leaves_nothing(tmp_path: Path) -> None:
    office = PostOffice.enter(str(tmp_path))
    loop = asyncio.new_event_loop()
    delivery = MessageWriter(office, [ALICE], unique_name(), loop, lambda: None)
    loop.close()
    delivery.add(b"x" * SPOOL_SIZE)
    office.leave()
    assert stored(tmp_path) == []


def test_an_error_is_kept_and_told_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("not a directory")

    async def main() -> None:
        async with opened(tmp_path) as office:
            watched = Watched(office, [ALICE])
            watched.delivery.add(b"x" * SPOOL_SIZE)
            await watched.changed.wait()
            assert watched.delivery.error is not None
            assert watched.delivery.error.errno in (errno.ENOTDIR, errno.EEXIST)
            assert not watched.delivery.done
            watched.delivery.add(b"x" * SPOOL_SIZE)
            assert not watched.delivery.full
            await watched.commit()

    asyncio.run(main())
