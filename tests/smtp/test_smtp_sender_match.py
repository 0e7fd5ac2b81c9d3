"""Sender addresses of authenticated users: `smtp.sender-must-match`.

A user may send from the addresses whose mail the account gets: its own, its aliases, its
catch-alls. This is checked at every MAIL, whatever was allowed at login.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import cheap_hash, write_accounts
from support.relay import FOREIGN, client_of, plain, rcpt, relaying, serving
from support.smtp_client import SmtpClient
from support.smtp_harness import HELLO, Served, codes, serve

from fastlisten.config import loads
from fastlisten.errors import ConfigurationError
from fastlisten.handlers.base import HandlerSettings
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.runtime.handler_factory import make_handler

WONDER = f'password = "{cheap_hash("wonder")}"'

USERS = f"""
[account."alice@example.org"]
aliases = ["Al@example.org", "@caught.example", "postmaster@example.org", "älice@bücher.example"]
{WONDER}

[account."bob@example.org"]
aliases = ["bob@caught.example"]
{WONDER}

[account."Bob@example.org"]
{WONDER}
"""

NOT_OWNED = "553 5.7.1 <{}>: Sender address rejected: not owned by user {}\r\n"

AUTH = plain("alice@example.org", "wonder")


def mail(sender: str, words: str = "") -> bytes:
    return f"MAIL FROM:<{sender}>{words}\r\n".encode()


@pytest.fixture
def submission(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, None, accounts=USERS, role="submission") as served:
        yield served


@pytest.fixture
def client(submission: Served) -> Iterator[SmtpClient]:
    with client_of(submission, AUTH) as client:
        yield client


@pytest.mark.parametrize(
    "sender",
    [
        "alice@example.org",
        "ALICE@Example.ORG",
        '"alice"@example.org',
        "al@example.org",
        "anybody@caught.example",
        "postmaster@example.org",
        "postmaster@caught.example",
        "",
    ],
)
def test_own_addresses_are_accepted(client: SmtpClient, sender: str) -> None:
    assert client.say(mail(sender)).startswith(b"250 ")
    assert client.say(rcpt("bob@example.org")).startswith(b"250 ")


@pytest.mark.parametrize(
    "sender",
    [
        "someone-else@bank.example",
        "bob@example.org",
        "Bob@example.org",
        "nobody@example.org",
        "bob@caught.example",  # Bob's alias, although the domain's catch-all is Alice's
        "alice@sub.example.org",
        "alice@example.com",
        "postmaster@bank.example",
    ],
)
def test_other_addresses_are_rejected(client: SmtpClient, sender: str) -> None:
    said = NOT_OWNED.format(sender, "alice@example.org")
    assert client.say(mail(sender)).decode() == said
    assert client.say(rcpt("bob@example.org")).startswith(b"503 ")
    assert client.say(mail("alice@example.org")).startswith(b"250 ")


def test_case_as_for_logins(submission: Served) -> None:
    for name, allowed in (("bob", "bob"), ("Bob", "Bob"), ("BOB", "bob")):
        with client_of(submission, plain(f"{name}@example.org", "wonder")) as client:
            other = "Bob" if allowed == "bob" else "bob"
            assert client.say(mail(f"{other}@example.org")).startswith(b"553 5.7.1 ")
            assert client.say(mail(f"{allowed}@example.org")).startswith(b"250 ")


def test_non_ascii_senders(client: SmtpClient) -> None:
    said = NOT_OWNED.format("bøb@example.org", "alice@example.org")
    assert client.say(mail("bøb@example.org", " SMTPUTF8")).decode() == said
    assert client.say(mail("älice@xn--bcher-kva.example", " SMTPUTF8")).startswith(b"250 ")


def test_non_ascii_and_long_user_names_in_the_reply(tmp_path: Path) -> None:
    """Without SMTPUTF8 replies are ASCII; a line has at most 512 octets."""
    long = "a" * 200 + "@" + "b" * 40 + ".example"
    users = f'[account."zoë@example.org"]\naliases = ["zoe@example.org"]\n{WONDER}\n'
    users += f'[account."{long}"]\n{WONDER}\n'
    with serving(tmp_path, None, accounts=users, role="submission") as served:
        with client_of(served, plain("zoe@example.org", "wonder")) as client:
            said = NOT_OWNED.format("x@y.example", "zo?@example.org")
            assert client.say(mail("x@y.example")).decode() == said
            said = NOT_OWNED.format("x@y.example", "zoë@example.org")
            assert client.say(mail("x@y.example", " SMTPUTF8")).decode() == said
        with client_of(served, plain(long, "wonder")) as client:
            answer = client.say(mail("x" + long))
            assert answer.startswith(b"553 5.7.1 <xaaa")
            assert len(answer) <= 512


def test_pipelined_commands_after_rejected_sender(submission: Served) -> None:
    with submission.connect() as connection:
        connection.sendall(HELLO + AUTH + mail("bob@example.org") + rcpt("bob@example.org"))
        connection.sendall(b"DATA\r\nQUIT\r\n")
        replies = b""
        while piece := connection.recv(65536):
            replies += piece
    assert codes(replies) == [250, 235, 553, 503, 503, 221]


# --- accounts that change during a session --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (USERS.replace('"Al@example.org", ', ""), b"553 5.7.1 "),
        (USERS.partition('[account."bob@')[2].join(('[account."bob@', "")), b"530 5.7.0 "),
        (USERS.replace(WONDER, f'password = "{cheap_hash("other")}"', 1), b"530 5.7.0 "),
        (USERS.replace(WONDER, "", 1), b"530 5.7.0 "),
        ("# nobody", b"530 5.7.0 "),
    ],
    ids=["alias removed", "account removed", "other password", "no password", "nobody"],
)
def test_removals_apply_to_open_sessions(
    submission: Served, client: SmtpClient, text: str, answer: bytes
) -> None:
    assert client.say(mail("al@example.org")).startswith(b"250 ")
    client.say(b"RSET")
    write_accounts(submission.directory / "accounts.toml", text)
    assert client.say(mail("al@example.org")).startswith(answer)


def test_new_alias_applies_at_once(submission: Served, client: SmtpClient) -> None:
    assert client.say(mail("new@example.org")).startswith(b"553 ")
    text = USERS.replace('"Al@example.org"', '"Al@example.org", "new@example.org"')
    (submission.directory / "accounts.toml").write_text(text)
    assert client.say(mail("new@example.org")).startswith(b"250 ")


def test_half_written_accounts_file_is_a_temporary_failure(
    submission: Served, client: SmtpClient
) -> None:
    with open(submission.directory / "accounts.toml", "w") as copy:
        assert client.say(mail("al@example.org")).startswith(b"250 ")
        client.say(b"RSET")
        assert client.say(mail("new@example.org")).startswith(b"451 ")
        copy.write(USERS[:60])
        copy.flush()
        assert client.say(mail("al@example.org")).startswith(b"250 ")
        client.say(b"RSET")
        assert client.say(mail("bob@example.org")).startswith(b"451 ")


# --- where it applies -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "options", "expected"),
    [
        (25, {}, False),
        (587, {}, True),
        (465, {}, True),
        (25, {"role": "submission"}, True),
        (587, {"role": "mx"}, False),
        (587, {"sender-must-match": False}, False),
        (25, {"sender-must-match": True}, True),
    ],
)
def test_default_by_role(port: int, options: dict[str, object], expected: bool) -> None:
    handler = SmtpHandler(HandlerSettings("x", "smtp", "mx.example", port=port, options=options))
    assert handler.sender_must_match is expected


def test_mx_checks_only_authenticated_senders(tmp_path: Path) -> None:
    with (
        relaying() as relay,
        serving(tmp_path, relay, accounts=USERS, sender_must_match=True) as served,
    ):
        with client_of(served, auth=b"") as stranger:
            assert stranger.say(mail("someone-else@bank.example")).startswith(b"250 ")
            assert stranger.say(rcpt("bob@example.org")).startswith(b"250 ")
        with client_of(served, AUTH) as client:
            assert client.say(mail("someone-else@bank.example")).startswith(b"553 5.7.1 ")
            assert client.say(mail("alice@example.org")).startswith(b"250 ")
            assert client.say(rcpt(FOREIGN)).startswith(b"250 ")


def test_option_disables_the_check(tmp_path: Path) -> None:
    options = {"role": "submission", "sender_must_match": False}
    with (
        serving(tmp_path, None, accounts=USERS, **options) as served,
        client_of(served, AUTH) as client,
    ):
        assert client.say(mail("someone-else@bank.example")).startswith(b"250 ")


def test_lmtp_has_no_such_option(tmp_path: Path) -> None:
    with serve(tmp_path, accounts=USERS, lmtp=True) as served:
        said = served.say(b"LHLO c\r\n" + mail("someone-else@bank.example"))
        assert codes(said) == [250, 250]
    with pytest.raises(ConfigurationError, match="sender-must-match"):
        loads(
            '[server.listener.a]\nprotocol = "lmtp"\nbind = "unix:/run/lmtp"\n'
            "lmtp.sender-must-match = true\n"
        )


def test_option_has_no_effect_with_aiosmtpd_handler(tmp_path: Path) -> None:
    config = loads(
        f'[server]\ndata-directory = "{tmp_path}"\n'
        '[server.listener.a]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
        'smtp.aiosmtpd-handler = "aiosmtpd.handlers:Sink"\nsmtp.sender-must-match = true\n'
    )
    handler = make_handler(config, config.listeners[0])
    assert any("smtp.sender-must-match has no effect" in note for note in handler.notes())
