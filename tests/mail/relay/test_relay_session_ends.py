"""How a session with a relay ends: when QUIT may be sent, and what is given back.

Rules of this file: QUIT is a command only where the relay waits for one. Where it may be waiting
for a message, or for the rest of one, the connection is just closed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.loops import LOOPS, run_virtually
from support.scripted_relay import Action, Do, Script, relay_message, scripted
from support.waiting import eventually

from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay.client import SmtpClient
from fastlisten.mail.relay.relay import Relay, RelaySettings
from fastlisten.mail.relay.session import RelaySession

MESSAGE = b"Subject: x\r\n\r\n" + (b"x" * 62 + b"\r\n") * 100


class InTurn(list[Action]):
    """Actions that differ each time that a step comes."""

    def __init__(self, *turns: list[Action]) -> None:
        super().__init__(turns[0])
        self._turns = iter(turns)

    def __iter__(self) -> Any:
        return iter(next(self._turns))


def test_quit_after_a_refused_message() -> None:
    """Here it is right: the other tests must not pass because it is never sent."""
    with scripted(Script({".": [b"550 5.7.1 no\r\n"]})) as relay:
        assert relay_message(relay, MESSAGE).message.startswith(b"550 ")
    assert relay.commands[-1] == "QUIT"


@pytest.mark.parametrize("reply", [b"250 2.0.0 ok\r\n", b"235 2.7.0 welcome\r\n", b"334 \r\n"])
def test_no_quit_after_a_reply_to_data_that_is_no_refusal(reply: bytes) -> None:
    """The relay may be waiting for the message all the same."""
    with scripted(Script({"DATA": [reply]})) as relay:
        assert relay_message(relay, MESSAGE).message.startswith(b"451 ")
    assert relay.commands[-1] == "DATA"


@pytest.mark.parametrize("step", ["MAIL", "RCPT"])
def test_no_quit_after_354_to_another_command(step: str) -> None:
    with scripted(Script({step: [b"354 go on\r\n"]})) as relay:
        assert relay_message(relay, MESSAGE).last.startswith(b"451 ")
    assert relay.commands[-1].startswith(step)


@pytest.mark.parametrize("loop", LOOPS)
def test_no_quit_inside_a_message(loop: str) -> None:
    """A refusal that came too early ends the session, not only the message."""
    with scripted(Script(midway=(100, [b"552 5.3.4 enough\r\n", Do.SILENCE]))) as relay:
        message = MESSAGE * 100
        assert relay_message(relay, message, loop).message.startswith(b"552 ")
    (octets,) = relay.unfinished
    assert octets
    assert message.startswith(octets)


def test_sender_refused_when_asked_again_is_no_permanent_refusal() -> None:
    """The client was told that its sender and recipients are accepted."""
    steps: dict[str, Any] = {
        "MAIL": InTurn([Do.USUAL], [b"550 5.1.8 no\r\n"]),
        "RCPT": InTurn([Do.USUAL, Do.CLOSE]),
    }
    with scripted(Script(steps)) as relay:
        replies = relay_message(relay, MESSAGE, idle=True)
    assert relay.begun == 2
    assert replies.message.startswith(b"451 ")


@pytest.mark.parametrize("step", ["220", "EHLO", "MAIL", "RCPT"])
def test_cancelled_session_gives_everything_back(step: str) -> None:
    async def main(port: int) -> None:
        relay = Relay(RelaySettings("127.0.0.1", port, "none", "me.example"))
        session = RelaySession(relay, Envelope("a@b.example"))
        recipient = EnvelopeRecipient(parse_mailbox("carol@elsewhere.example"))
        asking = asyncio.create_task(session.recipient(recipient))
        await eventually(lambda: reached(script, step), "the step")
        assert relay.sessions == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert relay.sessions == 0
        await eventually(lambda: not script.open, "the end of the connection")
        await relay.close()

    with scripted(Script({step: [Do.SILENCE]})) as script:
        asyncio.run(main(script.port))


def reached(script: Script, step: str) -> bool:
    return bool(script.begun if step == "220" else str(script.commands).count(step))


@pytest.mark.parametrize("word", ["TO:<a@b.example>\r\nDATA", "TO:<a\nb@c.example>", "\0", "\x7f"])
def test_control_characters_are_not_sent(word: str) -> None:
    """Whatever let them through before, a command stays one command."""

    async def main() -> None:
        with pytest.raises(ValueError, match="control character"):
            await SmtpClient(1.0).command("RCPT", word)

    asyncio.run(main())


def test_relay_that_accepts_data_slowly_is_waited_for() -> None:
    """Its time begins anew with each octet that it accepts."""
    polls: list[int] = []

    class Connection(SmtpClient):
        def _unacknowledged(self) -> int:
            polls.append(100 - len(polls) // 2)
            return polls[-1]

    async def main() -> None:
        connection = Connection(0.1)
        began = asyncio.get_running_loop().time()
        assert await connection._wait_for_acknowledgement(b".\r\n") == b".\r\n"
        assert asyncio.get_running_loop().time() > began + 0.5

    run_virtually(main())
    assert polls[-1] == 0
