"""What holds for every `Delivery`, whatever is behind it: mailboxes, the relay, hooks.

Rules of this file: each kind is driven through the interface alone, once by an owner that gets its
answers at once and once by one that has to wait; how each decides is tested elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.accounts import write_accounts
from support.deliveries import opened
from support.relay import Relay as RelayServer
from support.relay import relaying
from support.smtp_harness import ACCOUNTS

from fastlisten.handlers.smtp.aiosmtpd.hook_delivery import HookDelivery
from fastlisten.handlers.smtp.aiosmtpd.hook_replies import HookReply
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.counts import Counts
from fastlisten.mail.delivery.mailbox_delivery import MailboxDelivery
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.delivery_interface import Delivery
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay.relay import Relay, RelaySettings
from fastlisten.mail.relay.relay_delivery import RelayDelivery
from fastlisten.mail.reply import Reply

MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


class Owner:
    """Waits for answers; a `LoggingOwner`.

    Attributes:
        events: what has been logged.
    """

    def __init__(self) -> None:
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self.events: list[str] = []

    def recipient_answered(self, reply: Reply) -> None:
        self._answers.put_nowait(reply)

    def message_answered(self, replies: Sequence[Reply]) -> None:
        self._answers.put_nowait(replies)

    def delivery_resumed(self) -> None:
        pass

    def log(self, level: int, event: str, what: str, *values: object, **fields: object) -> None:
        assert what % values  # as many values as the format names
        self.events.append(event)

    def log_fault(self) -> None:
        raise AssertionError

    async def ask(self, delivery: Delivery, address: str) -> Reply:
        answer = delivery.add_recipient(EnvelopeRecipient(parse_mailbox(address)))
        if answer is None:
            answer = await asyncio.wait_for(self._answers.get(), 20)
        assert isinstance(answer, Reply)
        return answer

    async def commit(self, delivery: Delivery) -> Sequence[Reply]:
        answer = delivery.commit()
        return await asyncio.wait_for(self._answers.get(), 20) if answer is None else answer

    def heard_nothing(self) -> bool:
        return self._answers.empty()


class Way:
    """One kind of delivery.

    Attributes:
        owner: of its deliveries.
        begin: begins one.
        good: addresses that are accepted.
        bad: one that is refused.
        arrived: what has come out at the other end, once for each recipient or for each message.
    """

    def __init__(
        self,
        owner: Owner,
        begin: Callable[[], Delivery],
        good: list[str],
        bad: str,
        arrived: Callable[[], list[bytes]],
    ) -> None:
        self.owner, self.begin, self.good, self.bad = owner, begin, good, bad
        self.arrived = arrived


def stored(office: PostOffice) -> list[bytes]:
    return [path.read_bytes() for path in office.mail.rglob("new/*")]


@asynccontextmanager
async def office_in(directory: Path) -> AsyncIterator[PostOffice]:
    write_accounts(directory / "accounts.toml", ACCOUNTS)
    async with opened(directory) as office:
        await asyncio.to_thread(office.accounts.reload)
        yield office


@asynccontextmanager
async def to_mailboxes(directory: Path) -> AsyncIterator[Way]:
    owner = Owner()
    async with office_in(directory) as office:
        yield Way(
            owner,
            lambda: MailboxDelivery(office, "a@b.example", owner, Counts()),
            ["alice@example.org", "bob@example.org"],
            "nobody@example.org",
            lambda: stored(office),
        )


@asynccontextmanager
async def to_the_relay(directory: Path, *good: str) -> AsyncIterator[Way]:
    owner, envelope = Owner(), Envelope("a@b.example")
    good = good or ("carol@elsewhere.example", "dora@elsewhere.example")
    with relaying(answers={"RCPT TO:<EVE": "550 5.1.1 no"}) as server:
        async with office_in(directory) as office:
            roster = office.accounts.roster
            assert roster is not None
            login = roster.find(parse_mailbox("alice@example.org"))
            relay = Relay(RelaySettings("127.0.0.1", server.port, "none", "me.example"))
            yield Way(
                owner,
                lambda: relayed(office, relay, envelope, owner, login),
                list(good),
                "eve@elsewhere.example",
                lambda: stored(office) + [content for _, _, content in server.messages],
            )
            await relay.close()
            assert relay.sessions == 0
            await at_rest(server)


async def at_rest(server: RelayServer) -> None:
    while not server.at_rest():
        await asyncio.sleep(0.001)


def relayed(
    office: PostOffice, relay: Relay, envelope: Envelope, owner: Owner, login: Account | None
) -> RelayDelivery:
    return RelayDelivery(office, relay, envelope, owner, Counts(), login, ("192.0.2.1", 1))


def to_both(directory: Path) -> AbstractAsyncContextManager[Way]:
    return to_the_relay(directory, "carol@elsewhere.example", "alice@example.org")


class Hooks:
    """What HookDelivery asks; suspends before each answer if it is told so."""

    def __init__(self, suspends: bool) -> None:
        self._suspends = suspends
        self.asks_about_recipients = suspends
        self.messages: list[bytes] = []
        self.accepted: list[str] = []

    def recipients(self) -> list[str]:
        return self.accepted

    def take_recipient(self, recipient: EnvelopeRecipient) -> HookReply:
        if recipient.mailbox.text.startswith("eve"):
            return HookReply.of(b"550 no\r\n", accepted=False)
        self.accepted.append(recipient.mailbox.text)
        return HookReply.of(b"250-OK\r\n250 indeed\r\n", accepted=True)

    async def recipient(self, recipient: EnvelopeRecipient) -> HookReply:
        await asyncio.sleep(0)
        return self.take_recipient(recipient)

    async def message(self, content: bytes) -> HookReply:
        if self._suspends:
            await asyncio.sleep(0)
        self.messages.append(content)
        return HookReply.of(b"250 kept\r\n", accepted=True)


@asynccontextmanager
async def to_hooks(suspends: bool) -> AsyncIterator[Way]:
    owner, hooks, tasks = Owner(), Hooks(suspends), set[asyncio.Task[None]]()

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            coroutine.send(None)
        except StopIteration:
            return

        async def rest() -> None:
            while True:
                await asyncio.sleep(0)
                try:
                    coroutine.send(None)
                except StopIteration:
                    return

        tasks.add(asyncio.get_running_loop().create_task(rest()))

    yield Way(
        owner,
        lambda: HookDelivery(hooks, owner, run),
        ["carol@elsewhere.example", "dora@elsewhere.example"],
        "eve@elsewhere.example",
        lambda: hooks.messages,
    )
    await asyncio.gather(*tasks)


WAYS: dict[str, Callable[[Path], AbstractAsyncContextManager[Way]]] = {
    "mailboxes": to_mailboxes,
    "relay": to_the_relay,
    "both": to_both,
    "hooks": lambda _: to_hooks(suspends=False),
    "hooks that suspend": lambda _: to_hooks(suspends=True),
}


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[], AbstractAsyncContextManager[Way]]:
    return lambda: WAYS[request.param](tmp_path)


Opened = Callable[[], AbstractAsyncContextManager[Way]]


def test_every_accepted_recipient_gets_a_reply(way: Opened) -> None:
    async def scene() -> None:
        async with way() as here:
            delivery, owner = here.begin(), here.owner
            for address in here.good:
                assert (await owner.ask(delivery, address)).code == 250
            assert (await owner.ask(delivery, here.bad)).code == 550
            for cut in range(0, len(MESSAGE), 5):
                delivery.add(MESSAGE[cut : cut + 5])
            assert not delivery.full
            replies = await owner.commit(delivery)
            assert [reply.code for reply in replies] == [250] * len(here.good)
            assert len(set(replies)) == 1
            assert all(content.endswith(MESSAGE) for content in here.arrived())
            assert here.arrived()
            assert owner.heard_nothing()
            assert {name.strip("<>") for name in delivery.destinations()} == set(here.good)
            assert not any(outcome.recipients for outcome in delivery.outcomes())

    asyncio.run(scene())


@pytest.mark.parametrize("stage", ["begun", "recipient", "content"])
def test_aborted_message_is_not_delivered(way: Opened, stage: str) -> None:
    async def scene() -> None:
        async with way() as here:
            delivery = here.begin()
            if stage != "begun":
                await here.owner.ask(delivery, here.good[0])
            if stage == "content":
                delivery.add(MESSAGE)
            delivery.abort()
            assert not delivery.full
            # Another one is not disturbed.
            again = here.begin()
            await here.owner.ask(again, here.good[0])
            again.add(MESSAGE)
            assert [reply.code for reply in await here.owner.commit(again)] == [250]
            assert len(here.arrived()) == 1
            assert here.owner.heard_nothing()

    asyncio.run(scene())


def test_name_does_not_change(tmp_path: Path) -> None:
    async def scene() -> None:
        for make in (to_mailboxes, to_both):
            async with make(tmp_path / make.__name__) as here:
                delivery, other = here.begin(), here.begin()
                name = delivery.name
                assert other.name != name == delivery.name
                await here.owner.ask(delivery, here.good[-1])
                delivery.add(MESSAGE)
                (reply,) = await here.owner.commit(delivery)
                assert name in reply.text
                assert len(list((tmp_path / make.__name__).rglob(f"new/{name}"))) == 1
                other.abort()

    for make in (to_mailboxes, to_both):
        (tmp_path / make.__name__).mkdir()
    asyncio.run(scene())
