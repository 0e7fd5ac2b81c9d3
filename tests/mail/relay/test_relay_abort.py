"""RelayDelivery.abort: at once while the relay is being asked, politely between two commands.

Rules of this file: the relay is real, and stands still before a reply for as long as the test says.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.accounts import write_accounts
from support.deliveries import files, opened
from support.relay import FOREIGN, relaying
from support.relay import Relay as RelayServer
from support.smtp_harness import ACCOUNTS
from support.waiting import eventually

from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.counts import Counts
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay.relay import Relay, RelaySettings
from fastlisten.mail.relay.relay_delivery import RelayDelivery
from fastlisten.mail.reply import Reply


class Owner:
    """Waits for the answer to a recipient, and gets no other."""

    def __init__(self) -> None:
        self.accepted = asyncio.Event()

    def recipient_answered(self, reply: Reply) -> None:
        assert reply.code == 250
        self.accepted.set()

    def message_answered(self, replies: Sequence[Reply]) -> None:
        raise AssertionError

    def delivery_resumed(self) -> None:
        pass

    def log(self, level: int, event: str, what: str, *values: object, **fields: object) -> None:
        raise AssertionError(event)

    def log_fault(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("stage", ["RCPT", "DATA", ".", "idle"])
def test_abort_ends_the_session_with_the_relay(tmp_path: Path, stage: str) -> None:
    asked, held = threading.Event(), threading.Event()

    def pause(command: str) -> None:
        if command.startswith(stage):
            asked.set()
            assert held.wait(20)

    async def scene(server: RelayServer) -> None:
        write_accounts(tmp_path / "accounts.toml", ACCOUNTS)
        async with opened(tmp_path) as office:
            roster = await asyncio.to_thread(office.accounts.reload)
            assert roster is not None
            login = roster.find(parse_mailbox("alice@example.org"))
            relay = Relay(RelaySettings("127.0.0.1", server.port, "none", "me.example"))
            owner, envelope = Owner(), Envelope("a@b.example")
            client = ("192.0.2.1", 1)
            delivery = RelayDelivery(office, relay, envelope, owner, Counts(), login, client)
            assert delivery.add_recipient(EnvelopeRecipient(parse_mailbox(FOREIGN))) is None
            if stage != "RCPT":
                await asyncio.wait_for(owner.accepted.wait(), 20)
            if stage in ("DATA", "."):
                delivery.add(b"Subject: x\r\n\r\n")
                assert delivery.commit() is None
            if stage != "idle":
                assert await asyncio.to_thread(asked.wait, 20)
            assert relay.sessions == 1
            delivery.abort()
            # Its place is not kept until a relay that says nothing has answered QUIT.
            assert relay.sessions == (1 if stage == "idle" else 0)
            held.set()
            await relay.close()
            assert relay.sessions == 0
            await eventually(lambda: files(office) == ["."], "an empty spool")
            # The relay runs in this process: its descriptors would count as the office's.
            await eventually(server.at_rest, "the relay to close")

    with relaying(pause=pause) as server:
        asyncio.run(scene(server))
        assert ("QUIT" in server.commands) is (stage == "idle")
