"""A Maildir of another server, restored in place of an account that has been used here.

Rules of this file: what another server knew is taken over, as at the first open of a new account;
but clients may have seen other messages under the same UIDVALIDITY here, so those are not used.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.mail_store import check_account, deliver, index_of, rows_of, settled_look

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store import special_folders
from fastlisten.mail.store.backup_forms import DirectorySource, NotABackupError
from fastlisten.mail.store.folders import find, folders, status
from fastlisten.mail.store.restore import Restored, restore

NAMES = {"Sent": "Sent"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What Dovecot has left: two folders with UIDs, keywords and a subscription."""
    source = tmp_path / "dovecot"
    for directory, uids in ((source, b"3 V1500000000 N40\n7 :1.a\n"), (source / ".Sent", b"")):
        Maildir(str(directory)).prepare()
        (directory / "cur" / "1.a:2,Sa").write_bytes(b"Subject: x\r\n\r\nx\r\n")
        (directory / "dovecot-keywords").write_text("0 Work\n")
        (directory / "dovecot-uidlist").write_bytes(uids or b"3 V1500000001 N9\n3 :1.a\n")
    (source / "subscriptions").write_text("Sent\n")
    return source


def put(source: Path, root: Path, *, force: bool = False) -> Restored:
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return restore(str(root), DirectorySource(fd), force=force)
    finally:
        os.close(fd)


def found(root: Path) -> dict[str, tuple[int, list[tuple[int, str]], str, bool]]:
    """Return by folder: UIDVALIDITY, UIDs with keywords, use, whether it is subscribed."""
    seen = {}
    with index_of(root) as index:
        special_folders.prepare(index, NAMES)
        for folder in folders(index):
            box = find(index, folder.name)
            settled_look(index, box.id)
            messages = [(uid, words) for uid, _, _, words in rows_of(index, box.id)]
            seen[folder.name] = (box.uidvalidity, messages, folder.role, folder.subscribed)
            assert status(index, box).uidnext > messages[-1][0]
        check_account(index)
    return seen


def test_again_after_a_rehearsal(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "alice"
    assert put(source, root).renumbered == 0
    first = found(root)
    assert first["INBOX"][:2] == (1500000000, [(7, "Work")])
    assert first["Sent"] == (1500000001, [(3, "Work")], "Sent", True)
    deliver(str(root))  # it gets UID 40, which Dovecot may give to another message
    found(root)
    restored = put(source, root, force=True)
    assert restored.before
    assert restored.renumbered == 2
    again = found(root)
    assert {name: box[1:] for name, box in again.items()} == {
        name: box[1:] for name, box in first.items()
    }
    assert not {box[0] for box in again.values()} & {box[0] for box in first.values()}
    assert (root / "uidvalidity").read_text() == f"{max(box[0] for box in again.values())}\n"


@pytest.mark.parametrize("opened", [False, True])
def test_over_mail_that_no_client_has_seen(source: Path, tmp_path: Path, opened: bool) -> None:
    root = tmp_path / "alice"
    if opened:
        with index_of(root) as index:
            special_folders.prepare(index, NAMES)
    deliver(str(root))
    assert put(source, root, force=True).renumbered == 0
    assert found(root)["INBOX"][:2] == (1500000000, [(7, "Work")])


def test_over_an_index_that_cannot_be_read(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "alice"
    deliver(str(root))
    (root / "uidvalidity").write_text("1600000000\n")
    (root / "index.db").write_bytes(b"x" * 4096)
    assert put(source, root, force=True).renumbered == 2
    assert found(root)["INBOX"][0] > 1600000000


@pytest.mark.parametrize("target", ["sieve/main.sieve", "cur"])
def test_symbolic_link(source: Path, tmp_path: Path, target: str) -> None:
    """A folder that is kept elsewhere is not left out without a word."""
    (source / ".Link").symlink_to(target)
    with pytest.raises(NotABackupError, match=r"'\.Link' is a symbolic link"):
        put(source, tmp_path / "alice")
    assert not (tmp_path / "alice").exists()
