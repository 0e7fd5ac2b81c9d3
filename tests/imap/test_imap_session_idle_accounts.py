"""Sessions in IDLE end when their account is changed: nobody else may read on.

Rules of this file: the file is read again by the handler; the interval is short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.accounts import cheap_hash, write_accounts
from support.imap_server import ADDRESS, MESSAGE, ImapServer, Lines, serve_imap
from support.waiting import until

from fastlisten.handlers.imap import idle_sessions
from fastlisten.handlers.imap.idle_sessions import IdleSessions

FAREWELL = b"* BYE [EXPIRED] Account has been changed, please log in again\r\n"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImapServer]:
    monkeypatch.setattr(idle_sessions, "LOOK_EVERY", 0.02)
    with serve_imap(tmp_path) as served:
        served.deliver(MESSAGE)
        yield served


def idle(client: Lines) -> None:
    client.send(b"i IDLE\r\n")
    assert client.response() == b"+ idling"


@pytest.mark.parametrize("mailbox", ["INBOX", ""])
@pytest.mark.parametrize(
    "accounts",
    [
        f'[account."{ADDRESS}"]\npassword = "{cheap_hash("other")}"\n',
        f'[account."{ADDRESS}"]\n',
        f'[account."bob@example.org"]\npassword = "{cheap_hash("other")}"\n',
    ],
    ids=["password", "disabled", "deleted"],
)
def test_account_is_changed(server: ImapServer, accounts: str, mailbox: str) -> None:
    client = server.lines(mailbox)
    idle(client)
    write_accounts(server.directory / "accounts.toml", accounts)
    assert client.stream.read() == FAREWELL
    client.close()


def test_others_stay(server: ImapServer) -> None:
    client, other = server.lines("INBOX"), server.lines("INBOX")
    idle(client)
    handler = server.handler
    assert handler is not None
    before = handler.office.accounts.roster
    text = (server.directory / "accounts.toml").read_text()
    more = f'\n[account."bob@example.org"]\npassword = "{cheap_hash("other")}"\n'
    write_accounts(server.directory / "accounts.toml", text + more)
    until(lambda: handler.office.accounts.roster is not before)
    other.ok("STORE 1 +FLAGS (\\Seen)")
    assert client.response().startswith(b"* 1 FETCH (FLAGS (\\Seen")
    client.send(b"DONE\r\n")
    assert client.answers(b"i")[-1] == b"OK Idle completed."
    assert len(handler.idling) == 0


class Counted:
    """A session that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def end_if_changed(self) -> None:
        self.asked += 1


def test_sessions_are_asked_when_accounts_have_changed() -> None:
    """All of them, some at a time, and nobody's file is read for nobody."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        read, versions = [], [object()]

        def refresh(_: asyncio.AbstractEventLoop, then: Callable[[], None]) -> None:
            read.append(1)
            then()

        idling = IdleSessions(refresh, lambda: versions[-1])
        sessions = [Counted() for _ in range(1200)]
        for session in sessions:
            idling.add(session)
        idling._look()
        for _ in range(5):
            await asyncio.sleep(0)
        assert {session.asked for session in sessions} == {1}
        idling._look()
        await asyncio.sleep(0)
        assert {session.asked for session in sessions} == {1}  # nothing has changed
        versions.append(object())
        idling.discard(sessions[0])
        idling._look()
        last = next(one for one in sessions[2:] if one.asked == 1)
        idling.discard(last)  # ends while others are asked
        for _ in range(5):
            await asyncio.sleep(0)
        assert (sessions[0].asked, sessions[1].asked, last.asked) == (1, 2, 1)
        for session in sessions:
            idling.discard(session)
        idling._look()
        assert len(read) == 3
        assert idling._timer is None
        idling.close()
        assert loop.is_running()

    asyncio.run(main())
