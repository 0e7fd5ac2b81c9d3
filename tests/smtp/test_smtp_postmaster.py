"""Mail to postmaster reaches an account: at each local domain, without one, and at the hostname.

RFC 5321 4.5.1 (and 2.3.5 on names), RFC 3464 2: replies to DSNs must be deliverable. The account is
named by the configuration, or chosen from the accounts file.
"""

from __future__ import annotations

import asyncio
import email
import email.utils
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import write_accounts
from support.program import program
from support.relay import AUTH, USERS, client_of, rcpt, serving
from support.smtp_client import SmtpClient
from support.smtp_harness import HELLO, HOSTNAME, MAIL, Served, codes, serve
from support.waiting import until

from fastlisten.config import loads
from fastlisten.errors import ConfigurationError
from fastlisten.handlers.base import HandlerSettings, SettingError
from fastlisten.handlers.smtp import LmtpHandler, SmtpHandler
from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.address import Mailbox, parse_mailbox
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.runtime.handler_factory import make_handler

TWO = """
[account."alice@example.org"]
[account."bob@example.net"]
aliases = ["bobby@example.org"]
"""

WITH_ALIAS = TWO + '[account."carol@example.com"]\naliases = ["Postmaster@example.com"]\n'

#: The addresses whose accounts are checked.
HOST, BARE, LOCAL = f"postmaster@{HOSTNAME}", "postmaster", "postmaster@example.net"
OF_ALIAS = "postmaster@example.com"


def found(tmp_path: Path, text: str, postmaster: str) -> dict[str, str | None]:
    """Return the local part of the account that gets mail to each address."""
    write_accounts(tmp_path / "accounts.toml", text)
    accounts = Accounts(tmp_path / "accounts.toml")
    accounts.appoint(postmaster, HOSTNAME)
    roster = accounts.reload()
    assert roster is not None
    result = {}
    for address in (HOST, BARE, LOCAL, OF_ALIAS):
        bare = Mailbox(address, address, "")
        account = roster.find(parse_mailbox(address) if "@" in address else bare)
        result[address] = account.name.partition("@")[0] if account else None
    return result


@pytest.mark.parametrize(
    ("text", "postmaster", "expected"),
    [
        (TWO, "", ["alice", "alice", "alice", None]),
        (TWO, "bob@example.net", ["bob", "bob", "bob", None]),
        (TWO, "Bobby@Example.ORG", ["bob", "bob", "bob", None]),
        (WITH_ALIAS, "", ["carol", "carol", "carol", "carol"]),
        (WITH_ALIAS, "bob@example.net", ["bob", "bob", "bob", "carol"]),
        (f'{TWO}[account."{HOST}"]\n', "bob@example.net", ["postmaster", "bob", "bob", None]),
    ],
)
def test_postmaster_account(
    tmp_path: Path, text: str, postmaster: str, expected: list[str | None]
) -> None:
    assert list(found(tmp_path, text, postmaster).values()) == expected


@pytest.mark.parametrize("lmtp", [False, True], ids=["smtp", "lmtp"])
def test_postmaster_is_accepted_without_auth(tmp_path: Path, lmtp: bool) -> None:
    with serve(tmp_path, lmtp=lmtp) as served:
        said = served.say(
            HELLO.replace(b"EHLO", b"LHLO") if lmtp else HELLO,
            MAIL,
            b"RCPT TO:<Postmaster>\r\n",
            rcpt(HOST, HOST.upper(), f"PostMaster@{HOSTNAME}"),
            # The hostname is not a local domain for other addresses.
            rcpt(f"alice@{HOSTNAME}", f"abuse@{HOSTNAME}", f"postmaster@x.{HOSTNAME}"),
            b"DATA\r\n.\r\nQUIT\r\n",
        )
    assert codes(said)[2:9] == [250] * 4 + [550] * 3
    assert len(served.delivered()) == 1


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[tuple[Served, SmtpClient]]:
    """Serve, with a message from Alice to Bob that requested a DSN."""
    with serving(tmp_path, None, sender_must_match=True) as served, client_of(served) as client:
        client.say(b"MAIL FROM:<alice@example.org>")
        client.say(b"RCPT TO:<bob@example.org> NOTIFY=SUCCESS")
        client.say(b"DATA")
        assert client.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
        until(lambda: len(served.delivered()) == 1)
        yield served, client


def test_reply_to_a_dsn_is_delivered(notified: tuple[Served, SmtpClient]) -> None:
    served, client = notified
    notice = email.message_from_bytes(served.delivered()[0])
    (_, sender), *_ = email.utils.getaddresses([notice["From"]])
    assert sender == HOST
    client.say(b"MAIL FROM:<alice@example.org>")
    assert client.say(rcpt(sender)).startswith(b"250 ")
    client.say(b"RSET")
    # Whoever gets its mail may send from it.
    assert client.say(f"MAIL FROM:<{sender}>".encode()).startswith(b"250 ")


def test_dsn_to_postmaster_is_delivered(tmp_path: Path) -> None:
    with serving(tmp_path, None) as served, client_of(served, AUTH) as client:
        client.say(f"MAIL FROM:<{HOST}>".encode())
        client.say(b"RCPT TO:<bob@example.org> NOTIFY=SUCCESS")
        client.say(b"DATA")
        assert client.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
        until(lambda: len(served.delivered("alice@example.org")) == 1)


# --- the configuration ----------------------------------------------------------------------------

TEXT = """
[server]
data-directory = "{0}"
hostname = "mx.example.org"
postmaster = "{1}"
[server.listener.a]
protocol = "smtp"
bind = "127.0.0.1:0"
"""


@pytest.mark.parametrize("value", ["", "alice", "alice@", "a b@example.org", "<a@example.org>"])
def test_option_must_be_an_address(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loads(TEXT.format(tmp_path, value))
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (5, "server.postmaster")


def test_option_reaches_the_handler(tmp_path: Path) -> None:
    config = loads(TEXT.format(tmp_path, "bob@example.org"))
    handler = make_handler(config, config.listeners[0])
    assert handler.settings.extra["postmaster"] == "bob@example.org"


def handler_of(directory: Path, postmaster: str, kind: type[SmtpHandler]) -> SmtpHandler:
    extra = {"postmaster": postmaster}
    return kind(
        HandlerSettings("x", kind.name, HOSTNAME, data_directory=str(directory), extra=extra)
    )


async def start_and_stop(kind: type[SmtpHandler], directory: Path, postmaster: str) -> str:
    handler = handler_of(directory, postmaster, kind)
    await handler.start()
    roster = handler.office.accounts.roster
    try:
        person = roster.postmaster if roster else None
        return person.name if person else ""
    finally:
        await handler.stop()


def run(kind: type[SmtpHandler], directory: Path, postmaster: str) -> str:
    return asyncio.run(start_and_stop(kind, directory, postmaster))


@pytest.mark.parametrize("kind", [SmtpHandler, LmtpHandler])
def test_postmaster_without_account_prevents_start(tmp_path: Path, kind: type[SmtpHandler]) -> None:
    path = tmp_path / "accounts.toml"
    write_accounts(path, USERS)
    with pytest.raises(SettingError, match=rf"server\.postmaster: {path} has no account eve@x\.y"):
        run(kind, tmp_path, "eve@x.y")
    assert PostOffice._open == {}
    assert run(kind, tmp_path, "bob@example.org") == "bob@example.org"
    # Without a file this can't be checked; the start succeeds and mail is deferred.
    path.unlink()
    assert run(kind, tmp_path, "eve@x.y") == ""


def test_start_waits_for_half_written_accounts_file(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    path.write_text(TWO)

    async def main() -> str:
        starting = asyncio.create_task(start_and_stop(SmtpHandler, tmp_path, "carol@example.com"))
        done, _ = await asyncio.wait([starting], timeout=0.2)
        assert not done
        write_accounts(path, WITH_ALIAS)
        return await starting

    assert asyncio.run(main()) == "carol@example.com"


def test_removed_postmaster_is_replaced_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = tmp_path / "accounts.toml"
    write_accounts(path, TWO)
    accounts = Accounts(path)
    accounts.appoint("bob@example.net", HOSTNAME)
    accounts.reload()
    write_accounts(path, TWO.partition('[account."bob')[0])
    for number in range(3):
        roster = accounts.reload()
        write_accounts(path, TWO.partition('[account."bob')[0] + f"# {number}")
    assert roster is not None
    assert roster.postmaster is not None
    assert roster.postmaster.name == "alice@example.org"
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{path} has no account bob@example.net, the postmaster: "
        "that mail goes to alice@example.org"
    )


def test_serve_reports_missing_postmaster(tmp_path: Path) -> None:
    text = 'postmaster = "eve@x.y"\n'  # of [server]
    text += '[server.listener.a]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
    with program(tmp_path, text, listeners=0, accounts=TWO) as started:
        assert started.ended() == 3
    assert "server.postmaster" in started.err
    assert "has no account eve@x.y" in started.err
    assert "Traceback" not in started.err
