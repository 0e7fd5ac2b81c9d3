"""No more threads: work waits for those that there are.

Rules of this file: threads cannot be started because `threading.Thread.start` says so, as it does
when the kernel refuses.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import NoReturn

import pytest
from support.imap_server import MESSAGE, serve_imap

from fastlisten.handlers.imap.threads import in_thread
from fastlisten.mail.store.interface import StoreUnavailableError
from fastlisten.mail.worker_threads import WorkerThreads


def no_more_threads(patch: pytest.MonkeyPatch) -> None:
    """Let no thread start from now on."""

    def start(self: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    patch.setattr(threading.Thread, "start", start)


def test_work_waits_for_the_threads_that_there_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = WorkerThreads(4, "delivery")
    gate = threading.Event()
    no_more_threads(monkeypatch)
    jobs = [pool.submit(gate.wait, 30) for _ in range(5)]
    gate.set()
    assert all(job.result(30) for job in jobs)
    pool.shutdown()
    assert caplog.messages == ["threads of delivery: can't start new thread; 1 are at work"]


def test_without_any_thread_there_is_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    no_more_threads(monkeypatch)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        WorkerThreads(4, "delivery")


def test_what_finds_no_thread_of_the_loop_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        no_more_threads(monkeypatch)
        try:
            with pytest.raises(StoreUnavailableError, match="Too busy now"):
                await in_thread(list)
        finally:
            monkeypatch.undo()  # the loop ends its threads by another one

    asyncio.run(main())
    assert caplog.messages == ["a message is not parsed: can't start new thread"]


def test_mail_is_read_without_more_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with serve_imap(tmp_path) as served:
        served.deliver(*[MESSAGE] * 3)
        clients = [served.lines() for _ in range(4)]
        with monkeypatch.context() as patch:
            no_more_threads(patch)
            for client in clients:  # none has waited for an answer, so that threads are wanted
                client.send(b"s SELECT INBOX\r\n")
            for client in clients:
                assert client.answers(b"s")[-1] == b"OK [READ-WRITE] Select completed."
    assert {one for one in caplog.messages if "internal error" in one.lower()} == set()
