"""Reading messages: the served form, files that others move or replace, structure that is kept."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from support.kernel import open_below
from support.mail_store import check_account, deliver, facts, inbox, index_of

from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.copying import copy
from fastlisten.mail.store.expunge import expunge
from fastlisten.mail.store.files import Inspected, inspect
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, MessageGoneError, StoreMode
from fastlisten.mail.store.reading import keep_structures, open_message


def stored(index: Index, content: bytes) -> int:
    """Store one message; return INBOX's id."""
    deliver(index.maildir, content, "1.a")
    look(index, inbox(index).id)
    return inbox(index).id


def served(index: Index, folder: int, uid: int = 1) -> bytes:
    message, _ = open_message(index, folder, uid)
    try:
        whole = message.read(0, message.size + 100)
        assert len(whole) == message.size
        return whole
    finally:
        message.close()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", b""),
        (b"a\r\n\0b", b"a\r\n\0b"),
        (b"a\r\nb\nc\r\n", b"a\r\nb\nc\r\n"),
        (b"a\nb\n\nc", b"a\r\nb\r\n\r\nc"),
        (b"a\nb\r\nc\rd\n", b"a\r\nb\r\nc\rd\r\n"),
    ],
)
def test_served_form(tmp_path: Path, content: bytes, expected: bytes) -> None:
    with index_of(tmp_path) as index:
        box = stored(index, content)
        assert served(index, box) == expected
        assert facts(index, box, [1])[0].size == len(expected)
        assert (Path(index.maildir.cur) / "1.a:2,").read_bytes() == content


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_any_part_of_a_large_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr("fastlisten.mail.store.reading._PIECE", 7)
    content = end.join(b"x" * (number % 11) for number in range(200))
    expected = content if end == b"\r\n" else content.replace(b"\n", b"\r\n")
    chance = random.Random(1)
    with index_of(tmp_path) as index:
        message, _ = open_message(index, stored(index, content), 1)
        assert message.size == len(expected)
        for _ in range(300):
            offset, size = chance.randrange(len(expected) + 20), chance.randrange(60)
            assert message.read(offset, size) == expected[offset : offset + size]
        message.close()
        assert open_below(Path(index.maildir.cur)) == []


def test_file_that_another_program_moved(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = stored(index, b"x")
        path = Path(index.maildir.cur) / "1.a:2,"
        path = path.rename(f"{index.maildir.cur}/1.a:2,FS")
        assert served(index, box) == b"x"
        path.rename(f"{index.maildir.new}/1.a")
        assert served(index, box) == b"x"


def test_message_that_is_gone(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = stored(index, b"x")
        for folder, uid in ((box, 2), (box + 1, 1)):
            with pytest.raises(MessageGoneError):
                open_message(index, folder, uid)
        os.unlink(f"{index.maildir.cur}/1.a:2,")
        with pytest.raises(MessageGoneError):
            open_message(index, box, 1)


def test_file_is_never_written_to(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = stored(index, b"a\nb\n")
        path = Path(index.maildir.cur) / "1.a:2,"
        path.chmod(0o400)
        before = path.stat()
        assert served(index, box) == b"a\r\nb\r\n"
        after = path.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_structure_is_kept_for_the_same_file_only(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        box = stored(index, b"first\n")
        keep_structures(index, box, {1: b"structure"})
        assert facts(index, box, [1, 2])[0].structure == b"structure"
        served(index, box)
        copy(index, box, [1], box)
        assert [one.structure for one in facts(index, box, [1, 2])] == [b"structure"] * 2
        served(index, box, 2)  # a link: the same file
        assert facts(index, box, [1])[0].structure == b"structure"
        # A restored backup: the same octets in another inode, or others.
        path = Path(index.maildir.cur) / "1.a:2,"
        path.unlink()
        path.write_bytes(b"another\nmessage\n")
        assert served(index, box) == b"another\r\nmessage\r\n"
        (one,) = facts(index, box, [1])
        assert (one.structure, one.size) == (None, 18)
        check_account(index)


def test_facts(tmp_path: Path) -> None:
    with index_of(tmp_path) as index:
        path = Path(index.maildir.new) / "1.a"
        path.write_bytes(b"x\n")
        os.utime(path, (1, 946_684_800.9))
        look(index, inbox(index).id)
        copy(index, inbox(index).id, [1], inbox(index).id)
        one, two = facts(index, inbox(index).id, [1, 2, 3])
        assert (one.uid, one.size, one.date) == (1, 3, 946_684_800)
        assert one.email_id == two.email_id
        assert one.email_id.startswith("E")


def test_a_replaced_file_whose_message_is_expunged_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the file is like now is of no use to the index then; it is read all the same."""
    with index_of(tmp_path) as index:
        box = stored(index, b"before\r\n")
        path = Path(index.maildir.cur) / "1.a:2,"
        path.unlink()
        path.write_bytes(b"afterwards\r\n")

        def inspected(name: str) -> Inspected | None:
            found = inspect(name)
            store(index, box, [1], StoreMode.ADD, Flag.DELETED)
            assert expunge(index, box) == [1]
            return found

        monkeypatch.setattr("fastlisten.mail.store.reading.inspect", inspected)
        assert served(index, box) == b"afterwards\r\n"
        check_account(index)
