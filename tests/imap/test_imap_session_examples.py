"""The examples of the RFCs, and odd forms of them, on a real mailbox: each is answered, none fails.

Rules of this file: no verdict on the answer but that it is one, and no fault of ours. What the
commands mean is in the other files; how they are parsed, in the engine's tests.
"""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
from support.imap_lines import EXAMPLES, variants
from support.imap_server import MESSAGE, Lines, serve_imap

MAILBOXES = ("saved-messages", "MEETING", "foo/bar", "foo", "blurdybloop", "Spam")


def prepared(client: Lines) -> None:
    for name in MAILBOXES:
        client.say(f"CREATE {name}")
    client.ok("ENABLE QRESYNC")
    client.ok("SELECT INBOX")
    client.ok("SEARCH RETURN (SAVE) 2:5")


@pytest.mark.parametrize("group", EXAMPLES)
def test_examples(tmp_path: Path, caplog: pytest.LogCaptureFixture, group: str) -> None:
    caplog.set_level(logging.WARNING)
    rng = random.Random(group)
    answers = {b"OK": 0, b"NO": 0, b"BAD": 0}
    with serve_imap(tmp_path) as server:
        server.deliver(*[MESSAGE] * 15)
        client, other = server.lines(), server.lines("INBOX")
        prepared(client)
        for line in EXAMPLES[group]:
            odd = [] if b"{" in line else list(variants(line))
            for one in (line, *rng.sample(odd, min(12, len(odd)))):
                word = client.say(one)[-1]
                condition = word.split(b" ")[0]
                answers[condition] += 1
                assert b"SERVERBUG" not in word, (one, word)
                if not client.say("CHECK")[-1].startswith(b"OK"):
                    client.ok("SELECT INBOX")
            other.ok("NOOP")
        assert answers[b"OK"]
        # Both know of the same messages in the end.
        client.ok("NOOP")
        other.ok("NOOP")
        assert client.ok("UID SEARCH ALL") == other.ok("UID SEARCH ALL")
    assert not [record for record in caplog.records if record.exc_info]
