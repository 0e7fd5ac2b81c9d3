"""RFC 2971: ID."""

from __future__ import annotations

import pytest
from support import imap_fixtures
from support.imap_expect import expect
from support.imap_server import ImapServer, Lines

server, client, box, other = imap_fixtures.EVERY

# --- 3.1 ID command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "NIL", "()", '("name" "x" "version" NIL)', '("name" "")', "{3+}\r\nNIL",
        '("name" {3+}\r\nabc "os" NIL)', '("x" "' + "v" * 1024 + '")', '("' + "f" * 30 + '" "x")',
        "(" + " ".join(f'"f{number}" "v"' for number in range(30)) + ")",
    ],
)  # fmt: skip
def test_3_1_in_any_state(server: ImapServer, client: Lines, box: str, arguments: str) -> None:
    stranger = server.connect()
    for one in (stranger, client):
        if arguments.startswith("{"):  # NIL is an atom, and no string
            expect(one, f"ID {arguments}", "BAD ...")
        else:
            expect(one, f"ID {arguments}", '* ID (..."name" "fastlisten"...)', "OK ...")
    stranger.close()


@pytest.mark.parametrize(
    "arguments",
    [
        "", "x", '("name")', '(name "x")', '("name" x)', '("x" "' + "v" * 1025 + '")',
        '("' + "f" * 31 + '" "x")',
        "(" + " ".join(f'"f{number}" "v"' for number in range(31)) + ")",
    ],
)  # fmt: skip
def test_3_1_bounds_and_syntax(client: Lines, arguments: str) -> None:
    expect(client, f"ID {arguments}".rstrip(), "BAD ...")


# --- 3.2 ID response ------------------------------------------------------------------------------


def test_3_2_capability(server: ImapServer) -> None:
    stranger = server.connect()
    assert b" ID " in stranger.greeting
    stranger.close()
