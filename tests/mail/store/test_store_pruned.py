"""Another process forgets what is gone while a folder is open here: what is left stays."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.mail_store import deliver, inbox, index_of

from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.changes import prune
from fastlisten.mail.store.expunge import expunge
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.interface import Flag, StoreMode


def test_session_that_is_older_than_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastlisten.mail.store.changes.KEPT_ROWS", 0)
    for number in (1, 2, 3):
        deliver(str(tmp_path), name=f"{number}.a")

    async def main() -> None:
        with ThreadPoolExecutor(4) as pool:
            account = MaildirAccount(str(tmp_path), pool)
            folder = await account.open("INBOX")
            assert list(folder.uids()) == [1, 2, 3]
            with index_of(tmp_path) as other:
                box = inbox(other).id
                store(other, box, [1], StoreMode.ADD, Flag.DELETED)
                expunge(other, box)
                prune(other)
                store(other, box, [2], StoreMode.ADD, Flag.SEEN)
            found = await folder.sync()
            assert list(found.gone) == [1]
            assert list(folder.uids()) == [2, 3]
            assert [folder.state(uid).flags for uid in (2, 3)] == [Flag.SEEN, 0]
            folder.close()
            await account.close()

    asyncio.run(main())
