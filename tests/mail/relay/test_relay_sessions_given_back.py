"""However a session with a relay ends, its user may have all sessions again.

Rules of this file: whether the locks are free is asked from another process, as a worker asks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator

import pytest
from support.forked import MAY_HAVE_THREADS, exit_status
from support.scripted_relay import Do, Script, scripted
from support.waiting import eventually

from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay import relay as relays
from fastlisten.mail.relay.relay import SESSIONS_OF_USER, Relay, RelaySettings, share_sessions
from fastlisten.mail.relay.relay_error import RelayError
from fastlisten.mail.relay.session import RelaySession
from fastlisten.mail.user_sessions import UserSessions

pytestmark = [MAY_HAVE_THREADS, pytest.mark.usefixtures("descriptors_back")]

ALICE = "alice@example.org"
CAROL = EnvelopeRecipient(parse_mailbox("carol@elsewhere.example"))


@pytest.fixture
def locks() -> Iterator[int]:
    """Share the sessions of users with other processes; yield the file."""
    file = os.memfd_create("test", os.MFD_CLOEXEC)
    share_sessions(None, UserSessions(file))
    yield file
    share_sessions(None)
    os.close(file)


def free(file: int, relay: Relay) -> int:
    """Return how many sessions another process could have for the user."""
    others = UserSessions(file)
    user = f"{ALICE} {relay.settings}"

    def is_free(number: int) -> bool:
        return (
            exit_status(lambda: all(others.take(user, SESSIONS_OF_USER) for _ in range(number)))
            == 0
        )

    return max(number for number in range(SESSIONS_OF_USER + 1) if is_free(number))


async def quits(relay: Relay, script: Script) -> None:
    session = RelaySession(relay, Envelope("a@b.example"), ALICE)
    await session.recipient(CAROL)
    session.quit()
    await relay.close()
    assert script.commands[-1] == "QUIT"


async def is_cancelled_before_its_quit(relay: Relay, script: Script) -> None:
    session = RelaySession(relay, Envelope("a@b.example"), ALICE)
    await session.recipient(CAROL)
    session.quit()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await eventually(lambda: not script.open, "the end of the connection")
    assert script.commands[-1] != "QUIT"


async def is_cancelled_at_mail(relay: Relay, script: Script) -> None:
    script.steps = {"MAIL": [Do.SILENCE]}
    session = RelaySession(relay, Envelope("a@b.example"), ALICE)
    asking = asyncio.create_task(session.recipient(CAROL))
    await eventually(lambda: "MAIL" in str(script.commands), "MAIL")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def is_cancelled_while_it_waits(relay: Relay, script: Script) -> None:
    session = RelaySession(relay, Envelope("a@b.example"), ALICE)
    await session.recipient(CAROL)  # has the one place
    other = RelaySession(relay, Envelope("a@b.example"), ALICE)
    asking = asyncio.create_task(other.recipient(CAROL))
    await asyncio.sleep(0)
    assert relay._users[ALICE] == 2
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    session.abort()


async def is_refused(relay: Relay, script: Script) -> None:
    script.steps = {"RCPT": [b"550 5.1.1 no\r\n"]}
    session = RelaySession(relay, Envelope("a@b.example"), ALICE)
    with pytest.raises(RelayError):
        await session.recipient(CAROL)
    session.abort()


@pytest.mark.parametrize(
    "session",
    [
        quits,
        is_cancelled_before_its_quit,
        is_cancelled_at_mail,
        is_cancelled_while_it_waits,
        is_refused,
    ],
)
def test_session_gives_its_lock_back_when_it(
    session: Callable[[Relay, Script], Awaitable[None]],
    locks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relays, "SESSIONS", 1)

    async def main(script: Script) -> None:
        relay = Relay(RelaySettings("127.0.0.1", script.port, "none", "me.example"))
        before = RelaySession(relay, Envelope("a@b.example"), ALICE)
        await before.recipient(CAROL)
        assert free(locks, relay) == SESSIONS_OF_USER - 1
        before.abort()
        await session(relay, script)
        assert relay.sessions == 0
        assert free(locks, relay) == SESSIONS_OF_USER
        await relay.close()

    with scripted(Script()) as script:
        asyncio.run(main(script))
