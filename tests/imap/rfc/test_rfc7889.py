"""RFC 7889: APPENDLIMIT, the size of the largest message that APPEND takes."""

from __future__ import annotations

from support import imap_fixtures
from support.imap_expect import expect, fits
from support.imap_server import ImapServer, Lines

server, client, box, other = imap_fixtures.EVERY


def limit(server: ImapServer) -> int:
    assert server.handler is not None
    return server.handler.limits.max_message_size


# --- 2 APPENDLIMIT extension ----------------------------------------------------------------------


def test_2_capability(server: ImapServer, client: Lines) -> None:
    assert b" APPENDLIMIT=%d" % limit(server) in client.ok("CAPABILITY")[0]


def test_3_status(server: ImapServer, client: Lines, box: str) -> None:
    status = f"* STATUS {box} (APPENDLIMIT {limit(server)})"
    expect(client, f"STATUS {box} (APPENDLIMIT)", status, "OK ...")
    expect(client, f'LIST "" {box} RETURN (STATUS (APPENDLIMIT))', "* LIST ...", status, "OK ...")


def test_4_larger_messages_are_refused(server: ImapServer, client: Lines, box: str) -> None:
    size = limit(server) + 1
    expect(client, f"APPEND {box} {{{size}}}", "NO [TOOBIG] ...")
    client.ok("NOOP")
    # Nothing of a literal that comes unasked is kept.
    client.send(f"a APPEND {box} {{{size}+}}\r\n".encode())
    assert fits(client.response(), "a NO [TOOBIG] ...")
    for _ in range(size // 1_000_000):
        client.send(b"x" * 1_000_000)
    client.send(b"x" * (size % 1_000_000) + b"\r\nb NOOP\r\n")
    assert fits(client.response(), "b OK ...")
    expect(client, "UID SEARCH ALL", "* SEARCH 1 2 3 4", "OK ...")
