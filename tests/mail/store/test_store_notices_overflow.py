"""The kernel's queue of notices is full: everything that is watched counts as changed.

Rules of this file: the queue is really filled, by the times of two files in turn, because the
kernel merges equal events that follow on one another.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fastlisten.mail.store.notices import FILE, Notices

#: Filling a larger queue would take too long.
LARGEST = 100_000


class Told:
    def __init__(self) -> None:
        self.lost = 0

    def noticed(self, watch: int, mask: int) -> None:
        self.lost += mask == 0


def test_all_are_told_each_time_and_the_log_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    if size > LARGEST:
        pytest.skip("the kernel's queue is very large")
    paths = [str(tmp_path / name) for name in "abc"]

    async def main() -> None:
        notices = Notices()
        told = [Told() for _ in paths]
        for path, who in zip(paths, told, strict=True):
            Path(path).touch()
            assert notices.add(path, FILE, who) >= 0
        for times in (1, 2):
            for number in range(size + 10):
                os.utime(paths[number % 2])
            notices.poll()
            assert [who.lost for who in told] == [times] * 3
        notices.close()

    asyncio.run(main())
    (message,) = caplog.messages
    assert "fs.inotify.max_queued_events is too small" in message
