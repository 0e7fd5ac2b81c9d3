"""RFC 4959: SASL-IR, an initial response with AUTHENTICATE."""

from __future__ import annotations

import base64

import pytest
from support import imap_fixtures
from support.imap_expect import expect, fits
from support.imap_server import ADDRESS, PASSWORD, ImapServer

server, client, box, other = imap_fixtures.EVERY

PLAIN = base64.b64encode(f"\0{ADDRESS}\0{PASSWORD}".encode()).decode()
NAME = base64.b64encode(ADDRESS.encode()).decode()
SECRET = base64.b64encode(PASSWORD.encode())

# --- 3 IMAP changes -------------------------------------------------------------------------------


def test_3_initial_response(server: ImapServer) -> None:
    stranger = server.connect()
    assert b" SASL-IR" in stranger.greeting
    expect(stranger, f"AUTHENTICATE PLAIN {PLAIN}", "OK ...")
    stranger.close()


def test_3_first_of_several_responses(server: ImapServer) -> None:
    stranger = server.connect()
    stranger.send(f"a AUTHENTICATE LOGIN {NAME}\r\n".encode())
    assert fits(stranger.response(), "+ ...")
    stranger.send(SECRET + b"\r\n")
    assert fits(stranger.response(), "a OK ...")
    stranger.close()


def test_3_empty_response(server: ImapServer) -> None:
    """One equals sign stands for it; it is no name and no password."""
    stranger = server.connect()
    assert stranger.say("AUTHENTICATE PLAIN =")[-1][:3] in (b"NO ", b"BAD")
    stranger.ok("NOOP")
    stranger.close()


@pytest.mark.parametrize("wrong", ["!", "=x", "AGFsaWNl=", "a b", "AGFsaWNl\x01"])
def test_3_wrong_base64(server: ImapServer, wrong: str) -> None:
    stranger = server.connect()
    expect(stranger, f"AUTHENTICATE PLAIN {wrong}", "BAD ...")
    stranger.close()
