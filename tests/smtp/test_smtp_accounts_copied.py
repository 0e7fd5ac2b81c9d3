"""An accounts file is copied while mail arrives: accounts in both versions never get a 5xx.

The file is written as `cp` and editors write it, in pieces split anywhere, while clients send RCPT.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.accounts import cheap_hash, write_accounts
from support.relay import FOREIGN, client_of, plain, rcpt, relaying, serving
from support.smtp_client import SmtpClient
from support.smtp_harness import HELLO, MAIL, serve

HASH = cheap_hash("wonder")


def text_of(names: list[str]) -> bytes:
    return b"".join(
        b'[account."%s@example.org"]\npassword = "%s"\naliases = ["%s@example.com"]\n\n'
        % (name.encode(), HASH.encode(), name.encode())
        for name in names
    )


OLD, NEW = text_of(["alice", "bob", "old"]), text_of(["first", "bob", "new", "alice"])

#: The length of NEW's first line, a valid account.
BEGINNING = NEW.index(b"\n") + 1


@pytest.fixture(params=["smtp", "lmtp"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmtpClient]:
    lmtp = request.param == "lmtp"
    with serve(tmp_path, accounts=OLD.decode(), lmtp=lmtp, max_errors=10**6) as served:
        client = SmtpClient(served.connect())
        client.say(HELLO.replace(b"EHLO", b"LHLO") if lmtp else HELLO)
        client.say(MAIL)
        yield client
        client.close()


def test_known_recipients_get_no_5xx_during_a_copy(client: SmtpClient, tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"

    def ask(*names: str) -> None:
        for name in names:
            for domain in ("example.org", "example.com"):
                reply = client.say(rcpt(f"{name}@{domain}"))
                assert reply.startswith((b"250 ", b"452 ")), (name, reply)
        client.say(b"RSET")
        client.say(MAIL)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, len(NEW)), max_size=5).map(sorted), st.booleans())
    def copy(cuts: list[int], remove: bool) -> None:
        write_accounts(path, OLD.decode())
        assert client.say(rcpt("new@example.org")).startswith(b"550 5.1.1 ")
        if remove:
            path.unlink()
            ask("alice", "bob")
        with open(path, "wb", buffering=0) as file:
            ask("alice", "bob")
            last = 0
            for end in (*cuts, len(NEW)):
                file.write(NEW[last:end])
                last = end
                ask("alice", "bob")
                assert client.say(rcpt("nobody@example.org")).startswith(b"451 ")
        ask("alice", "bob", "first", "new")

    copy()
    os.utime(path, (1, 1))  # as if it were long unchanged
    assert client.say(rcpt("old@example.org")).startswith(b"550 5.1.1 ")
    assert client.say(rcpt("new@example.org")).startswith(b"250 ")


def test_server_started_during_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    with open(path, "wb", buffering=0) as file:
        file.write(NEW[:BEGINNING])
        with serve(tmp_path, accounts=None) as served:
            assert b"first@example.org" in NEW[:BEGINNING]
            said = served.say(HELLO, MAIL, rcpt("first@example.org", "alice@example.org", FOREIGN))
            assert [line[:4] for line in said.split(b"\r\n")[-4:-1]] == [b"250 ", b"451 ", b"451 "]
            file.write(NEW[BEGINNING:])
            said = served.say(HELLO, MAIL, rcpt("first@example.org", "alice@example.org", FOREIGN))
            assert [line[:4] for line in said.split(b"\r\n")[-4:-1]] == [b"250 ", b"250 ", b"451 "]


def test_relaying_continues_during_a_copy(tmp_path: Path) -> None:
    """The previous version tells which domains are local."""
    auth = plain("alice@example.org", "wonder")
    with (
        relaying() as relay,
        serving(tmp_path, relay, accounts=OLD.decode()) as served,
        client_of(served, auth) as client,
        open(tmp_path / "accounts.toml", "wb", buffering=0) as file,
    ):
        client.say(MAIL)
        for part in (NEW[:10], NEW[10:90], NEW[90:]):
            file.write(part)
            assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
            assert client.say(rcpt("nobody@example.com")).startswith(b"451 ")
        with client_of(served, auth=b"") as stranger:
            stranger.say(MAIL)
            assert stranger.say(rcpt(FOREIGN)).startswith(b"451 ")
