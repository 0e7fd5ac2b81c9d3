"""LMTP clients against `fastlisten serve`: swaks, smtp-source -L, on TCP and on a Unix socket.

LMTP has one reply per recipient; smtplib's LMTP reads only one for all of them and would prove
nothing.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest
from support.external_programs import run
from support.marks import external
from support.real_server import (
    ALICE,
    BOB,
    CAROL,
    CROWD,
    HOST,
    LONG_CROWD,
    PLAIN,
    SENDER,
    Mail,
    server_fixture,
    without_old_mail,
)

server = server_fixture("lmtp")
mail = without_old_mail


def swaks(mail: Mail, protocol: str, place: str, *recipients: str, expect: int = 0) -> str:
    """Send the plain message to some recipients; return the output."""
    where = {
        "tcp": ("--server", HOST, "--port", str(mail.port("lmtp"))),
        "unix": ("--socket", str(mail.socket("lmtp"))),
    }[place]
    done = run(
        *("swaks", "--protocol", protocol, "--helo", "client.example.com", *where),
        *("--from", SENDER, "--to", ",".join(recipients)),
        *("--data", f"@{mail.directory / 'plain'}"),
        expect=(expect,),
    )
    return done.stdout.decode()


@external("swaks")
@pytest.mark.parametrize("place", ["tcp", "unix"])
@pytest.mark.parametrize("protocol", ["LMTP", "LMTPS"])
def test_swaks_gets_a_reply_per_recipient(mail: Mail, protocol: str, place: str) -> None:
    """Several recipients: one unknown, one of another server, one named twice."""
    said = swaks(
        mail, protocol, place, ALICE, "nobody@example.org", BOB, ALICE, "x@example.net", CAROL
    )
    assert "<-  220 mx.example.org LMTP" in said
    assert " -> LHLO client.example.com\n" in said
    # What comes after the dot, up to QUIT.
    final = said.rpartition("> .\n")[2].partition("> QUIT")[0]
    assert len(re.findall(r"^<.  250 2\.\d\.\d .*$", final, re.MULTILINE)) == 4
    assert len(re.findall(r"^<", final, re.MULTILINE)) == 4
    assert re.search(r"^<.\* 550 5\.1\.1 ", said, re.MULTILINE)
    assert re.search(r"^<.\* 550 5\.7\.1 ", said, re.MULTILINE)
    assert mail.everything() == {ALICE: 1, BOB: 1, CAROL: 1}
    for account in (ALICE, BOB, CAROL):
        trace, content = mail.the_one(account)
        assert content == PLAIN
        assert f" with {protocol} id " in trace
        assert trace.startswith(f"Return-Path: <{SENDER}>\n")


@external("swaks")
def test_swaks_without_a_valid_recipient(mail: Mail) -> None:
    said = swaks(mail, "LMTP", "tcp", "nobody@example.org", "nobody@example.net", expect=24)
    assert "> DATA" not in said
    assert mail.everything() == {}


@external("swaks")
def test_swaks_speaks_the_wrong_protocol(mail: Mail) -> None:
    done = run(
        *("swaks", "--protocol", "ESMTP", "--server", HOST, "--port", str(mail.port("lmtp"))),
        *("--from", SENDER, "--to", ALICE),
        expect=(22,),
    )
    assert b"<** 500 5." in done.stdout
    assert mail.everything() == {}


@external("smtp-source")
@pytest.mark.parametrize("disconnect", [(), ("-d",)], ids=["connection-each", "connection-kept"])
@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_smtp_source_with_many_recipients(
    mail: Mail, place: str, disconnect: tuple[str, ...]
) -> None:
    """-L: many sessions, every message to ten recipients, each of them counted."""
    where = mail.at("lmtp") if place == "tcp" else f"unix:{mail.socket('lmtp')}"
    done = run(
        *("smtp-source", "-L", "-c", "-s", "5", "-m", "20", "-r", str(len(CROWD)), "-l", "5000"),
        *("-f", SENDER, "-t", CROWD[0], "-M", "client.example.com", *disconnect, where),
    )
    assert done.stderr == b""
    assert done.stdout.split()[-1] == b"20"
    everything = mail.everything()
    assert everything in (dict.fromkeys(CROWD, 20), dict.fromkeys(LONG_CROWD, 1))
    contents = Counter(content for name in everything for content in mail.arrived(name))
    assert list(contents.values()) == [len(CROWD)] * 20
    for content in contents:
        assert len(content.partition(b"\r\n\r\n")[2]) == 5002  # the last line end is its own
    assert all(b" with LMTP id " in stored for name in everything for stored in mail.stored(name))


@external("smtp-source")
def test_smtp_source_with_an_unknown_recipient(mail: Mail) -> None:
    """It gives up at the first refusal, and nothing of its message is delivered."""
    where = f"unix:{mail.socket('lmtp')}"
    done = run("smtp-source", "-L", "-f", SENDER, "-t", "no@example.org", where, expect=(1,))
    assert b"550 5.1.1" in done.stderr
    assert mail.everything() == {}
