"""Replies of a relay that come out of their turn: no mail is lost, and none refused, by them.

The rule, whatever a relay says, whenever, in whatever segments: our client hears 2xx about its
message only if the relay had the whole message, its final dot included, and said 2xx after it; and
5xx only if the relay has refused DATA or the message by 5xx.
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
from support.scripted_relay import USUAL, Action, Do, Heard, Script, hand_over, scripted

SHORT = b"Subject: x\r\n\r\n"
MESSAGES = {
    "empty": b"\r\n",
    "14": SHORT,
    "64KiB": SHORT + (b"x" * 62 + b"\r\n") * 1024,
    "12MB": SHORT + (b".y" * 63 + b"\r\n") * 93_750,
}
OUT_OF_TURN = b"451 4.5.0 Protocol synchronization error at the relay; try again later\r\n"


def hold(script: Script, heard: Heard) -> None:
    """Assert the rule."""
    if heard.message.startswith(b"2"):
        assert len(script.kept) == 1
    if heard.message.startswith(b"5"):
        assert script.refused
    assert heard.last[:1] in b"245"


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
def test_a_yes_together_with_go_on(
    size: str, actions: list[Any], loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1 if size == "12MB" else 5):
        with scripted(Script({"DATA": actions})) as relay:
            # A part of a reply is waited for, in vain.
            wait = 0.2 if actions[-1] in (b"2", b"250-\r\n") else 10.0
            heard = hand_over(relay, MESSAGES[size], loop, wait=wait)
            hold(relay, heard)
            assert heard.message.startswith(b"451 ")
            assert relay.kept == []
            assert "QUIT" not in relay.commands
            if actions[-1] == b"250 2.0.0 queued\r\n":
                assert heard.message == OUT_OF_TURN
                assert "250 queued - before it had the message" in caplog.text


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("said", [b"250 2.0.0 yes\r\n", b"354 go\r\n", b"220 hello\r\n"])
@pytest.mark.parametrize("after", [1, 14, 100_000, 4_000_000])
def test_a_yes_in_the_midst_of_a_message(after: int, said: bytes, loop: str) -> None:
    with scripted(Script(midst=(after, [said, Do.SILENCE]))) as relay:
        message = MESSAGES["12MB"] if after > 14 else MESSAGES["64KiB"]
        assert hand_over(relay, message, loop).message == OUT_OF_TURN
        assert relay.messages == []


@pytest.mark.parametrize("loop", LOOPS)
def test_a_refusal_in_the_midst_of_a_message_is_one(loop: str) -> None:
    """It is no promise, and its words are what the sender needs to know."""
    with scripted(Script(midst=(100_000, [b"552 5.3.4 enough\r\n", Do.CLOSE]))) as relay:
        heard = hand_over(relay, MESSAGES["12MB"], loop)
        assert heard.message == b"552 5.3.4 The relay says: enough\r\n"


@pytest.mark.parametrize("step", ["220", "EHLO", "MAIL", "RCPT"])
@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("extra", [b"250 2.0.0 more\r\n", b"354 go\r\n", b"550 5.0.0 no\r\n", b"2"])
def test_more_than_one_reply_to_a_command(step: str, gap: bool, extra: bytes) -> None:
    actions: list[Action] = [Do.USUAL, *([Do.GAP] if gap else []), extra]
    with scripted(Script({f"{step} 1" if step == "RCPT" else step: actions})) as relay:
        two = ("carol@elsewhere.example", "dora@elsewhere.example")
        heard = hand_over(relay, SHORT, recipients=two)
        hold(relay, heard)
        # All the later ones are one too late, or the session is ended where that is seen at once.
        assert not heard.message.startswith((b"2", b"5"))


def test_an_extra_reply_is_not_taken_for_the_next_one() -> None:
    steps: dict[str, Any] = {"RCPT 1": [USUAL["RCPT"] * 2], "RCPT 2": [b"550 5.1.1 unknown\r\n"]}
    with scripted(Script(steps)) as relay:
        two = ("carol@elsewhere.example", "dora@elsewhere.example")
        assert hand_over(relay, SHORT, recipients=two).recipients == [b"250 ", OUT_OF_TURN]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("unread", ["MAIL", "the end"])
def test_a_reply_to_what_has_not_been_read(tmp_path: Path, unread: str, loop: str) -> None:
    """Over a Unix socket the kernel tells what the relay has read, so that no moment is missed."""
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
                # What comes now is looked at, and stays where it is.
                while not connection.recv(1000, socket.MSG_PEEK).endswith(b"\n"):
                    # Nudges are read, so that nothing but the end is unread.
                    connection.recv(1)
                connection.sendall(b"250 2.0.0 queued\r\n")
                gone = select.poll()
                gone.register(connection, select.POLLRDHUP)
                gone.poll(20_000)

        thread = threading.Thread(target=relay)
        thread.start()
        script = Script()
        try:
            heard = hand_over(script, SHORT, loop, socket_path=str(tmp_path / "relay"))
        finally:
            thread.join(20)
        assert heard.last == OUT_OF_TURN


def test_two_replies_to_a_whole_message() -> None:
    """The first one is in its turn; nothing is asked for afterwards."""
    for first, second, expected in (
        (b"250 2.0.0 mine\r\n", b"550 5.0.0 no\r\n", b"250 mine"),
        (b"550 5.0.0 no\r\n", b"250 2.0.0 mine\r\n", b"550 5.0.0 The relay says: no\r\n"),
    ):
        cuts: list[list[Action]] = [[first, second], [first + second], [first, Do.GAP, second]]
        for cut in cuts:
            with scripted(Script({".": cut})) as relay:
                assert hand_over(relay, SHORT).message == expected


@pytest.mark.parametrize("step", ["EHLO", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize(
    "reply",
    [b"550-no\r\n250 yes\r\n", b"250-yes\r\n550 no\r\n", b"354-go\r\n250 yes\r\n"],
)
@pytest.mark.parametrize("cut", [False, True])
def test_a_reply_with_two_codes_is_none(step: str, reply: bytes, cut: bool) -> None:
    with scripted(Script({step: octets(reply) if cut else [reply]})) as relay:
        lost = b"451 4.4.2 " if step in ("DATA", ".") else b"451 4.4.1 "
        assert hand_over(relay, SHORT).last.startswith(lost)


@pytest.mark.parametrize("loop", LOOPS)
def test_clear_text_behind_the_go_ahead_for_tls(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    actions: list[Any]
    for actions in (
        [b"220 go\r\n250 injected\r\n"],
        [b"220 go\r\n", b"250 injected\r\n"],
    ):
        script = Script({"STARTTLS": [*actions, Do.SILENCE]}, extensions=("STARTTLS",))
        with scripted(script) as relay:
            assert hand_over(relay, SHORT, loop, tls="may").last.startswith(b"451 4.")
            assert not any(command.startswith("MAIL") for command in relay.commands)


def test_a_late_word_about_a_recipient_is_no_refusal_of_the_message() -> None:
    """A second reply to RCPT that comes after DATA: RSET shows that it was not one to DATA."""
    with scripted(
        Script({"RCPT": [Do.USUAL], "DATA": [b"550 5.1.1 late\r\n", b"354 go\r\n"]})
    ) as at:
        heard = hand_over(at, SHORT)
        assert heard.message == OUT_OF_TURN


@pytest.mark.parametrize("loop", LOOPS)
def test_a_relay_that_says_that_it_closes_is_asked_again(loop: str) -> None:
    """421 may come at any time (RFC 5321 3.8); nothing has been promised yet."""
    for goodbye in ([b"421 4.4.2 idle\r\n", Do.CLOSE], [b"421 4.4.2 idle\r\n"], [Do.CLOSE]):
        with scripted(Script({"RCPT": [Do.USUAL, *goodbye]}, once=True)) as relay:
            assert hand_over(relay, SHORT, loop, idle=True).message == b"250 queued as 4711"
            assert relay.commands.count("MAIL FROM:<a@b.example>") == relay.begun == 2


def test_replies_cut_into_octets_are_replies() -> None:
    steps = {step: octets(reply) for step, reply in USUAL.items() if reply}
    with scripted(Script(dict(steps))) as relay:
        assert hand_over(relay, MESSAGES["64KiB"]).message == b"250 queued as 4711"
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
    midst=st.none() | st.tuples(st.integers(0, 70_000), st.lists(SEGMENTS, max_size=3)),
    size=st.sampled_from(["empty", "14", "64KiB"]),
    loop=st.sampled_from(sorted(LOOPS)),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
def test_whatever_a_relay_says_whenever(
    steps: dict[str, Sequence[Action]],
    midst: tuple[int, Sequence[Action]] | None,
    size: str,
    loop: str,
) -> None:
    with scripted(Script(steps, midst=midst)) as relay:
        two = ("carol@elsewhere.example", "dora@elsewhere.example")
        hold(relay, hand_over(relay, MESSAGES[size], loop, recipients=two, wait=0.2))
