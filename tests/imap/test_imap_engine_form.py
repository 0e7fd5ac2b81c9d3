"""The two forms of the IMAP engine: Python as it is written, and compiled with the types beside it.

Rules of this file: which form is loaded, and what must be the same in both although compiled code
is not Python. What the engine does is tested by all the other files, in the form that is loaded: in
the source tree Python, elsewhere (an installed wheel) compiled. FASTLISTEN_ENGINE=python or
=compiled says otherwise.
"""

from __future__ import annotations

import importlib
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import fastlisten
from fastlisten.handlers.imap.engine.commands import AppendMessage, Fetch, Noop
from fastlisten.handlers.imap.engine.engine import ImapEngine, Limits
from fastlisten.handlers.imap.engine.input_buffer import InputBuffer
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Scanner
from fastlisten.handlers.imap.engine.session_states import State

ENGINE = Path(fastlisten.__file__).parent / "handlers" / "imap" / "engine"

#: The modules that are compiled: those with a file of C types.
TYPED = sorted(path.stem for path in ENGINE.glob("*.pxd"))


def expected_form() -> str:
    """Return the form that should be loaded."""
    in_source_tree = Path(fastlisten.__file__).parents[1] == Path(__file__).parents[2]
    return os.environ.get("FASTLISTEN_ENGINE") or ("python" if in_source_tree else "compiled")


@pytest.mark.parametrize("name", TYPED)
def test_form_that_is_loaded(name: str) -> None:
    module = importlib.import_module(f"fastlisten.handlers.imap.engine.{name}")
    assert module.__file__ is not None
    compiled = module.__file__.endswith(tuple(EXTENSION_SUFFIXES))
    assert ("compiled" if compiled else "python") == expected_form()


def test_modules_with_types_exist_as_python() -> None:
    assert {"engine", "input_buffer", "reading", "scanner", "session"} <= set(TYPED)
    for name in TYPED:
        assert (ENGINE / f"{name}.py").is_file()


def test_refusals_are_exceptions_of_python() -> None:
    buffer = InputBuffer()
    buffer.receive(b"a NOOP\nb NOOP\r\n")
    with pytest.raises(Refused, match="bare LF"):
        buffer.next_line(1000)
    assert buffer.skipping is True
    assert buffer.head == b"a NOOP"
    with pytest.raises(Refused, match="Missing arguments"):
        Scanner(b"a NOOP", 6).atom()
    engine = ImapEngine(Limits())
    with pytest.raises(RuntimeError, match="no command waits"):
        engine.ok("done")


@pytest.mark.parametrize("octets", [2**31, 2**32 + 1, 2**63, 10**18, 10**19 - 1, 10**400])
def test_literal_beyond_what_c_counts(octets: int) -> None:
    engine = ImapEngine(Limits(), True, State.AUTHENTICATED)
    engine.receive(b"a APPEND INBOX {%d}\r\nb NOOP\r\n" % octets)
    engine.next_event()
    assert b"a BAD" in (said := engine.output()) or b"a NO" in said
    assert isinstance(engine.next_event(), Noop)


def test_message_larger_than_c_counts() -> None:
    engine = ImapEngine(Limits(max_message_size=2**70), True, State.AUTHENTICATED)
    engine.receive(b"a APPEND INBOX {%d}\r\n" % 2**62)
    event = engine.next_event()
    assert isinstance(event, AppendMessage)
    assert event.size == 2**62
    engine.accept()
    engine.receive(b"text")
    assert engine.next_event() is not None
    assert engine.buffered == 0


def test_numbers_that_clients_name() -> None:
    engine = ImapEngine(Limits(), True, State.SELECTED)
    engine.receive(b"a UID FETCH 4294967295 (FLAGS) (CHANGEDSINCE 9223372036854775807)\r\n")
    event = engine.next_event()
    assert isinstance(event, Fetch)
    assert event.changed_since == 2**63 - 1
    assert event.messages.ranges == ((2**32 - 1, 2**32 - 1),)


def test_object_that_was_not_initialised_is_an_exception() -> None:
    with pytest.raises((AttributeError, TypeError)):
        InputBuffer.__new__(InputBuffer).next_line(100)
    with pytest.raises((AttributeError, TypeError)):
        ImapEngine.__new__(ImapEngine).receive(b"a NOOP\r\n")


def test_flags_are_booleans() -> None:
    engine = ImapEngine(Limits())
    assert all(
        flag is False for flag in (engine.closed, engine.condstore, engine.encrypted, engine.idling)
    )
    engine.encrypted = True
    assert engine.encrypted is True
