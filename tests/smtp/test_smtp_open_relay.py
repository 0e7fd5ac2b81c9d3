"""Not an open relay: every known trick to have mail relayed without authentication.

A relay that would accept everything is configured; the tests check that it is never contacted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.accounts import cheap_hash, write_accounts
from support.relay import AUTH, FOREIGN, USERS, Relay, client_of, plain, relaying, serving
from support.smtp_client import SmtpClient
from support.smtp_harness import HELLO, Served, serve

#: Accounts with a catch-all, so that unusual local parts are accepted.
CATCH_ALL = (
    USERS + '\n[account."rest@example.org"]\naliases = ["@example.org", "@Bücher.example"]\n'
)

#: Paths that mean, or might be mistaken for, a mailbox elsewhere.
ELSEWHERE = [
    FOREIGN,
    "carol@ELSEWHERE.example",
    "postmaster@elsewhere.example",
    "PostMaster@elsewhere.example",
    "alice@example.org.elsewhere.example",
    "alice@sub.example.org",
    "alice@example.com",
    "alice@[127.0.0.1]",
    "alice@[IPv6:::1]",
    "alice@localhost",
    "alice@mx.example.org",
    "alice@example.or\u0261",  # LATIN SMALL LETTER SCRIPT G
    "alice@\u0435xample.org",  # CYRILLIC SMALL LETTER IE
    "alice@\uff45xample.org",  # FULLWIDTH LATIN SMALL LETTER E
    "alice@xn--xample-2of.org",
    "carol@xn--a\u00e4.example",
    "alice@example.org-elsewhere.example",
    "@example.org:carol@elsewhere.example",
    "@example.org,@mx.example.org:carol@elsewhere.example",
    '"alice@example.org"@elsewhere.example',
    '"carol@elsewhere.example, alice@example.org"@elsewhere.example',
    "alice%example.org@elsewhere.example",
    "example.org!alice@elsewhere.example",
]

#: Paths in our domain with a route in the local part: local or unknown, but never relayed.
HERE = [
    "carol%elsewhere.example@example.org",
    "carol%elsewhere.example@EXAMPLE.ORG",
    "elsewhere.example!carol@example.org",
    '"carol@elsewhere.example"@example.org',
    '"carol@elsewhere.example>"@example.org',
    '"carol\\@elsewhere.example"@example.org',
    '"@elsewhere.example:carol"@example.org',
    "@elsewhere.example:carol@example.org",
    "@elsewhere.example,@example.org:carol%elsewhere.example@example.org",
]

#: Malformed paths.
NONSENSE = [
    "carol@elsewhere.example@example.org",
    "alice@example.org@elsewhere.example",
    "carol@elsewhere.example,alice@example.org",
    "carol@elsewhere.example alice@example.org",
    "carol@example.org.",
    "carol@elsewhere.example.",
    "carol@.elsewhere.example",
    "carol@elsewhere..example",
    "carol@[elsewhere.example]",
    "carol@[127.0.0.1",
    "elsewhere.example!carol",
    "carol%elsewhere.example",
    "carol",
    '"carol@elsewhere.example"',
    "<carol@elsewhere.example>",
    "alice@example.org\x00@elsewhere.example",
    "carol@elsewhere\u3002example",
    "carol@elsewhere.example\u2028",
    "",
    "@elsewhere.example:",
    "@elsewhere.example",
]

SENDERS = ["<>", "<alice@example.org>", "<postmaster@example.org>", "<mallory@elsewhere.example>"]


@dataclass
class RelayingServer:
    served: Served
    relay: Relay

    def relay_unused(self) -> bool:
        return not self.relay.commands and self.relay.begun == 0


@pytest.fixture(params=["exact", "catch-all"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RelayingServer]:
    accounts = CATCH_ALL if request.param == "catch-all" else USERS
    with relaying() as relay, serving(tmp_path, relay, accounts=accounts) as served:
        yield RelayingServer(served, relay)


def try_all(client: SmtpClient, paths: list[str]) -> list[bytes]:
    """Return the reply to each path, each in a transaction of its own."""
    replies = []
    for path in paths:
        client.say(b"RSET")
        assert client.say(b"MAIL FROM:<> SMTPUTF8").startswith(b"250 ")
        replies.append(client.say(f"RCPT TO:<{path}>".encode()))
    return replies


@contextlib.contextmanager
def session(served: Served, auth: bytes = b"", hello: bytes = HELLO) -> Iterator[SmtpClient]:
    client = SmtpClient(served.connect())
    try:
        client.say(hello)
        if auth:
            client.say(auth)
        yield client
    finally:
        client.close()


def test_recipients_elsewhere_are_refused_without_auth(server: RelayingServer) -> None:
    for part in (ELSEWHERE[:11], ELSEWHERE[11:]):
        with session(server.served) as client:
            for path, reply in zip(part, try_all(client, part), strict=True):
                assert reply.startswith(b"550 5.7.1 "), (path, reply)
    assert server.relay_unused()


@pytest.mark.parametrize("auth", [b"", AUTH], ids=["stranger", "user"])
def test_routes_in_local_parts_are_not_followed(
    server: RelayingServer, auth: bytes, request: pytest.FixtureRequest
) -> None:
    with session(server.served, auth) as client:
        for path, reply in zip(HERE, try_all(client, HERE), strict=True):
            assert reply.startswith((b"550 5.1.1 ", b"250 ", b"501 ")), (path, reply)
            if "catch-all" not in request.node.name:
                assert not reply.startswith(b"250 ")
    assert server.relay_unused()


@pytest.mark.parametrize("auth", [b"", AUTH], ids=["stranger", "user"])
def test_malformed_paths_are_refused(server: RelayingServer, auth: bytes) -> None:
    for part in (NONSENSE[:11], NONSENSE[11:]):
        with session(server.served, auth) as client:
            for path, reply in zip(part, try_all(client, part), strict=True):
                assert reply.startswith((b"501 ", b"500 ")), (path, reply)
    assert server.relay_unused()


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("words", ["", " AUTH=alice@example.org", " AUTH=<>"])
def test_sender_address_gives_no_rights(server: RelayingServer, sender: str, words: str) -> None:
    with session(server.served) as client:
        assert client.say(f"MAIL FROM:{sender}{words}".encode())[:3] in (b"250", b"503", b"555")
        client.say(b"RSET")
        client.say(f"MAIL FROM:{sender}".encode())
        assert client.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"550 5.7.1 ")
        assert client.say(b"RCPT TO:<alice@example.org>").startswith(b"250 ")
        assert client.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"550 5.7.1 ")
        client.say(b"DATA")
        assert client.say(b"To: carol@elsewhere.example\r\n\r\n.").startswith(b"250 ")
    assert server.relay_unused()


@pytest.mark.parametrize(
    "name", [b"example.org", b"mx.example.org", b"localhost", b"[127.0.0.1]", b"elsewhere.example"]
)
def test_client_name_gives_no_rights(server: RelayingServer, name: bytes) -> None:
    for verb in (b"EHLO ", b"HELO "):
        with session(server.served, hello=verb + name) as client:
            client.say(b"MAIL FROM:<alice@example.org>")
            assert client.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"550 5.7.1 ")
    assert server.relay_unused()


@pytest.mark.parametrize(
    "attempt",
    [
        [plain("alice@example.org", "wrong")],
        [plain("alice@example.org", "")],
        [plain("", "wonder")],
        [plain("rest@example.org", "wonder")],
        [plain("postmaster", "wonder")],
        [b"AUTH PLAIN\r\n", b"*\r\n"],
        [b"AUTH LOGIN\r\n", b"YWxpY2VAZXhhbXBsZS5vcmc=\r\n", b"*\r\n"],
        [b"AUTH ANONYMOUS Y2Fyb2w=\r\n"],
        [b"AUTH EXTERNAL =\r\n"],
        [b"AUTH CRAM-MD5\r\n"],
        [b"XCLIENT ADDR=127.0.0.1 LOGIN=alice@example.org\r\n"],
        [b"XFORWARD ADDR=127.0.0.1\r\n"],
        [b"PROXY TCP4 127.0.0.1 127.0.0.1 1 25\r\n"],
    ],
    ids=repr,
)
def test_failed_auth_gives_no_rights(server: RelayingServer, attempt: list[bytes]) -> None:
    with session(server.served) as client:
        for line in attempt:
            assert client.say(line)[:1] in b"345"
        client.say(b"MAIL FROM:<alice@example.org>")
        assert client.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"550 5.7.1 ")
    assert server.relay_unused()


def test_recipients_refused_again_after_auth_in_transaction(server: RelayingServer) -> None:
    with session(server.served) as client:
        client.say(b"MAIL FROM:<alice@example.org>")
        assert client.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"550 5.7.1 ")
        assert client.say(AUTH).startswith(b"503 ")
        assert client.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"550 5.7.1 ")
    assert server.relay_unused()


def test_auth_is_valid_for_one_connection(server: RelayingServer) -> None:
    with client_of(server.served), client_of(server.served, auth=b"") as other:
        other.say(b"MAIL FROM:<alice@example.org>")
        assert other.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"550 5.7.1 ")
    assert server.relay_unused()


@pytest.mark.parametrize(
    "accounts",
    [
        USERS.partition('[account."bob@example.org"]')[2].join(('[account."bob@example.org"]', "")),
        USERS.replace(cheap_hash("wonder"), cheap_hash("changed")),
        USERS.replace(f'password = "{cheap_hash("wonder")}"', ""),
    ],
    ids=["removed", "other password", "no password"],
)
def test_auth_ends_with_account_or_password(server: RelayingServer, accounts: str) -> None:
    with session(server.served, AUTH) as client:
        write_accounts(server.served.directory / "accounts.toml", accounts + "\n# changed\n")
        client.say(b"MAIL FROM:<alice@example.org>")
        assert client.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"550 5.7.1 ")
    assert server.relay_unused()


def test_auth_in_clear_is_void_after_starttls(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay, tls="starttls") as served:
        with session(served, AUTH) as client:  # 538
            client.say(b"MAIL FROM:<alice@example.org>")
            assert client.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"550 5.7.1 ")
            client.say(b"RSET")
            assert client.say(b"STARTTLS").startswith(b"220 ")
            encrypted = SmtpClient(served.encrypt(client.sock))
            encrypted.say(HELLO)
            encrypted.say(b"MAIL FROM:<alice@example.org>")
            assert encrypted.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"550 5.7.1 ")
            encrypted.close()
        assert relay.begun == 0


def test_recipients_elsewhere_are_refused_without_a_relay(tmp_path: Path) -> None:
    with serving(tmp_path, None) as served, session(served, AUTH) as client:
        for path, reply in zip(ELSEWHERE[:5], try_all(client, ELSEWHERE[:5]), strict=True):
            assert reply.startswith(b"550 5.7.1 "), path


def test_submission_refuses_mail_without_auth(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay, role="submission") as served:
        with session(served) as client:
            assert client.say(b"MAIL FROM:<alice@example.org>").startswith(b"530 5.7.0 ")
            assert client.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"530 5.7.0 ")
        assert relay.begun == 0


def test_lmtp_never_relays(tmp_path: Path) -> None:
    # lmtp has no such option, but a program could pass it all the same.
    with (
        relaying() as relay,
        serve(tmp_path, accounts=CATCH_ALL, lmtp=True, relay=relay.endpoint, tls="implicit") as at,
    ):
        with session(at, hello=b"LHLO example.org") as client:
            assert client.say(AUTH).startswith((b"500 ", b"502 "))
            for path, reply in zip(ELSEWHERE[:11], try_all(client, ELSEWHERE[:11]), strict=True):
                assert reply.startswith(b"550 5.7.1 "), path
        assert relay.begun == 0


def test_authenticated_user_may_relay(server: RelayingServer) -> None:
    """Without this, the other tests would also pass if relaying never worked."""
    with session(server.served, AUTH) as client:
        client.say(b"MAIL FROM:<alice@example.org>")
        assert client.say(f"RCPT TO:<{FOREIGN}>".encode()).startswith(b"250 ")
    assert server.relay.begun == 1
