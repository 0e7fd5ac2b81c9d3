"""SEARCH in a large folder: as much as lasts some ms is done at a time, and the result is the same.

Rules of this file: a slice is a few messages, so that each kind of key is cut; what is found is
compared with a search in one piece.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.imap_server import MESSAGE, ImapServer, serve_imap

from fastlisten.handlers.imap import searching

COUNT = 23

SEARCHES = (
    "ALL",
    "SEEN",
    "UNSEEN",
    "NOT SEEN",
    "NOT 3:9",
    "OR SEEN FLAGGED",
    "OR 1:4 20:*",
    "OR NOT SEEN NOT FLAGGED",
    "NOT OR SEEN FLAGGED",
    "2:21 NOT 5,7,20",
    "UID 4:9,22",
    "NOT ALL",
    "KEYWORD Word",
    "OR KEYWORD Word NOT 10:20",
    "RETURN (ALL COUNT MIN MAX) OR SEEN 20",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImapServer]:
    with serve_imap(tmp_path_factory.mktemp("search")) as served:
        served.deliver(*[MESSAGE] * COUNT)
        client = served.lines("INBOX")
        client.ok("STORE 2:4,11,20:22 +FLAGS.SILENT (\\Seen)")
        client.ok("STORE 4:6,23 +FLAGS.SILENT (\\Flagged)")
        client.ok("STORE 9:12 +FLAGS.SILENT (Word)")
        client.ok("STORE 8,15 +FLAGS.SILENT (\\Deleted)")
        client.ok("EXPUNGE")
        yield served


def found(server: ImapServer, search: str) -> list[list[bytes]]:
    """Return the answers, the tags of ESEARCH left out."""
    client = server.lines("INBOX")
    answers = [client.ok(f"{uid}SEARCH {search}") for uid in ("", "UID ")]
    return [[one.partition(b") ")[2] or one for one in each] for each in answers]


@pytest.mark.parametrize("search", SEARCHES)
def test_slices_find_the_same(
    server: ImapServer, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found(server, search)
    for size in (1, 2, 5, COUNT - 3, COUNT - 2):
        monkeypatch.setattr(searching, "_IN_COLUMNS", size)
        assert found(server, search) == whole, size


def test_long_result_is_one_line(server: ImapServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_IN_COLUMNS", 4)
    client = server.lines("INBOX", enable="CONDSTORE")
    (line,) = client.ok("SEARCH MODSEQ 1")
    numbers, _, modseq = line.partition(b" (MODSEQ ")
    assert numbers == b"* SEARCH " + b" ".join(b"%d" % one for one in range(1, COUNT - 1))
    assert modseq.endswith(b")")
