"""Import of another server's files at the first open: UIDs, keywords, subscriptions, damaged files.

Rules of this file: the files are written as Dovecot and Courier write them; what a real Dovecot has
written is in test_store_import_dovecot.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mail_store import check_account, deliver, inbox, index_of, rows_of, settled_look

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store import first_open
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.changes import changes
from fastlisten.mail.store.folders import create, delete, find, folders, status
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag
from fastlisten.mail.store.letters import SYSTEM
from fastlisten.private_files import replace

UIDS = b"3 V1500000000 N40 Gabc\n7 :3.a\n9 W17 P0012 :1.a\n30 S14 W17 :2.a:2,S\n"


def message(directory: Path, name: str, content: bytes = b"Subject: x\r\n\r\nx\r\n") -> None:
    if not (directory / "tmp").is_dir():
        Maildir(str(directory)).prepare()
    (directory / "cur" / name).write_bytes(content)


def three(directory: Path) -> None:
    message(directory, "1.a:2,FSab")
    message(directory, "2.a:2,b")
    message(directory, "3.a:2,")


def system_rows(index: Index, folder: int) -> list[tuple[int, str, int, str]]:
    return [(uid, name, bits & SYSTEM, words) for uid, name, bits, words in rows_of(index, folder)]


def test_messages_keep_uids_flags_and_keywords(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    three(tmp_path)
    message(tmp_path, "0.new:2,a")
    (tmp_path / "dovecot-uidlist").write_bytes(UIDS)
    (tmp_path / "dovecot-keywords").write_text('0 $Forwarded\n1 Work\n2 not"one\n')
    with caplog.at_level(logging.INFO, "fastlisten.mail"), index_of(tmp_path) as index:
        box = inbox(index)
        assert (box.uidvalidity, status(index, box).uidnext) == (1500000000, 40)
        settled_look(index, box.id)
        assert system_rows(index, box.id) == [
            (7, "3.a", 0, ""),
            (9, "1.a", Flag.FLAGGED | Flag.SEEN, "$Forwarded Work"),
            (30, "2.a", 0, "Work"),
            (40, "0.new", 0, "$Forwarded"),
        ]
        # The letters stay, for a way back.
        assert sorted(os.listdir(tmp_path / "cur")) == [
            "0.new:2,a",
            "1.a:2,FSab",
            "2.a:2,b",
            "3.a:2,",
        ]
        assert status(index, box).recent == 1
        assert index.query("SELECT * FROM former_uids") == []
        check_account(index)
    assert [record.levelno for record in caplog.records] == [logging.INFO]


@pytest.mark.parametrize("name", ["dovecot-uidlist", "courierimapuiddb"])
def test_first_version(tmp_path: Path, name: str) -> None:
    three(tmp_path)
    more = " 5f00" if name.startswith("courier") else ""
    (tmp_path / name).write_text(f"1 1400000000 77{more}\n7 3.a\n9 1.a\n30 2.a\n")
    with index_of(tmp_path) as index:
        box = inbox(index)
        settled_look(index, box.id)
        assert (box.uidvalidity, status(index, box).uidnext) == (1400000000, 77)
        assert [row[:2] for row in rows_of(index, box.id)] == [(7, "3.a"), (9, "1.a"), (30, "2.a")]


def test_uidnext_that_is_older_than_the_lines(tmp_path: Path) -> None:
    three(tmp_path)
    (tmp_path / "dovecot-uidlist").write_bytes(UIDS.replace(b"N40", b"N1"))
    with index_of(tmp_path) as index:
        deliver(str(tmp_path), name="9.new")
        settled_look(index, inbox(index).id)
        assert [row[0] for row in rows_of(index, inbox(index).id)] == [7, 9, 30, 31]


def test_two_folders_with_a_file_of_the_same_name(tmp_path: Path) -> None:
    message(tmp_path, "1.a:2,a")
    message(tmp_path / ".Work", "1.a:2,a")
    (tmp_path / "dovecot-uidlist").write_bytes(b"3 V5 N9\n8 :1.a\n")
    (tmp_path / ".Work" / "dovecot-uidlist").write_bytes(b"3 V6 N9\n3 :1.a\n")
    (tmp_path / "dovecot-keywords").write_text("0 One\n")
    (tmp_path / ".Work" / "dovecot-keywords").write_text("0 Two\n")
    with index_of(tmp_path) as index:
        found = []
        for name in ("INBOX", "Work"):
            box = find(index, name)
            settled_look(index, box.id)
            found.append((box.uidvalidity, system_rows(index, box.id)))
    assert found == [(5, [(8, "1.a", 0, "One")]), (6, [(3, "1.a", 0, "Two")])]


def test_older_states_of_clients_are_compared_in_full(tmp_path: Path) -> None:
    """Dovecot's modification sequences are small, and what was expunged then nobody knows."""
    three(tmp_path)
    (tmp_path / "dovecot-uidlist").write_bytes(UIDS)
    with index_of(tmp_path) as index:
        settled_look(index, inbox(index).id)
        found = changes(index, inbox(index).id, 25)
        assert not found.complete
        assert [one.uid for one in found.arrived] == [7, 9, 30]


def test_recreated_folder_has_a_larger_uidvalidity(tmp_path: Path) -> None:
    message(tmp_path / ".Work", "1.a:2,")
    (tmp_path / ".Work" / "dovecot-uidlist").write_bytes(b"3 V4000000000 N9\n8 :1.a\n")
    with index_of(tmp_path) as index:
        delete(index, "Work")
        assert create(index, "Work").uidvalidity > 4000000000
        assert index.query("SELECT * FROM former_uids") == []
    for path in tmp_path.glob("index.*"):
        path.unlink()
    with index_of(tmp_path) as index:
        assert find(index, "Work").uidvalidity > 4000000001


def test_only_the_first_open_imports(tmp_path: Path) -> None:
    three(tmp_path)
    with index_of(tmp_path) as index:
        validity = inbox(index).uidvalidity
        message(tmp_path / ".Late", "1.a:2,")
        for directory in (tmp_path, tmp_path / ".Late"):
            (directory / "dovecot-uidlist").write_bytes(UIDS)
        assert find(index, "Late").uidvalidity > validity
    for path in tmp_path.glob("index.*"):
        path.unlink()
    with index_of(tmp_path) as index:
        assert inbox(index).uidvalidity > validity


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("subscriptions", "V\t2\n\nINBOX\nSent Items\nWork\t&AMQ-ndern\nGone\n"),
        ("subscriptions", "INBOX\nSent Items\nWork.&AMQ-ndern\nGone\n"),
        ("subscriptions", "inbox\nSent Items\nWork.Ändern\nGone\n..\n"),
        ("courierimapsubscribed", "INBOX\nINBOX.Sent Items\nINBOX.Work.&AMQ-ndern\nINBOX.Gone\n"),
    ],
)
def test_subscriptions(tmp_path: Path, file: str, text: str) -> None:
    message(tmp_path / ".Sent Items", "1.a:2,")
    (tmp_path / file).write_text(text)
    with index_of(tmp_path) as index:
        subscribed = {one.name for one in folders(index) if one.subscribed}
    assert subscribed == {"INBOX", "Sent Items", "Work/Ändern", "Gone"}


# --- files that cannot be used --------------------------------------------------------------------


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def holding(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


DAMAGED: dict[str, Callable[[Path], object]] = {
    "empty": holding(b""),
    "version": holding(b"2 V5 N9\n8 :1.a\n"),
    "cut": holding(UIDS[:-4]),
    "order": holding(UIDS + b"30 :4.a\n"),
    "binary": holding(UIDS + b"\0" * 9000),
    "number": holding(UIDS + b"99999999999 :4.a\n"),
    "largest": holding(UIDS + b"4294967295 :4.a\n"),
    "no uids left": holding(UIDS.replace(b"N40", b"N4294967295")),
    "uidvalidity": holding(UIDS.replace(b"V1500000000", b"V0")),
    "largest uidvalidity": holding(UIDS.replace(b"V1500000000", b"V4294967295")),
    "long line": holding(UIDS + b"40 :" + b"x" * 5000 + b"\n"),
    "link": link,
    "pipe": pipe,
    "directory": Path.mkdir,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_uids(tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str) -> None:
    three(tmp_path)
    (tmp_path / "dovecot-keywords").write_text("1 Work\n")
    DAMAGED[how](tmp_path / "dovecot-uidlist")
    with index_of(tmp_path) as index:
        box = inbox(index)
        assert box.uidvalidity > 1600000000
        settled_look(index, box.id)
        assert [(row[0], row[3]) for row in rows_of(index, box.id)] == [
            (1, "Work"),
            (2, "Work"),
            (3, ""),
        ]
        check_account(index)
    said = [record.getMessage() for record in caplog.records]
    assert [("dovecot-uidlist" in text, "is not imported" in text) for text in said] == [
        (True, True)
    ]


@pytest.mark.parametrize("file", ["dovecot-keywords", "subscriptions"])
@pytest.mark.parametrize("data", [b"\xff\xfe\n", b"x" * 100 + b"\n", b"\0"])
def test_damaged_small_files(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    data: bytes,
) -> None:
    monkeypatch.setattr("fastlisten.mail.store.former_files._LARGEST_FILE", 50)
    three(tmp_path)
    (tmp_path / "dovecot-uidlist").write_bytes(UIDS)
    (tmp_path / file).write_bytes(data)
    with index_of(tmp_path) as index:
        settled_look(index, inbox(index).id)
        assert [row[0] for row in rows_of(index, inbox(index).id)] == [7, 9, 30]
        assert [one.name for one in folders(index) if one.subscribed] == []
    said = sum(file in record.getMessage() for record in caplog.records)
    assert said == (file != "subscriptions" or data != b"\0")


def test_uid_that_another_message_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that changes while it is imported takes no UID from a message that has it."""
    three(tmp_path)
    (tmp_path / "dovecot-uidlist").write_bytes(UIDS)
    messages_of = first_open.messages_of

    def twice(*arguments: object) -> first_open.Messages:
        found = messages_of(*arguments)  # type: ignore[arg-type]
        found.uids = dict.fromkeys(found.uids, 7)
        return found

    monkeypatch.setattr("fastlisten.mail.store.absorb.messages_of", twice)
    with index_of(tmp_path) as index:
        look(index, inbox(index).id)
        assert [row[0] for row in rows_of(index, inbox(index).id)] == [7, 40, 41]


@pytest.mark.parametrize("imported", [False, True])
def test_many_folders_are_found_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported: bool
) -> None:
    """The last UIDVALIDITY is synced to the disk once: for 10,000 folders that took minutes."""
    kept: list[bytes] = []

    def replaced(path: str, data: bytes) -> None:
        kept.append(data)
        replace(path, data)

    monkeypatch.setattr("fastlisten.mail.store.index.replace", replaced)
    three(tmp_path)
    for number in range(50):
        message(tmp_path / f".f{number:02}", "1.a:2,")
    if imported:
        later = UIDS.replace(b"V1500000000", b"V4000000000")
        (tmp_path / ".f25" / "dovecot-uidlist").write_bytes(later)
    with index_of(tmp_path) as index:
        given = dict(index.query("SELECT name, uidvalidity FROM folder"))
        assert len(given) == len(set(given.values())) == 51
        if imported:
            assert given.pop(".f25") == 4000000000
            assert min(given.values()) > 4000000000
        assert len(kept) == 1
        assert index.new_uidvalidity() > max(given.values())
