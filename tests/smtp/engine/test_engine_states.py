"""The states of the SMTP engine: a session follows the ways of the drawing, and no others.

Rules of this file: states are reached by the ways themselves, and by what clients send; nothing is
set from outside.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.engine_driver import EngineDriver
from support.smtp_harness import ENVELOPE, HELLO

from fastlisten.handlers.smtp.engine.engine import Limits
from fastlisten.handlers.smtp.engine.input_buffer import InputBuffer
from fastlisten.handlers.smtp.engine.session_states import NEXT, SessionState
from fastlisten.handlers.smtp.engine.smtp_session import Session


def in_state(state: SessionState) -> Session:
    """Return a session that has gone to a state the shortest way."""
    ways: list[list[SessionState]] = [[SessionState.COMMAND]]
    for way in ways:
        if way[-1] is state:
            break
        ways += [[*way, following] for following in NEXT[way[-1]] if following not in way]
    session = Session(Limits("mx.example.org"), InputBuffer(), False)
    for step in way[1:]:
        session.enter(step)
    return session


@pytest.mark.parametrize("state", SessionState)
def test_only_documented_transitions_are_possible(state: SessionState) -> None:
    for following in SessionState:
        session = in_state(state)
        assert session.state is state
        if following in NEXT[state]:
            session.enter(following)
            assert session.state is following
        else:
            with pytest.raises(RuntimeError, match=f"{following.name} cannot follow {state.name}"):
                session.enter(following)
            assert session.state is state


def test_table_of_transitions_is_complete() -> None:
    assert set(NEXT) == set(SessionState)
    assert {following for ways in NEXT.values() for following in ways} == set(SessionState)
    assert not NEXT[SessionState.CLOSED]


def test_closed_engine_ignores_input() -> None:
    driver = EngineDriver()
    driver.feed(HELLO, b"QUIT\r\n")
    assert driver.events == [("goodbye",)]
    assert driver.feed(ENVELOPE, b"NOOP\r\n") == b""
    assert driver.engine.buffered == 0
    with pytest.raises(RuntimeError, match="no event waits"):
        driver.engine.accept()


def test_answer_without_event_raises() -> None:
    engine = EngineDriver().engine
    answers: list[Callable[[], None]] = [
        engine.accept,
        lambda: engine.reject(b"550 5.1.1 No\r\n"),
        lambda: engine.challenge(b""),
        lambda: engine.answer([b"250 2.0.0 Ok\r\n"]),
        engine.tls_started,
    ]
    for answer in answers:
        with pytest.raises(RuntimeError):
            answer()
    assert engine.replies() == b""
