"""The base of stores of one's own: views, changes, and what it refuses.

Rules of this file: a subclass that has `content` and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from fastlisten.mail.store import base
from fastlisten.mail.store.base import BaseAccount, Messages
from fastlisten.mail.store.interface import (
    Account,
    Flag,
    Folder,
    FolderExistsError,
    FolderNotFoundError,
    FolderRefusedError,
    MessageGoneError,
    StoreMode,
)

SEEN, DELETED = Flag.SEEN, Flag.DELETED


class Numbers(BaseAccount):
    """Messages that say which they are; counts how often they are read."""

    def __init__(self, count: int = 3) -> None:
        super().__init__()
        self.read: list[int] = []
        self.inbox = self.add_folder("INBOX", 7)
        for _ in range(count):
            self.inbox.add(date=1)

    async def content(self, name: str, uid: int) -> bytes:
        self.read.append(uid)
        return b"a: b\n\r\n%d\n" % uid


def opened(account: Account, *, read_only: bool = False) -> Folder:
    return asyncio.run(account.open("INBOX", read_only=read_only))


def run(work: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await work

    return asyncio.run(main())


def test_messages_are_served_with_crlf() -> None:
    account = Numbers()
    folder = opened(account)
    assert list(folder.uids()) == [1, 2, 3]
    message = run(folder.message(2))
    assert message.size == 11
    assert run(message.read(0, 100)) == b"a: b\r\n\r\n2\r\n"
    assert run(message.read(8, 1)) == b"2"


def test_sizes_are_counted_once() -> None:
    account = Numbers()
    account.inbox.add(size=5)
    folder = opened(account)
    for _ in range(2):
        assert [one.size for one in run(folder.facts([1, 2, 3, 4, 5]))] == [11, 11, 11, 5]
        assert run(account.status("INBOX")).size == 38
    assert account.read == [1, 2, 3]


def test_sessions_see_changes_of_others_with_sync_only() -> None:
    account = Numbers()
    calls: list[int] = []
    one, two = opened(account), opened(account)
    two.watch(lambda: calls.append(1))
    assert two.is_current()
    stored = run(one.store([1, 9], StoreMode.ADD, SEEN, ["Word"]))
    assert [(each.uid, each.flags, each.keywords) for each in stored.changed] == [
        (1, SEEN, ("Word",))
    ]
    assert calls == [1]
    account.inbox.add()
    account.inbox.remove([2])
    assert list(two.uids()) == [1, 2, 3]
    assert not two.is_current()
    changes = run(two.sync(expunge=False))
    assert [each.uid for each in changes.changed] == [1]
    assert [each.uid for each in changes.arrived] == [4]
    assert (changes.gone, list(two.uids())) == ([], [1, 2, 3, 4])
    with pytest.raises(MessageGoneError):
        run(two.message(2))
    assert not two.is_current()  # there is something to tell yet
    changes = run(two.sync())
    assert two.is_current()
    assert (changes.arrived, changes.changed, changes.gone) == ([], [], [2])
    assert (two.first_unseen(), one.first_unseen()) == (2, 3)  # of what each sees
    assert list(two.uids()) == [1, 3, 4]
    assert two.highestmodseq == account.inbox.modseq
    two.watch(None)
    account.notify()
    assert calls == [1]


def test_unchanged_since_protects() -> None:
    folder = opened(Numbers())
    before = folder.state(1).modseq
    run(folder.store([1], StoreMode.ADD, SEEN))
    stored = run(folder.store([1, 2], StoreMode.SET, DELETED, (), folder.state(2).modseq))
    assert (stored.modified, [one.uid for one in stored.changed]) == ([1], [2])
    assert folder.state(1).modseq > before


def test_keywords_are_spelt_as_first_set() -> None:
    folder = opened(Numbers())
    run(folder.store([1], StoreMode.ADD, SEEN, ["Word", "Other"]))
    assert run(folder.store([1], StoreMode.ADD, SEEN, ["WORD"])).changed == []
    run(folder.store([1], StoreMode.REMOVE, SEEN, ["other"]))
    assert (folder.state(1).flags, folder.state(1).keywords) == (Flag(0), ("Word",))
    assert folder.keywords() == ["Word"]


def test_clients_of_a_process_before_compare_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_now", lambda: 1000)
    account = Numbers()
    known = account.inbox.modseq
    account.inbox.remove([1])
    assert opened(account).highestmodseq > known
    assert list(run(opened(account).changes(known)).gone) == [1]
    monkeypatch.setattr(base, "_now", lambda: 2000)
    changes = run(opened(Numbers()).changes(known))
    assert not changes.complete
    assert [one.uid for one in changes.changed] == [1, 2, 3]
    assert changes.cursor > known


def test_uids_are_the_programs() -> None:
    messages = Numbers(0).inbox
    assert (messages.add(10), messages.add(), messages.add(4_000_000_000)) == (
        10,
        11,
        4_000_000_000,
    )
    for wrong in (5, 1 << 32):
        with pytest.raises(ValueError, match="not in order"):
            messages.add(wrong)
    assert len(messages) == 3


def test_what_changes_mail_for_good_is_refused() -> None:
    account = Numbers()
    folder = opened(account)
    refused = [
        account.create("Work"),
        account.delete("INBOX"),
        account.rename("INBOX", "Work"),
        account.subscribe("INBOX", False),
        account.append("INBOX"),
        folder.copy([1], "INBOX"),
        folder.move([1], "INBOX"),
    ]
    for work in refused:
        with pytest.raises(FolderRefusedError):
            run(work)
    with pytest.raises(FolderExistsError):
        run(account.create("INBOX"))
    for missing in (account.status("x"), account.open("x"), folder.copy([1], "x")):
        with pytest.raises(FolderNotFoundError):
            run(missing)
    run(account.subscribe("INBOX", True))
    assert run(folder.expunge()) == ()
    run(folder.store([2], StoreMode.ADD, DELETED))
    assert run(folder.expunge([1])) == ()
    for uids in (None, [2]):
        with pytest.raises(FolderRefusedError):
            run(folder.expunge(uids))
    assert run(account.status("INBOX")).deleted == 1


def test_read_only_folders() -> None:
    account = Numbers()
    account.add_folder("Old", 1, read_only=True, role="Archive")
    assert run(account.open("Old")).read_only
    assert opened(account, read_only=True).read_only
    assert not opened(account).read_only
    assert [(one.name, one.role) for one in run(account.folders())] == [
        ("INBOX", ""),
        ("Old", "Archive"),
    ]


def test_a_folder_that_is_taken_away_ends_its_sessions() -> None:
    account = Numbers()
    folder = opened(account)
    del account.mailboxes["INBOX"]
    with pytest.raises(FolderNotFoundError):
        run(folder.sync())


def test_names_have_ids_of_their_own() -> None:
    ids = {Messages(name, 1, read_only=False, role="").mailbox_id for name in ("a", "b", "INBOX")}
    assert len(ids) == 3
