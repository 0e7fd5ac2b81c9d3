"""Unexpected replies of a relay: they neither lose nor reject a message.

The rule, whatever a relay sends, whenever, in whatever segments: the client gets 2xx for its
message only if the relay had received all of it, with the final dot, and replied 2xx after that;
and 5xx only if the relay refused DATA or the message with 5xx.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.loops import LOOPS
from support.scripted_relay import USUAL, Action, ClientReplies, Do, Script, relay_message, scripted

SHORT = b"Subject: x\r\n\r\n"
MESSAGES = {
    "empty": b"\r\n",
    "14": SHORT,
    "64KiB": SHORT + (b"x" * 62 + b"\r\n") * 1024,
    "12MB": SHORT + (b".y" * 63 + b"\r\n") * 93_750,
}
OUT_OF_TURN = b"451 4.5.0 Protocol synchronization error at the relay; try again later\r\n"


def check_rule(script: Script, replies: ClientReplies) -> None:
    """Check the rule above."""
    if replies.message.startswith(b"2"):
        assert len(script.kept) == 1
    if replies.message.startswith(b"5"):
        assert script.refused
    assert replies.last[:1] in b"245"


def octets(reply: bytes) -> list[Action]:
    return [reply[index : index + 1] for index in range(len(reply))]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("size", MESSAGES)
@pytest.mark.parametrize(
    "actions",
    [
        [Do.USUAL, b"250 2.0.0 queued\r\n"],
        [Do.USUAL, Do.GAP, b"250 2.0.0 queued\r\n"],
        [b"354 go\r\n250 2.0.0 queued\r\n"],
        [Do.USUAL, *octets(b"250 2.0.0 queued\r\n")],
        [Do.USUAL, b"250-\r\n"],
        [Do.USUAL, b"2"],
        [Do.USUAL, b"354 go\r\n"],
    ],
    ids=repr,
)
def test_positive_reply_together_with_354(
    size: str, actions: list[Any], loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1 if size == "12MB" else 5):
        with scripted(Script({"DATA": actions})) as relay:
            # The rest of an incomplete reply is waited for, in vain.
            wait = 0.2 if actions[-1] in (b"2", b"250-\r\n") else 10.0
            replies = relay_message(relay, MESSAGES[size], loop, wait=wait)
            check_rule(relay, replies)
            assert replies.message.startswith(b"451 ")
            assert relay.kept == []
            assert "QUIT" not in relay.commands
            if actions[-1] == b"250 2.0.0 queued\r\n":
                assert replies.message == OUT_OF_TURN
                assert "reply before it had the message: 250 queued" in caplog.text


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("said", [b"250 2.0.0 yes\r\n", b"354 go\r\n", b"220 hello\r\n"])
@pytest.mark.parametrize("after", [1, 14, 100_000, 4_000_000])
def test_positive_reply_during_the_message(after: int, said: bytes, loop: str) -> None:
    with scripted(Script(midway=(after, [said, Do.SILENCE]))) as relay:
        message = MESSAGES["12MB"] if after > 14 else MESSAGES["64KiB"]
        assert relay_message(relay, message, loop).message == OUT_OF_TURN
        assert relay.messages == []


@pytest.mark.parametrize("loop", LOOPS)
def test_refusal_during_the_message(loop: str) -> None:
    """It acknowledges nothing, and the sender needs to know its text."""
    with scripted(Script(midway=(100_000, [b"552 5.3.4 enough\r\n", Do.CLOSE]))) as relay:
        replies = relay_message(relay, MESSAGES["12MB"], loop)
        assert replies.message == b"552 5.3.4 The relay says: enough\r\n"


@pytest.mark.parametrize("step", ["220", "EHLO", "MAIL", "RCPT"])
@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("extra", [b"250 2.0.0 more\r\n", b"354 go\r\n", b"550 5.0.0 no\r\n", b"2"])
def test_extra_reply_to_a_command(step: str, gap: bool, extra: bytes) -> None:
    actions: list[Action] = [Do.USUAL, *([Do.GAP] if gap else []), extra]
    with scripted(Script({f"{step} 1" if step == "RCPT" else step: actions})) as relay:
        two = ("carol@elsewhere.example", "dora@elsewhere.example")
        replies = relay_message(relay, SHORT, recipients=two)
        check_rule(relay, replies)
        # Later replies are off by one, unless the session was ended at once.
        assert not replies.message.startswith((b"2", b"5"))


def test_extra_reply_is_not_taken_for_the_next_one() -> None:
    steps: dict[str, Any] = {"RCPT 1": [USUAL["RCPT"] * 2], "RCPT 2": [b"550 5.1.1 unknown\r\n"]}
    with scripted(Script(steps)) as relay:
        two = ("carol@elsewhere.example", "dora@elsewhere.example")
        assert relay_message(relay, SHORT, recipients=two).recipients == [b"250 ", OUT_OF_TURN]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("unread", ["MAIL", "the end"])
def test_reply_to_unread_command(tmp_path: Path, unread: str, loop: str) -> None:
    """Over a Unix socket the kernel tells exactly what the relay has read."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "relay"))
        listening.listen()

        def relay() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"220 hello\r\n")
                connection.recv(1000)
                connection.sendall(b"250 hello\r\n")
                for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
                    if unread == "the end":
                        connection.recv(1000)
                        connection.sendall(reply)
                message = b""
                while unread == "the end" and len(message) < len(SHORT) - 5:
                    message += connection.recv(1)
                # What comes now is peeked at, but not read.
                while not connection.recv(1000, socket.MSG_PEEK).endswith(b"\n"):
                    # Read what precedes, so that only the end is unread.
                    connection.recv(1)
                connection.sendall(b"250 2.0.0 queued\r\n")
                gone = select.poll()
                gone.register(connection, select.POLLRDHUP)
                gone.poll(20_000)

        thread = threading.Thread(target=relay)
        thread.start()
        script = Script()
        try:
            replies = relay_message(script, SHORT, loop, socket_path=str(tmp_path / "relay"))
        finally:
            thread.join(20)
        assert replies.last == OUT_OF_TURN


def test_two_replies_to_the_message() -> None:
    """The first one counts; no command follows."""
    for first, second, expected in (
        (b"250 2.0.0 mine\r\n", b"550 5.0.0 no\r\n", b"250 mine"),
        (b"550 5.0.0 no\r\n", b"250 2.0.0 mine\r\n", b"550 5.0.0 The relay says: no\r\n"),
    ):
        cuts: list[list[Action]] = [[first, second], [first + second], [first, Do.GAP, second]]
        for cut in cuts:
            with scripted(Script({".": cut})) as relay:
                assert relay_message(relay, SHORT).message == expected


@pytest.mark.parametrize("step", ["EHLO", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize(
    "reply",
    [b"550-no\r\n250 yes\r\n", b"250-yes\r\n550 no\r\n", b"354-go\r\n250 yes\r\n"],
)
@pytest.mark.parametrize("cut", [False, True])
def test_reply_with_two_codes_is_invalid(step: str, reply: bytes, cut: bool) -> None:
    with scripted(Script({step: octets(reply) if cut else [reply]})) as relay:
        lost = b"451 4.4.2 " if step in ("DATA", ".") else b"451 4.4.1 "
        assert relay_message(relay, SHORT).last.startswith(lost)


@pytest.mark.parametrize("loop", LOOPS)
def test_plaintext_after_starttls_go_ahead(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    actions: list[Any]
    for actions in (
        [b"220 go\r\n250 injected\r\n"],
        [b"220 go\r\n", b"250 injected\r\n"],
    ):
        script = Script({"STARTTLS": [*actions, Do.SILENCE]}, extensions=("STARTTLS",))
        with scripted(script) as relay:
            assert relay_message(relay, SHORT, loop, tls="may").last.startswith(b"451 4.")
            assert not any(command.startswith("MAIL") for command in relay.commands)


def test_late_rcpt_reply_does_not_refuse_the_message() -> None:
    """A second reply to RCPT arrives after DATA; RSET shows that it was not for DATA."""
    with scripted(
        Script({"RCPT": [Do.USUAL], "DATA": [b"550 5.1.1 late\r\n", b"354 go\r\n"]})
    ) as at:
        replies = relay_message(at, SHORT)
        assert replies.message == OUT_OF_TURN


@pytest.mark.parametrize("loop", LOOPS)
def test_relay_closing_an_idle_session_is_asked_again(loop: str) -> None:
    """421 may come at any time (RFC 5321 3.8); nothing has been acknowledged yet."""
    for goodbye in ([b"421 4.4.2 idle\r\n", Do.CLOSE], [b"421 4.4.2 idle\r\n"], [Do.CLOSE]):
        with scripted(Script({"RCPT": [Do.USUAL, *goodbye]}, once=True)) as relay:
            assert relay_message(relay, SHORT, loop, idle=True).message == b"250 queued as 4711"
            assert relay.commands.count("MAIL FROM:<a@b.example>") == relay.begun == 2


def test_replies_in_single_octets() -> None:
    steps = {step: octets(reply) for step, reply in USUAL.items() if reply}
    with scripted(Script(dict(steps))) as relay:
        assert relay_message(relay, MESSAGES["64KiB"]).message == b"250 queued as 4711"
        assert len(relay.kept) == 1


SEGMENTS = st.sampled_from(
    [
        b"250 2.0.0 yes\r\n", b"354 go\r\n", b"550 5.0.0 no\r\n", b"450 4.0.0 later\r\n",
        b"421 4.3.2 bye\r\n", b"250-", b"2", b"50 x\r\n", b"\r\n", b"junk\r\n", b"220 hello\r\n",
        Do.USUAL, Do.USUAL, Do.GAP, Do.CLOSE, Do.RESET,
    ]
)  # fmt: skip


@given(
    steps=st.dictionaries(
        st.sampled_from(["220", "EHLO", "MAIL", "RCPT", "RCPT 2", "DATA", ".", "RSET", "QUIT"]),
        st.lists(SEGMENTS, min_size=1, max_size=4),
        max_size=3,
    ),
    midway=st.none() | st.tuples(st.integers(0, 70_000), st.lists(SEGMENTS, max_size=3)),
    size=st.sampled_from(["empty", "14", "64KiB"]),
    loop=st.sampled_from(sorted(LOOPS)),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
def test_any_script(
    steps: dict[str, Sequence[Action]],
    midway: tuple[int, Sequence[Action]] | None,
    size: str,
    loop: str,
) -> None:
    with scripted(Script(steps, midway=midway)) as relay:
        two = ("carol@elsewhere.example", "dora@elsewhere.example")
        check_rule(relay, relay_message(relay, MESSAGES[size], loop, recipients=two, wait=0.2))
