"""Relays that send random replies: our reply is well formed, and no connection is left open."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.relay import FOREIGN

from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay import session as relay_session
from fastlisten.mail.relay.message_source import BytesSource
from fastlisten.mail.relay.relay import Relay, RelaySettings
from fastlisten.mail.relay.relay_error import RelayError, quoted, refusal

REPLY = re.compile(rb"[45][0-9]{2} [45]\.[0-9]{1,3}\.[0-9]{1,3} [ -~]{0,400}\r\n\Z")

#: Pieces of replies.
PIECES = [
    b"220 hello\r\n", b"250 ok\r\n", b"250-one\r\n250 two\r\n", b"250-SIZE\r\n", b"354 go\r\n",
    b"450 4.2.0 later\r\n", b"550 5.1.1 no\r\n", b"421 bye\r\n", b"250-x\r\n550 y\r\n", b"2",
    b"50 ok\r\n", b"\r\n", b"\n", b"abc\r\n", b"999 what\r\n", b"-1 x\r\n", b"250\r\n", b"250",
    b"\xff\xfe\r\n", b"250 \x00\x07\r\n", b"220 a\r\n250 b\r\n250 c\r\n250 d\r\n354 e\r\n250 f\r\n",
    b"x" * 9000 + b"\r\n", b"250-" + b"y" * 9000 + b"\r\n", b"250 AUTH\r\n", b"334 \r\n", b"",
]  # fmt: skip


class RandomRelay(asyncio.Protocol):
    """Sends random replies, and disconnects at random."""

    open = 0

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.message: bytes | None = None  # what has been received of it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        RandomRelay.open += 1
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        # Mostly a greeting, so that the dialogue goes on.
        self.say(PIECES[0] if self.source.random() < 0.9 else b"")

    def data_received(self, data: bytes) -> None:
        if self.source.random() < 0.06:
            end: Callable[[], None] = self.source.choice(
                (self.transport.close, self.transport.abort)
            )
            end()
            return
        if self.message is not None:
            self.message += data
            if not self.message.endswith(b"\r\n.\r\n") and self.source.random() < 0.9:
                return
            self.message = None
        usual = b"250-relay\r\n250 DSN\r\n"
        if data.startswith(b"DATA"):
            usual, self.message = b"354 go\r\n", b""
        self.say(usual if self.source.random() < 0.7 else self.source.choice(PIECES))

    def connection_lost(self, exc: Exception | None) -> None:
        RandomRelay.open -= 1

    def say(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data or self.source.choice(PIECES))
            if self.source.random() < 0.05:
                self.transport.close()


@pytest.mark.parametrize("seed", range(4))
def test_random_replies(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_session, "_QUIT_TIMEOUT", 0.1)
    source = random.Random(seed)
    ends = {"taken": 0, "refused": 0}
    refusals = set[bytes]()

    async def session(port: int) -> None:
        relay = Relay(RelaySettings("127.0.0.1", port, "may", "me.example", timeout=0.1))
        handover = relay_session.RelaySession(relay, Envelope("a@b.example", size=5))
        try:
            for _ in range(2):
                await handover.recipient(EnvelopeRecipient(parse_mailbox(FOREIGN)))
            await handover.send(BytesSource(b"Subject: x\r\n\r\n.\r\n"))
            ends["taken"] += 1
        except RelayError as error:
            ends["refused"] += 1
            refusals.add(f"{error.reply}\r\n".encode())
        handover.quit()
        await relay.close()
        assert relay.sessions == 0

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: RandomRelay(source), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            for _ in range(5):
                await asyncio.gather(*(session(port) for _ in range(20)))
            while RandomRelay.open:
                await asyncio.sleep(0.01)

    asyncio.run(main())
    assert min(ends.values()) > 0, ends
    assert all(REPLY.match(reply) and not reply.startswith(b"421") for reply in refusals)


@given(st.integers(-5, 1100), st.text(max_size=600))
def test_any_refusal_becomes_a_well_formed_reply(code: int, text: str) -> None:
    made = f"{refusal(code, text).reply}\r\n".encode()
    assert REPLY.match(made)
    if 400 <= code <= 599 and code not in (421, 530, 534, 535, 538):
        assert made.startswith(b"%d %d." % (code, code // 100))


@given(st.text(max_size=600))
def test_any_text_is_sanitized(text: str) -> None:
    assert re.fullmatch(r"[ -~]{0,300}", quoted(text))
