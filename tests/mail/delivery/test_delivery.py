"""Delivery on real file systems that are full or read-only, and the post office's lifetime."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.deliveries import ALICE, BOB, WatchedDelivery, opened
from support.smtp_harness import ENVELOPE, body_of, codes, serve

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.delivery.message_writer import SPOOL_SIZE, MessageWriter
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import STALE_AFTER, Spool, unique_name

ONE = ENVELOPE + b"DATA\r\n"
BOTH = ENVELOPE + b"RCPT TO:<bob@example.org>\r\nDATA\r\n"


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts small file systems, and unmounts them."""
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


def test_full_disk(volume: Callable[[str], Path]) -> None:
    root = volume("size=1m")
    message = b"x" * 998 + b"\r\n"
    with serve(root) as server:
        assert codes(server.say(BOTH + message * 200 + b".\r\nQUIT\r\n"))[-2:] == [250, 221]
        said = server.say(BOTH + message * 1000 + b".\r\nQUIT\r\n")
        assert codes(said)[-2:] == [452, 221]
        assert b"452 4.3.1 " in said
        assert len(stored(root)) == 2
        assert server.left_over() == []
        # The space is free again.
        assert codes(server.say(BOTH + message * 300 + b".\r\nQUIT\r\n"))[-2:] == [250, 221]
        assert [len(body_of(text)) for text in server.delivered()] == [200_000, 300_000]


def test_disk_without_free_inodes(volume: Callable[[str], Path]) -> None:
    root = volume("size=10m,nr_inodes=12")
    # Root, accounts, mail, two maildirs of four each: eleven. On tmpfs a link counts as an inode
    # too, so that a message for two fails at the link, one for one fits, and the next does not.
    with serve(root) as server:
        Maildir(str(root / "mail" / ALICE.directory)).prepare()
        Maildir(str(root / "mail" / BOB.directory)).prepare()
        for envelope, code in ((BOTH, 452), (ONE, 250), (ONE, 452)):
            said = server.say(envelope + str(code).encode() + b"\r\n.\r\nQUIT\r\n")
            assert codes(said)[-2:] == [code, 221]
            assert server.left_over() == []
        assert [body_of(text) for text in server.delivered()] == [b"250\r\n"]
        assert server.delivered(BOB.name) == []


def test_read_only_disk(volume: Callable[[str], Path]) -> None:
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
def test_lmtp_replies_per_recipient_if_one_disk_is_full(
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
        # More than fits, so that the disk becomes full in the middle.
        said = server.say(envelope + message * 2000 + b".\r\nQUIT\r\n")
        expected = [452, 250] if full is ALICE else [250, 452]
        assert codes(said)[-3:] == [*expected, 221]
        assert [len(body_of(text)) for text in server.delivered(lucky.name)] == [3, 2_000_000]
        assert [len(body_of(text)) for text in server.delivered(full.name)] == [3]
        assert server.left_over() == []


@pytest.mark.parametrize("accounts", [[], [ALICE]])
def test_full_disk_with_spool(volume: Callable[[str], Path], accounts: list[Account]) -> None:
    root = volume("size=1m")

    async def main() -> None:
        async with opened(root) as office:
            for size, error in ((2_000_000, errno.ENOSPC), (10, None), (2_000_000, errno.ENOSPC)):
                watched = WatchedDelivery(office, accounts, spool=True)
                watched.delivery.add(b"x" * size)
                await watched.commit()
                found = watched.delivery.error
                assert (found.errno if found else None) == error
                assert not list((root / "spool" / "tmp").iterdir())

    asyncio.run(main())
    assert len(stored(root)) == len(accounts)


def test_mail_directory_cannot_be_created(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        (tmp_path / "mail").write_text("not a directory")
        assert codes(server.say(BOTH + b"x\r\n.\r\nQUIT\r\n"))[-2:] == [451, 221]


# --- the post office ------------------------------------------------------------------------------


def test_post_office_is_shared_by_listeners(tmp_path: Path) -> None:
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


def test_leftovers_of_crashes_are_removed_at_start(
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
    assert "cannot clean" in caplog.text  # the file among the maildirs


def test_messages_of_every_size(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as office:
            for size in (0, 1, SPOOL_SIZE - 1, SPOOL_SIZE, SPOOL_SIZE + 1, 5 * SPOOL_SIZE):
                content = os.urandom(size)
                watched = WatchedDelivery(office, [ALICE, BOB])
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


def test_messages_are_abandoned_at_every_stage(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as office:
            for rounds in range(40):
                watched = WatchedDelivery(office, [ALICE])
                for _ in range(rounds % 8):
                    watched.delivery.add(b"x" * 50_000)
                    await asyncio.sleep(0.0005 * (rounds % 3))
                watched.delivery.abort()
                assert watched.delivery.full is False
        assert stored(tmp_path) == []

    asyncio.run(main())


def test_closed_loop_leaves_no_files(tmp_path: Path) -> None:
    office = PostOffice.enter(str(tmp_path))
    loop = asyncio.new_event_loop()
    delivery = MessageWriter(office, [ALICE], unique_name(), loop, lambda: None)
    loop.close()
    delivery.add(b"x" * SPOOL_SIZE)
    office.leave()
    assert stored(tmp_path) == []


def test_error_is_kept_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("not a directory")

    async def main() -> None:
        async with opened(tmp_path) as office:
            watched = WatchedDelivery(office, [ALICE])
            watched.delivery.add(b"x" * SPOOL_SIZE)
            await watched.changed.wait()
            assert watched.delivery.error is not None
            assert watched.delivery.error.errno in (errno.ENOTDIR, errno.EEXIST)
            assert not watched.delivery.done
            watched.delivery.add(b"x" * SPOOL_SIZE)
            assert not watched.delivery.full
            await watched.commit()

    asyncio.run(main())
