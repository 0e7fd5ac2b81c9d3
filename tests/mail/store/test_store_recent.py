r"""``\Recent``: each message is recent for exactly one session (RFC 3501 2.3.2).

Rules of this file: two `MaildirAccount`s of one directory are what two workers have.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.mail_store import deliver

from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.maildir_folder import MaildirFolder
from fastlisten.mail.store.notices import Notices
from fastlisten.mail.store.resources import Resources


def recent(folder: MaildirFolder) -> list[int]:
    """Return the messages that are recent for a session."""
    return [uid for uid in folder.uids() if any(uid in one for one in folder.recent)]


@pytest.mark.parametrize("watched", [True, False])
def test_one_of_many_sessions(tmp_path: Path, watched: bool) -> None:
    async def main() -> None:
        notices = [Notices() if watched else None for _ in range(2)]
        with ThreadPoolExecutor(4) as pool:
            workers = [MaildirAccount(str(tmp_path), Resources(pool, one)) for one in notices]
            for _ in range(3):
                deliver(str(tmp_path))
            sessions = [await worker.open("INBOX") for worker in workers for _ in range(3)]
            assert [recent(one) for one in sessions] == [[1, 2, 3], [], [], [], [], []]
            for _ in range(5):
                deliver(str(tmp_path))
                await asyncio.gather(*(one.sync() for one in sessions))
            for one in sessions:
                await one.sync()
            assert [list(one.uids()) for one in sessions] == [[*range(1, 9)]] * 6
            assert sorted(uid for one in sessions for uid in recent(one)) == [*range(1, 9)]
            assert (await workers[0].status("INBOX")).recent == 0
            later = await workers[1].open("INBOX")
            assert recent(later) == []
            for one in (*sessions, later):
                one.close()
            for worker in workers:
                await worker.close()
            for queue in notices:
                if queue is not None:
                    queue.close()

    asyncio.run(main())


def test_examine_takes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            account = MaildirAccount(str(tmp_path), pool)
            deliver(str(tmp_path))
            reader = await account.open("INBOX", read_only=True)
            assert recent(reader) == [1]
            deliver(str(tmp_path))
            await reader.sync()
            assert recent(reader) == [1, 2]
            assert (await account.status("INBOX")).recent == 2
            writer = await account.open("INBOX")
            assert recent(writer) == [1, 2]
            assert (await account.status("INBOX")).recent == 0
            deliver(str(tmp_path))
            await writer.sync()
            await reader.sync()
            assert (recent(writer), recent(reader)) == ([1, 2, 3], [1, 2])
            assert (await account.open("INBOX", read_only=True)).recent == ()
            await account.close()

    asyncio.run(main())


def test_what_a_session_has_not_seen_is_left_to_the_next(tmp_path: Path) -> None:
    """It had the mailbox selected when the message came, but did nothing after that."""

    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            account = MaildirAccount(str(tmp_path), pool)
            deaf, other = await account.open("INBOX"), await account.open("INBOX")
            deliver(str(tmp_path))
            await other.sync()
            assert (recent(deaf), recent(other)) == ([], [1])
            other.close()
            deliver(str(tmp_path))
            deaf.close()
            assert recent(await account.open("INBOX")) == [2]
            await account.close()

    asyncio.run(main())


def test_ranges_that_follow_on_one_another_are_one(tmp_path: Path) -> None:
    """So that a session of months has few of them."""

    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            account = MaildirAccount(str(tmp_path), pool)
            mine, other = await account.open("INBOX"), await account.open("INBOX")
            for first in (mine, mine, mine, other, mine):
                deliver(str(tmp_path))
                await first.sync()
                await mine.sync()
            assert mine.recent == (range(1, 4), range(5, 6))
            await account.close()

    asyncio.run(main())
