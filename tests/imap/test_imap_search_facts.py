"""SEARCH by size and date: from columns that the store remembers, as from one question for each.

Rules of this file: what is found is compared with what a message has, which is asked by FETCH, and
with a search whose store has no columns.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.imap_server import ImapServer, Lines, serve_imap
from support.mail_store import deliver

from fastlisten.handlers.imap import searching
from fastlisten.mail.store import shared_folder
from fastlisten.mail.store.account import MaildirAccount
from fastlisten.mail.store.interface import FactColumns
from fastlisten.mail.store.maildir_folder import MaildirFolder

#: Days of March 2024 on which messages came, at the ends of days, and how long they are.
ARRIVED = ((3, "00:00:00", 40), (1, "23:59:59", 90), (2, "12:00:00", 90), (3, "23:59:59", 150))

SEARCHES = (
    "SINCE 3-Mar-2024",
    "BEFORE 3-Mar-2024",
    "ON 3-Mar-2024",
    "ON 2-Mar-2024",
    "NOT ON 3-Mar-2024",
    "LARGER 90",
    "SMALLER 90",
    "NOT LARGER 90",
    "SINCE 2-Mar-2024 SMALLER 100",
    "OR BEFORE 2-Mar-2024 LARGER 149",
    "UNSEEN ON 3-Mar-2024",
    "2:5 LARGER 89",
    "OLDER 60",
    "YOUNGER 60",
)


def append(client: Lines, day: int, time: str, size: int) -> None:
    client.send(b'a APPEND INBOX "%02d-Mar-2024 %b +0000" {%d+}\r\n' % (day, time.encode(), size))
    client.send(b"x" * (size - 2) + b"\r\n\r\n")
    client.answers(b"a")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImapServer]:
    monkeypatch.setattr(searching, "_FACTS_AT_ONCE", 1)
    with serve_imap(tmp_path) as served:
        client = served.lines("INBOX")
        for one in ARRIVED * 2:
            append(client, *one)
        client.ok("STORE 2,4 +FLAGS (\\Seen)")
        yield served


def found(client: Lines) -> list[bytes]:
    return [line for search in SEARCHES for line in client.ok(f"UID SEARCH {search}")]


def without_columns(client: Lines) -> list[bytes]:
    async def none(self: MaildirFolder) -> FactColumns | None:
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaildirFolder, "fact_columns", none)
        return found(client)


def test_columns_find_what_messages_have(server: ImapServer) -> None:
    client = server.lines("INBOX")
    assert found(client) == without_columns(client)
    sizes = {}
    for line in client.ok("FETCH 1:* (RFC822.SIZE)"):
        number, size = map(int, re.findall(rb"\d+", line)[::2])
        sizes[number] = size
    larger = [number for number, size in sizes.items() if size > 90]
    assert larger == [4, 8]
    assert client.ok("SEARCH LARGER 90") == [b"* SEARCH 4 8"]
    assert client.ok("SEARCH ON 3-Mar-2024") == [b"* SEARCH 1 4 5 8"]
    assert client.ok("SEARCH BEFORE 2-Mar-2024") == [b"* SEARCH 2 6"]
    assert client.ok("SEARCH ON 2-Mar-2024") == [b"* SEARCH 3 7"]


def test_columns_follow_what_comes_and_goes(server: ImapServer) -> None:
    client, other = server.lines("INBOX"), server.lines("INBOX")
    found(client)
    append(other, 3, "01:00:00", 200)
    client.ok("NOOP")
    assert client.ok("SEARCH ON 3-Mar-2024") == [b"* SEARCH 1 4 5 8 9"]
    other.ok("STORE 4,6 +FLAGS.SILENT (\\Deleted)")
    other.ok("EXPUNGE")
    client.ok("NOOP")
    assert client.ok("SEARCH ON 3-Mar-2024") == [b"* SEARCH 1 4 6 7"]
    assert client.ok("UID SEARCH ON 3-Mar-2024") == [b"* SEARCH 1 5 8 9"]
    assert found(client) == without_columns(client)


def test_messages_that_columns_lack_are_asked_for(
    server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have come with UIDs that another server has given them."""
    real = MaildirFolder.fact_columns

    async def fewer(self: MaildirFolder) -> FactColumns | None:
        it = await real(self)
        assert it is not None
        return FactColumns(it.uids[2:], it.sizes[2:], it.dates[2:])

    monkeypatch.setattr(MaildirFolder, "fact_columns", fewer)
    client = server.lines("INBOX")
    assert found(client) == without_columns(client)


def remembered(folder: MaildirFolder) -> tuple[FactColumns | None, bool]:
    """Return what sessions of a folder share, and whether it is to be forgotten later."""
    shared = folder._shared
    return shared._facts, shared._facts_timer is not None


def test_what_is_remembered_is_bounded_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            account = MaildirAccount(str(tmp_path), pool)
            for _ in range(3):
                deliver(str(tmp_path))
            one, other = await account.open("INBOX"), await account.open("INBOX")
            first = await one.fact_columns()
            assert first is not None
            assert list(first.uids) == [1, 2, 3]
            assert await other.fact_columns() is first
            one.close()
            assert remembered(one) == (first, True)
            other.close()
            assert remembered(one) == (None, False)
            again = await account.open("INBOX")
            monkeypatch.setattr(shared_folder, "SEARCHED_FOR", 0.0)
            assert await again.fact_columns() is not None
            while remembered(again) != (None, False):
                await asyncio.sleep(0)
            monkeypatch.setattr(shared_folder, "_SEARCHED", 2)
            assert await again.fact_columns() is None
            again.close()
            await account.close()

    asyncio.run(main())
