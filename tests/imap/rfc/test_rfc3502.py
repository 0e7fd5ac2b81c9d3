"""RFC 3502: MULTIAPPEND, several messages by one APPEND, all or none."""

from __future__ import annotations

import pytest
from support import imap_fixtures
from support.imap_expect import expect, fits
from support.imap_server import Lines

server, client, box, other = imap_fixtures.EVERY

# --- 6.3.11 APPEND --------------------------------------------------------------------------------


def test_messages_with_flags_and_dates(client: Lines, box: str) -> None:
    assert b" MULTIAPPEND" in client.ok("CAPABILITY")[0]
    answers = client.ok(
        f"APPEND {box} (\\Seen) {{2+}}\r\na:"
        ' " 7-Feb-1994 22:43:04 -0800" {2+}\r\nb: (\\Flagged) " 8-Feb-1994 22:43:04 -0800" {2+}'
        "\r\nc: {2+}\r\nd:"
    )
    assert b"* 8 EXISTS" in answers
    client.ok("NOOP")
    expect(client, "FETCH 5:8 (FLAGS BODY.PEEK[]<0.1>)",
           "* 5 FETCH (FLAGS (\\Seen \\Recent) BODY[]<0> {1}\r\na)",
           "* 6 FETCH (FLAGS (\\Recent) BODY[]<0> {1}\r\nb)",
           "* 7 FETCH (FLAGS (\\Flagged \\Recent) BODY[]<0> {1}\r\nc)",
           "* 8 FETCH (FLAGS (\\Recent) BODY[]<0> {1}\r\nd)", "OK ...")  # fmt: skip


def test_uids_of_all(client: Lines, box: str) -> None:
    answer = client.say(f"APPEND {box} {{2+}}\r\na: {{2+}}\r\nb:")[-1]
    assert fits(answer, "OK [APPENDUID # 5:6] ...")


@pytest.mark.parametrize(
    "second",
    [
        "(\\Unknown) {2+}\r\nb:", '"wrong date" {2+}\r\nb:', "{0+}\r\n", "x", "(\\Seen",
        "{99999999999+}\r\n",
    ],
)  # fmt: skip
def test_none_if_one_cannot_be_stored(client: Lines, box: str, other: Lines, second: str) -> None:
    client.send(f"a APPEND {box} {{2+}}\r\na: {second}\r\n".encode())
    assert client.answers(b"a")[-1][:3] in (b"NO ", b"BAD")
    expect(other, "UID SEARCH ALL", "* SEARCH 1 2 3 4", "OK ...")


def test_none_if_the_client_goes_away(client: Lines, box: str, other: Lines) -> None:
    client.send(f"a APPEND {box} {{2}}\r\n".encode())
    assert client.response().startswith(b"+ ")
    client.send(b"a: {5+}\r\nb:")
    client.close()
    expect(other, "UID SEARCH ALL", "* SEARCH 1 2 3 4", "OK ...")


def test_continuation_for_each_literal(client: Lines, box: str) -> None:
    client.send(f"a APPEND {box} {{2}}\r\n".encode())
    assert client.response().startswith(b"+ ")
    client.send(b"a: {2}\r\n")
    assert client.response().startswith(b"+ ")
    client.send(b"b:\r\n")
    assert fits(client.answers(b"a")[-1], "OK [APPENDUID # 5:6] ...")
