"""Every class of reply at each step of the dialogue with a relay, and the reply to our client.

The table is that of docs/protocols.md. In every case the session leaves nothing behind, and the
message is not acknowledged.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import pytest
from support.loops import LOOPS
from support.scripted_relay import Action, Do, Script, relay_message, scripted

from fastlisten.mail.relay.client import SmtpClient
from fastlisten.mail.relay.connection import RemoteClosedError
from fastlisten.runtime.tls.contexts import ContextSettings
from fastlisten.runtime.tls.self_signed import generate

MESSAGE = b"Subject: x\r\n\r\ntext\r\n"

UNREACHABLE, LOST, SENSELESS = (
    b"451 4.4.1 ",
    b"451 4.4.2 ",
    b"451 4.5.0 Unexpected reply from the relay",
)

#: What the relay does, by class.
CLASSES: dict[str, list[Action]] = {
    "2xx": [b"220 2.0.0 of another command\r\n"],
    "3xx": [b"334 what?\r\n"],
    "4xx": [b"450 4.2.1 later\r\n"],
    "421": [b"421 4.3.2 closing\r\n", Do.CLOSE],
    "5xx": [b"554 5.7.1 no\r\n"],
    "none": [Do.SILENCE],
    "half a line": [b"250 o", Do.SILENCE],
    "too long": [b"250 " + b"x" * 9000 + b"\r\n"],
    "no end": [b"x" * 40_000],
    "too many lines": [b"250-x\r\n" * 300 + b"250 x\r\n"],
    "garbage": [b"\xff\x00\x80\r\n"],
    "no code": [b"hello\r\n"],
    "too large a code": [b"650 2.0.0 ok\r\n"],
    "four digits": [b"2500 ok\r\n"],
    "reset": [Do.RESET],
    "close": [Do.CLOSE],
}

#: The reply to the client by step: the usual one, and exceptions by class.
STEPS: dict[str, tuple[bytes, dict[str, bytes]]] = {
    "220": (UNREACHABLE, {"2xx": b"250 "}),
    "EHLO": (UNREACHABLE, {}),
    "AUTH": (UNREACHABLE, {}),
    "MAIL": (
        UNREACHABLE,
        {
            "2xx": SENSELESS,
            "3xx": SENSELESS,
            "4xx": b"450 4.2.1 The relay says: later\r\n",
            "421": b"451 4.3.2 The relay says: closing\r\n",
            "5xx": b"554 5.7.1 The relay says: no\r\n",
        },
    ),
    "DATA": (
        LOST,
        {
            "2xx": SENSELESS,
            "3xx": SENSELESS,
            "4xx": b"450 4.2.1 The relay says: later\r\n",
            "421": b"451 4.3.2 The relay says: closing\r\n",
            "5xx": b"554 5.7.1 The relay says: no\r\n",
        },
    ),
}
STEPS["RCPT"] = STEPS["MAIL"]
STEPS["."] = STEPS["DATA"]


@pytest.mark.parametrize("said", CLASSES)
@pytest.mark.parametrize("step", STEPS)
def test_reply_by_step_and_class(step: str, said: str) -> None:
    usual, others = STEPS[step]
    script = Script({step: CLASSES[said]}, extensions=("AUTH PLAIN",))
    with scripted(script) as relay:
        user = "me" if step == "AUTH" else ""
        replies = relay_message(relay, MESSAGE, wait=0.1, user=user)
        assert replies.last.startswith(others.get(said, usual))
        assert replies.last.startswith(b"250 ") is (step == "220" and said == "2xx")


@pytest.mark.parametrize("said", CLASSES)
@pytest.mark.parametrize("loop", LOOPS)
def test_replies_to_starttls(said: str, loop: str) -> None:
    """With `may`, a refusal continues in plaintext; any other reply ends the session."""
    script = Script({"STARTTLS": CLASSES[said]}, extensions=("STARTTLS",))
    with scripted(script) as relay:
        replies = relay_message(relay, MESSAGE, loop, wait=0.1, tls="may")
        goes_on = said in ("4xx", "5xx")
        assert replies.last.startswith(b"250 " if goes_on else UNREACHABLE)


@pytest.mark.parametrize("said", CLASSES)
def test_reply_to_quit_does_not_matter(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastlisten.mail.relay.session._QUIT_TIMEOUT", 0.1)
    with scripted(Script({"QUIT": CLASSES[said]})) as relay:
        assert relay_message(relay, MESSAGE).message == b"250 queued as 4711"
        assert len(relay.kept) == 1


def test_stop_does_not_wait_long_for_quit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastlisten.mail.relay.session._QUIT_TIMEOUT", 15.0)
    monkeypatch.setattr("fastlisten.mail.relay.relay.LAST_QUIT_TIMEOUT", 0.05)
    waited: list[float | None] = []
    wait = asyncio.wait

    async def noted(tasks: Any, timeout: float | None = None) -> Any:
        waited.append(timeout)
        return await wait(tasks, timeout=timeout)

    monkeypatch.setattr("asyncio.wait", noted)
    with scripted(Script({"QUIT": [Do.SILENCE]})) as relay:
        assert relay_message(relay, MESSAGE).message == b"250 queued as 4711"
    assert waited[-1] == 0.05


def test_helo_if_ehlo_is_refused() -> None:
    with scripted(Script({"EHLO": [b"502 5.5.1 what?\r\n"]})) as relay:
        assert relay_message(relay, MESSAGE).message == b"250 queued as 4711"
        assert relay.commands[:3] == [
            "EHLO me.example",
            "HELO me.example",
            "MAIL FROM:<a@b.example>",
        ]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", [Do.CLOSE, Do.RESET])
@pytest.mark.parametrize("after", [0, 1, 300_000])
def test_relay_disconnects_during_the_message(
    how: Do, after: int, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """uvloop's `write` then raises RuntimeError, while asyncio's discards the data."""
    message = MESSAGE + b"x" * 70 + (b"x" * 70 + b"\r\n") * 100_000
    for _ in range(5):
        with scripted(Script(midway=(after, [how]))) as relay:
            assert relay_message(relay, message, loop).message.startswith(LOST)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("loop", LOOPS)
def test_write_to_closed_connection_raises_remote_closed(loop: str) -> None:
    """Even if the transport has been closed without noticing."""

    async def main(port: int) -> None:
        client = SmtpClient(10.0)
        await client.connect("127.0.0.1", port, None, "me.example")
        transport = client.transport
        assert transport is not None
        client.abort()
        while client.transport is not None:
            await asyncio.sleep(0.001)
        with pytest.raises(RemoteClosedError):
            client.write(b"x")
        client.transport = Hidden(transport)  # type: ignore[assignment]
        with pytest.raises(RemoteClosedError) if loop == "uvloop" else Nothing():
            client.write(b"x")
        client.transport = None

    with scripted(Script()) as relay, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main(relay.port))


class Nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


class Hidden:
    """A transport that has not noticed that it is closed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def is_closing(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


# --- AUTH -----------------------------------------------------------------------------------------


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


PLAIN = "AUTH PLAIN " + encoded("\0me\0secret")


@pytest.mark.parametrize(
    ("offered", "steps", "said"),
    [
        ("AUTH PLAIN LOGIN", [b"235 ok\r\n"], [PLAIN]),
        ("AUTH=PLAIN", [b"235 ok\r\n"], [PLAIN]),
        (
            "AUTH LOGIN CRAM-MD5",
            [b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", b"235 ok\r\n"],
            ["AUTH LOGIN", encoded("me"), encoded("secret")],
        ),
        (
            "AUTH CRAM-MD5",
            [b"334 " + encoded("<1@relay>").encode() + b"\r\n", b"235 ok\r\n"],
            ["AUTH CRAM-MD5", encoded("me 334666e6e8273cf0336848533b0febab")],
        ),
    ],
)
def test_auth_mechanisms(offered: str, steps: Sequence[bytes], said: list[str]) -> None:
    script = Script({"AUTH": [steps[0]]}, extensions=(offered,), answers=list(steps[1:]))
    with scripted(script) as relay:
        assert relay_message(relay, MESSAGE, user="me").message == b"250 queued as 4711"
        assert relay.commands[1 : 1 + len(said)] == said


@pytest.mark.parametrize("offered", ["AUTH GSSAPI", "SIZE"])
def test_no_supported_auth_mechanism(offered: str) -> None:
    with scripted(Script(extensions=(offered,))) as relay:
        assert relay_message(relay, MESSAGE, user="me").last.startswith(UNREACHABLE)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls() -> Any:
    return ContextSettings().context(generate("localhost"))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("size", [1, 300_000])
def test_early_replies_over_tls(tls: Any, size: int, loop: str) -> None:
    """Session tickets do not count as replies; early positive replies are still rejected."""
    message = MESSAGE + b"x\r\n" * size
    script = Script(extensions=("STARTTLS",), tls=tls)
    with scripted(script) as relay:
        assert relay_message(relay, message, loop, tls="may").message == b"250 queued as 4711"
    cuts: list[list[Action]] = [
        [Do.USUAL, b"250 ok\r\n"],
        [b"354 go\r\n250 ok\r\n"],
        [Do.USUAL, Do.GAP, b"250 ok\r\n"],
    ]
    for actions in cuts:
        script = Script({"DATA": actions}, extensions=("STARTTLS",), tls=tls)
        with scripted(script) as relay:
            replies = relay_message(relay, message, loop, tls="may")
            assert replies.message.startswith(b"451 4.5.0 ")
            assert relay.kept == []
