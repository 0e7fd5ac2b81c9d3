"""Properties of the SMTP engine for any input, with every extension: bounds, replies, segments."""

from __future__ import annotations

import base64
import itertools
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_driver import NAME, PASSWORD, EngineDriver
from support.smtp_harness import ENVELOPE, HELLO, HOSTNAME, MAIL, RCPT, codes, cut

from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.input_buffer import AUTH_LINE_LIMIT
from fastlisten.handlers.smtp.engine.replies import OK, TELLABLE, reply
from fastlisten.handlers.smtp.engine.smtp_events import (
    Auth,
    Content,
    Event,
    Goodbye,
    Response,
    StartTls,
)
from fastlisten.mail.logins.sasl import MECHANISMS

RIGHT = base64.b64encode(f"\0{NAME}\0{PASSWORD}".encode())
LOGIN = base64.b64encode(NAME.encode()) + b"\r\n" + base64.b64encode(PASSWORD.encode())

LHLO = HELLO.replace(b"EHLO", b"LHLO")

SNIPPETS = [
    HELLO,
    LHLO,
    b"HELO x\r\n",
    MAIL,
    b"MAIL FROM:<a@b> SIZE=10 BODY=BINARYMIME RET=FULL ENVID=x+41\r\n",
    b"MAIL FROM:<a@b> BODY=8BITMIME AUTH=<> SMTPUTF8\r\n",
    b"MAIL FROM:<a@b> RET=X\r\n",
    RCPT,
    b"RCPT TO:<nobody@x>\r\n",
    b"RCPT TO:<full@x> NOTIFY=NEVER ORCPT=rfc822;a\r\n",
    b"DATA\r\n",
    b"text\r\n.\r\n",
    b".\r\n",
    b"BDAT 0\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 6\r\ntext\r\n",
    b"BDAT 6 LAST\r\ntext\r\n",
    b"BDAT 3\r\na\n\r",
    b"BDAT 1 LAST\r\n\n",
    b"BDAT 1000 LAST\r\n",
    b"BDAT 7 LAST \r\nNOOP\r\n\r",
    b"BDAT 5 LATS\r\nHELP\r",
    b"BDAT 200\r\n" + b"x" * 200,
    b"BDAT -1\r\n",
    b"AUTH PLAIN " + RIGHT + b"\r\n",
    b"AUTH PLAIN\r\n",
    b"AUTH LOGIN\r\n",
    b"AUTH NTLM\r\n",
    b"AUTH PLAIN !\r\n",
    RIGHT + b"\r\n",
    LOGIN + b"\r\n",
    b"*\r\n",
    b"=\r\n",
    b"STARTTLS\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"NOOP no\r\n",
    b"HELP\r\n",
    b"VRFY x\r\n",
    b"NONSENSE\r\n",
    b"QUIT\r\n",
    b"GET / HTTP/1.0\r\n",
    b"A" * 13_000,
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\xff",
]

#: Usual beginnings of a session, so that the rest meets a transaction.
STARTS = [
    b"",
    HELLO,
    ENVELOPE,
    ENVELOPE.replace(b"EHLO", b"LHLO"),
    ENVELOPE.replace(b"<sender@example.com>", b"<> BODY=BINARYMIME"),
    HELLO + b"AUTH PLAIN " + RIGHT + b"\r\n" + MAIL + RCPT,
]

STREAMS = st.builds(
    lambda start, rest: start + b"".join(rest),
    st.sampled_from(STARTS),
    st.lists(st.sampled_from(SNIPPETS) | st.binary(max_size=8), max_size=20),
)

KINDS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "protocol": st.sampled_from(["smtp", "lmtp"]),
        "mechanisms": st.sampled_from([MECHANISMS, ()]),
        "auth_in_clear": st.booleans(),
        "auth_required": st.booleans(),
        "told": st.sampled_from([TELLABLE, frozenset()]),
    }
)
FIXED: dict[str, Any] = {"max_message_size": 300, "max_errors": 8, "max_recipients": 3}


@settings(max_examples=500)
@given(
    stream=STREAMS,
    kind=KINDS,
    encrypted=st.booleans(),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
def test_result_is_independent_of_segmentation(
    stream: bytes, kind: dict[str, Any], encrypted: bool, cuts: list[int]
) -> None:
    whole, bytewise, pieces = (EngineDriver(encrypted, **kind, **FIXED) for _ in range(3))
    whole.feed(stream)
    bytewise.feed(*cut(stream[:4000], 1), stream[4000:])
    edges = sorted({0, len(stream), *(edge for edge in cuts if edge < len(stream))})
    pieces.feed(*(stream[a:b] for a, b in itertools.pairwise(edges)))
    assert bytewise.events == whole.events == pieces.events
    assert bytewise.parameters == whole.parameters == pieces.parameters
    assert bytewise.replies == whole.replies == pieces.replies
    assert bytewise.engine.authenticated is whole.engine.authenticated


@settings(max_examples=300)
@given(stream=STREAMS, kind=KINDS, encrypted=st.booleans())
def test_any_input_gets_bounded_well_formed_replies(
    stream: bytes, kind: dict[str, Any], encrypted: bool
) -> None:
    driver = EngineDriver(encrypted, **kind, **FIXED)
    for piece in cut(stream, 500):
        driver.feed(piece)
        assert driver.engine.buffered <= AUTH_LINE_LIMIT
        assert driver.engine.replies() == b""
    engine = driver.engine
    if engine.closed:
        assert driver.events[-1] == ("goodbye",)
        assert engine.buffered == 0
        assert engine.transaction is None
    if kind["auth_required"] and not engine.authenticated:
        assert not any(event[0] == "mail" for event in driver.events)
    # Every reply carries an enhanced status code of its class (RFC 2034), but for the replies to
    # EHLO and HELO, and those that ask for more.
    limits = Limits(HOSTNAME, **kind, **FIXED)
    said = driver.replies
    for offer in (limits.ehlo, limits.ehlo_encrypted, limits.helo):
        said = said.replace(offer, b"")
    for line in said.decode("ascii").splitlines():
        assert re.match(r"3[35]4 |([245])\d\d[ -]\1\.\d{1,3}\.\d{1,3} \S", line), line
        assert len(line) <= 510


@settings(max_examples=200)
@given(stream=STREAMS, kind=KINDS)
def test_session_recovers_from_any_input(stream: bytes, kind: dict[str, Any]) -> None:
    """After any input, the end of its line and message, and EHLO, a message is accepted."""
    driver = EngineDriver(True, **kind, **FIXED | {"max_errors": 10_000})
    driver.feed(stream, b"\r\n.\r\n", b"*\r\n" * 2, b"\r\n" * 1000, b"\r\n.\r\n")
    if driver.engine.closed:
        return
    driver.feed(b"\r\n", HELLO if kind["protocol"] == "smtp" else LHLO)
    if not driver.engine.authenticated and kind["mechanisms"]:
        driver.feed(b"AUTH PLAIN " + RIGHT + b"\r\n")
    if kind["auth_required"] and not driver.engine.authenticated:
        return
    before = len(driver.messages)
    driver.feed(MAIL, RCPT, b"BDAT 6 LAST\r\nafter\n")
    assert len(driver.messages) == before
    driver.feed(MAIL, RCPT, b"BDAT 7 LAST\r\nafter\r\n", b"QUIT\r\n")
    assert driver.messages[before:] == [b"after\r\n"]
    assert driver.engine.closed


ANSWERS = [
    b"",
    OK,
    reply(250, "2.1.5", "Two", "lines"),
    reply(452, "4.2.2", "Later"),
    reply(550, "5.7.1", "No"),
    reply(421, "4.3.2", "Going"),
]


def answer(engine: SmtpEngine, event: Event, word: bytes, way: int, lmtp: bool) -> None:
    """Answer an event in one of the possible ways."""
    if isinstance(event, Auth | Response) and way:
        engine.challenge(word)
    elif isinstance(event, Content) and way and word:
        assert engine.transaction is not None
        engine.answer([word] * (len(engine.transaction.recipients) if lmtp else 1))
    elif word[:1] in (b"4", b"5"):
        engine.reject(word)
    else:
        engine.accept(word)


@settings(max_examples=300)
@given(
    stream=STREAMS,
    kind=KINDS,
    encrypted=st.booleans(),
    answers=st.lists(st.tuples(st.sampled_from(ANSWERS), st.integers(0, 2)), min_size=1),
)
def test_any_answers_to_any_events(
    stream: bytes, kind: dict[str, Any], encrypted: bool, answers: list[tuple[bytes, int]]
) -> None:
    engine = SmtpEngine(Limits(HOSTNAME, starttls=True, **kind, **FIXED), encrypted)
    turns = itertools.cycle(answers)
    said, last = b"", None
    for piece in cut(stream, 300):
        engine.receive(piece)
        while (event := engine.next_event()) is not None:
            assert not isinstance(last, Goodbye)
            last = event
            if engine.waiting:
                # Nothing happens until it is answered.
                before = (engine.transaction, engine.client_name, engine.authenticated)
                assert engine.next_event() is None
                assert (engine.transaction, engine.client_name, engine.authenticated) == before
                answer(engine, event, *next(turns), kind["protocol"] == "lmtp")
            if isinstance(event, StartTls) and engine.securing:
                assert not engine.authenticated
                assert engine.transaction is None
                said += engine.replies()
                engine.tls_started()
            said += engine.replies()
    said += engine.replies()
    assert all(200 <= code < 600 for code in codes(said))
    if engine.closed:
        assert isinstance(last, Goodbye)
