"""RFC 5032: WITHIN, messages of the last seconds."""

from __future__ import annotations

import time

import pytest
from support import imap_fixtures
from support.imap_expect import expect, new_mailbox
from support.imap_server import Lines

server, client, box, other = imap_fixtures.EVERY

DAY = 86_400

# --- 3 Protocol operation -------------------------------------------------------------------------


def test_3_older_and_younger(client: Lines) -> None:
    assert b" WITHIN" in client.ok("CAPABILITY")[0]
    name = new_mailbox(client)
    for days in (0, 2, 30):
        when = time.strftime("%d-%b-%Y %H:%M:%S +0000", time.gmtime(time.time() - days * DAY))
        client.ok(f'APPEND {name} "{when}" {{2+}}\r\na:')
    client.ok(f"SELECT {name}")
    expect(client, f"SEARCH YOUNGER {DAY}", "* SEARCH 1", "OK ...")
    expect(client, f"SEARCH OLDER {DAY}", "* SEARCH 2 3", "OK ...")
    expect(client, f"SEARCH OLDER {DAY} YOUNGER {10 * DAY}", "* SEARCH 2", "OK ...")
    expect(client, f"SEARCH NOT YOUNGER {40 * DAY}", "* SEARCH", "OK ...")
    expect(client, "SEARCH YOUNGER 4294967295", "* SEARCH 1 2 3", "OK ...")


@pytest.mark.parametrize("interval", ["0", "-1", "x", "1d", "4294967296", ""])
def test_4_the_interval_is_a_number_of_seconds(client: Lines, box: str, interval: str) -> None:
    expect(client, f"SEARCH YOUNGER {interval}".rstrip(), "BAD ...")
