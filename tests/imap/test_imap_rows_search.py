"""imap.search-timeout: a SEARCH that takes too long is given up, and nothing else suffers.

Rules of this file: the time is over at once, or does not end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.imap_server import serve_imap

AT_ONCE, NEVER = 1e-9, 3600.0

TOO_LONG = b"NO [LIMIT] Search took too long"


def served(tmp_path: Path, seconds: float | None) -> Any:
    return serve_imap(tmp_path, options={"search-timeout": seconds})


@pytest.mark.parametrize("key", ["TEXT body", "SUBJECT Hello", "LARGER 10", "NOT BODY nothing"])
def test_searches_that_read_messages(tmp_path: Path, key: str) -> None:
    with served(tmp_path, AT_ONCE) as server:
        server.deliver()
        client = server.lines("INBOX")
        assert client.say(f"SEARCH {key}") == [TOO_LONG]
        assert client.say(f"UID SEARCH RETURN (SAVE) {key}") == [TOO_LONG]
        # RFC 5182 2.1: then nothing is saved.
        assert client.ok("FETCH $ FLAGS") == []
        # What is known without the messages is found in time.
        assert client.ok("SEARCH UNSEEN") == [b"* SEARCH 1"]


@pytest.mark.parametrize("seconds", [NEVER, None])
def test_searches_in_time(tmp_path: Path, seconds: float | None) -> None:
    with served(tmp_path, seconds) as server:
        server.deliver()
        client = server.lines("INBOX")
        for key in ("TEXT body", "SUBJECT Hello", "LARGER 10"):
            assert client.ok(f"SEARCH {key}") == [b"* SEARCH 1"]
