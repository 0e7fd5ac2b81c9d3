"""No descriptor left: notices wait for one, and the log says so once.

Rules of this file: the limit is the kernel's, of this process. While it holds, mail is delivered by
renames, which need no descriptor.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.mail_store import deliver
from support.waiting import PATIENCE

from fastlisten.mail.store import shared_folder
from fastlisten.mail.store.open_accounts import OpenAccounts


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let no file be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Those below 3 are in use.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_notices_wait_for_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        root = str(tmp_path / "alice")
        accounts = OpenAccounts.enter(str(tmp_path))
        account = accounts.acquire(root)
        for _ in range(4):
            deliver(root)
        names = os.listdir(f"{root}/new")
        for name in names[1:]:
            os.rename(f"{root}/new/{name}", f"{root}/tmp/{name}")
        folder = await account.open("INBOX")
        for _ in range(1000):
            await folder.sync()
            if folder.is_current():
                break
            await asyncio.sleep(0.01)  # directories have to be unchanged for a while
        told = asyncio.Event()
        folder.watch(told.set)
        await account._use.close_index()
        with no_descriptors():
            for name in names[1:]:
                os.rename(f"{root}/tmp/{name}", f"{root}/new/{name}")
                accounts.resources.notices.poll()  # type: ignore[union-attr]
                shared = folder._shared
                assert isinstance(shared, shared_folder.SharedFolder)
                while shared._task is not None:
                    await asyncio.wait([shared._task])
        assert list(folder.uids()) == [1]
        assert len(caplog.messages) == 1
        assert "Too many open files" in caplog.messages[0]
        told.clear()
        accounts._sweep()
        await asyncio.wait_for(told.wait(), PATIENCE)
        await folder.sync()
        assert list(folder.uids()) == [1, 2, 3, 4]
        folder.close()
        accounts.release(root)
        await accounts.leave()

    asyncio.run(main())
