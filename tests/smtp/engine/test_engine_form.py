"""The two forms of the SMTP engine: Python as it is written, and compiled with the types beside it.

Rules of this file: which form is loaded, and what must be the same in both although compiled code
is not Python: errors, tracebacks, pickles, classes, numbers of any size. What the engine does is
tested by all the other files, in the form that is loaded: in the source tree Python, elsewhere (an
installed wheel) compiled. FASTLISTEN_ENGINE=python or =compiled says otherwise.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pickle
import traceback
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from support.engine_driver import EngineDriver
from support.smtp_harness import ENVELOPE, HELLO, codes

import fastlisten
from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.input_buffer import InputBuffer
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.smtp_events import Content, Goodbye, Transaction

ENGINE = Path(fastlisten.__file__).parent / "handlers" / "smtp" / "engine"

#: The modules that are compiled: those with a file of C types.
TYPED = sorted(path.stem for path in ENGINE.glob("*.pxd"))


def expected_form() -> str:
    """Return the form that should be loaded."""
    in_source_tree = Path(fastlisten.__file__).parents[1] == Path(__file__).parents[3]
    return os.environ.get("FASTLISTEN_ENGINE") or ("python" if in_source_tree else "compiled")


@pytest.mark.parametrize("name", TYPED)
def test_form_that_is_loaded(name: str) -> None:
    module = importlib.import_module(f"fastlisten.handlers.smtp.engine.{name}")
    assert module.__file__ is not None
    compiled = module.__file__.endswith(tuple(EXTENSION_SUFFIXES))
    # A compiled module that is left over in the source tree hides the .py beside it; to build in
    # place without compiled engine: FASTLISTEN_PURE=1 python setup.py build_ext --inplace
    assert ("compiled" if compiled else "python") == expected_form()


def test_modules_with_types_exist_as_python() -> None:
    assert {"engine", "input_buffer", "smtp_session"} <= set(TYPED)
    for name in TYPED:
        assert (ENGINE / f"{name}.py").is_file()


def test_traceback_names_the_python_file_and_line() -> None:
    engine = SmtpEngine(Limits("mx.example.org"))
    with pytest.raises(RuntimeError, match="no event waits for an answer") as caught:
        engine.accept()
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert Path(frame.filename).parts[-2:] == ("engine", "answers.py")
    assert frame.lineno is not None
    line = (ENGINE / "answers.py").read_text(encoding="utf-8").splitlines()[frame.lineno - 1]
    assert line.strip() == 'raise RuntimeError("no event waits for an answer")'


def test_bad_line_is_refused_with_an_exception_of_python() -> None:
    buffer = InputBuffer()
    buffer.receive(b"EHLO a\nb\r\n")
    with pytest.raises(Refused) as caught:
        buffer.next_line()
    assert caught.value.reply == b"500 5.5.2 Bare CR, bare LF or NUL in command line\r\n"
    assert buffer.skipping is True


def test_subclass_in_python_takes_part() -> None:
    class Upper(InputBuffer):
        def next_line(self) -> bytes | None:
            line = super().next_line()
            return None if line is None else line.upper()

    engine = SmtpEngine(Limits("mx.example.org"), source=Upper())
    engine.receive(b"ehlo client.example\r\nquit\r\n")
    assert isinstance(engine.next_event(), Goodbye)
    assert engine.client_name == "CLIENT.EXAMPLE"


def test_object_that_was_not_initialised_is_an_exception() -> None:
    with pytest.raises((AttributeError, TypeError)):
        InputBuffer.__new__(InputBuffer).next_line()
    with pytest.raises((AttributeError, TypeError)):
        SmtpEngine.__new__(SmtpEngine).next_event()


@pytest.mark.parametrize("octets", [2**31, 2**32 + 1, 2**63, 2**64 + 1, 10**400])
def test_size_beyond_what_c_counts(octets: int) -> None:
    driver = EngineDriver(max_message_size=1000)
    driver.feed(ENVELOPE, b"BDAT %d\r\n" % octets, b"NOOP\r\n")
    assert codes(driver.replies) == [250, 250, 250]  # NOOP is part of the chunk
    assert driver.events[-1] == ("reset",)
    sized = EngineDriver(max_message_size=1000)
    sized.feed(HELLO, b"MAIL FROM:<a@b.example> SIZE=%d\r\n" % octets)
    assert codes(sized.replies)[-1] == (552 if octets < 10**20 else 501)


def test_message_larger_than_any_limit_in_c() -> None:
    driver = EngineDriver(max_message_size=2**70)
    driver.feed(ENVELOPE, b"BDAT %d\r\n" % 2**65, b"text")
    assert codes(driver.replies) == [250, 250, 250]
    assert driver.engine.transaction is not None
    assert driver.engine.buffered == 0


def test_events_are_dataclasses() -> None:
    content = Content(b"text", True)
    assert dataclasses.replace(content, final=False) == Content(b"text", False)
    assert [field.name for field in dataclasses.fields(content)] == ["data", "final"]
    assert pickle.loads(pickle.dumps(content)) == content
    transaction = Transaction("a@b.example", size=2**70)
    assert pickle.loads(pickle.dumps(transaction)) == transaction
    assert not hasattr(content, "__dict__")


def test_flags_are_booleans() -> None:
    engine = SmtpEngine(Limits("mx.example.org"))
    flags = (engine.authenticated, engine.closed, engine.encrypted, engine.extended)
    assert all(flag is False for flag in (*flags, engine.securing, engine.waiting))
    engine.encrypted = True
    assert engine.encrypted is True
