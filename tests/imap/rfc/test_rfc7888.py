"""RFC 7888 (and 2088 before it): LITERAL+, literals that the client sends without being asked."""

from __future__ import annotations

from support import imap_fixtures
from support.imap_expect import expect, fits
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, ImapServer, Lines

server, client, box, other = imap_fixtures.EVERY

# --- 3 Specification ------------------------------------------------------------------------------


def test_3_no_continuation(client: Lines, box: str) -> None:
    client.send(f"a STATUS {{{len(box)}+}}\r\n{box} (MESSAGES)\r\n".encode())
    assert client.response() == f"* STATUS {box} (MESSAGES 4)".encode()
    assert fits(client.response(), "a OK ...")


def test_3_in_every_command(server: ImapServer) -> None:
    stranger = server.connect()
    assert b" LITERAL+" in stranger.greeting
    name, secret = len(ADDRESS), len(PASSWORD)
    expect(stranger, f"LOGIN {{{name}+}}\r\n{ADDRESS} {{{secret}+}}\r\n{PASSWORD}", "OK ...")
    stranger.close()


def test_3_both_kinds_in_one_command(client: Lines, box: str) -> None:
    client.send(b"a SEARCH SUBJECT {5+}\r\nHello FROM {3}\r\n")
    assert fits(client.response(), "+ ...")
    client.send(b"bob\r\n")
    assert client.response() == b"* SEARCH 1 2 3 4"
    client.answers(b"a")


# --- 4 Considerations: literals that are refused --------------------------------------------------


def test_4_refused_and_dropped(client: Lines, box: str) -> None:
    """What is refused comes anyway: it is not taken for commands."""
    bad = b"x LOGOUT\r\n" * 10
    client.send(b"a NONSENSE {%d+}\r\n%b\r\nb NOOP\r\n" % (len(bad), bad))
    assert fits(client.response(), "a BAD ...")
    assert fits(client.response(), "b OK ...")


def test_4_message_for_a_mailbox_that_is_not_there(client: Lines) -> None:
    size = len(MESSAGE)
    client.send(b"a APPEND nowhere {%d+}\r\n%b\r\nb NOOP\r\n" % (size, MESSAGE))
    assert fits(client.response(), "a NO [TRYCREATE] ...")
    assert fits(client.response(), "b OK ...")


def test_4_too_large_to_be_dropped(client: Lines) -> None:
    client.send(b"a SEARCH TEXT {999999999999+}\r\n")
    lines = client.stream.read().splitlines()
    assert lines[-1].startswith(b"* BYE [TOOBIG]")


# --- 5 LITERAL- -----------------------------------------------------------------------------------


def test_5_literals_above_4096_octets_may_come_too(client: Lines, box: str) -> None:
    """LITERAL- would forbid that; it is not announced."""
    assert b"LITERAL-" not in client.ok("CAPABILITY")[0]
    expect(client, "SEARCH TEXT {9000+}\r\n" + "x" * 9000, "* SEARCH", "OK ...")
