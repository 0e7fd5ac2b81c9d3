"""Handler classes described by a child process: what arrives, what is refused.

Rules of this file: classes are imported for real, in real children. What arrives is compared with
what importing the class here says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.config import load_text
from support.other_user import NOBODY, needs_root, user_directory

from fastlisten.handlers import class_description
from fastlisten.handlers.class_description import (
    ClassDescription,
    DescriptionError,
    describe_apart,
)
from fastlisten.handlers.importing import named_handler
from fastlisten.privileges import find_identity

pytestmark = pytest.mark.usefixtures("descriptors_back")

SMTP = "fastlisten.handlers.smtp.handler:SmtpHandler"


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with user_directory() as path:
        monkeypatch.syspath_prepend(str(path))
        yield path


def described(directory: Path, text: str) -> ClassDescription:
    """Return what a child says about the class `It` of a module with this text."""
    (directory / "described_here.py").write_text(
        "import os, sys\nfrom fastlisten import Handler\nfrom fastlisten.option import Option\n"
        + text
    )
    try:
        return describe_apart("described_here:It", None)
    finally:
        assert "described_here" not in sys.modules


def test_every_variable_arrives(directory: Path) -> None:
    found = described(
        directory,
        "class It(Handler):\n    default_port = 79\n    default_tls_port = 7979\n"
        "    server_speaks_first = True\n    starttls = True\n"
        "    options = (Option('words', 'choice', 'a', 'Words.', choices=('a', 'b'),\n"
        "        extra={'optional': True}, minimum=1.5, inert=(('a',),)),)\n",
    )
    (row,) = found.options
    assert (found.default_port, found.default_tls_port) == (79, 7979)
    assert (found.server_speaks_first, found.starttls) == (True, True)
    assert (row.key, row.choices, row.minimum, row.inert) == ("words", ("a", "b"), 1.5, (("a",),))
    assert row.extra == {"optional": True}


def test_smtp_is_the_same_as_when_imported() -> None:
    assert describe_apart(SMTP, None) == ClassDescription.of(named_handler(SMTP))


def test_function_is_a_handler(directory: Path) -> None:
    found = described(directory, "async def It(reader, writer): pass\n")
    assert found == ClassDescription(0, 0, False, False, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import not_there_at_all\n", "No module named 'not_there_at_all'"),
        ("raise ValueError('no store')\n", "importing it raised ValueError: no store"),
        ("It = 3\n", "neither a subclass of fastlisten.Handler nor an async function"),
        ("os._exit(0)\n", "importing it ended the process"),
        ("sys.exit('enough')\n", "SystemExit: enough"),
        ("class It(Handler):\n    default_port = 70000\n", "its class variables are invalid"),
        ("class It(Handler):\n    default_port = 'x'\n", "its class variables are invalid"),
        ("class It(Handler):\n    starttls = 1\n", "its class variables are invalid"),
        ("class It(Handler):\n    options = (1,)\n", "its class variables"),
        (
            "class It(Handler):\n    options = (Option(3, 'string', '', ''),)\n",
            "its class variables are invalid",
        ),
        (
            "class It(Handler):\n    options = (Option('x', 'string', object(), ''),)\n",
            "its class variables: Object of type object is not JSON serializable",
        ),
    ],
)
def test_unusable_classes(directory: Path, text: str, message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        described(directory, text)
    assert message in str(caught.value)


def test_import_that_hangs_is_given_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children = []
    fork = os.fork

    def noted_fork() -> int:
        children.append(fork())
        return children[-1]

    monkeypatch.setattr(os, "fork", noted_fork)
    monkeypatch.setattr(class_description, "IMPORT_SECONDS", 0.2)
    with pytest.raises(DescriptionError, match=r"importing it has not ended within 0\.2 s"):
        described(directory, "import signal\nsignal.pause()\n")
    with pytest.raises(ProcessLookupError):  # it has been killed, and waited for
        os.kill(children[0], 0)


def test_answer_of_another_kind_is_not_used(directory: Path) -> None:
    """The module decides what the child writes."""
    text = "import json\njson.dumps = lambda value: '[{}]'\nclass It(Handler): pass\n"
    with pytest.raises(DescriptionError, match="its class variables are invalid"):
        described(directory, text)


@needs_root
def test_class_is_imported_as_the_user(directory: Path) -> None:
    text = "class It(Handler):\n    default_port = os.geteuid() % 60000\n"
    (directory / "described_here.py").write_text(
        "import os\nfrom fastlisten import Handler\n" + text
    )
    found = describe_apart("described_here:It", find_identity(str(NOBODY.pw_uid), None))
    assert found.default_port == NOBODY.pw_uid % 60000


def test_configuration_for_workers_imports_no_class(directory: Path) -> None:
    (directory / "described_here.py").write_text(
        "from fastlisten import Handler\nclass It(Handler):\n    default_port = 79\n"
    )
    listener = '[server.listener.it]\nprotocol = "finger"\nbind = "127.0.0.1"\n'
    listener += 'handler = "described_here:It"\n'
    config = load_text(f"[server]\nworkers = 2\n{listener}")
    assert config.listeners[0].bind[0].port == 79
    assert "described_here" not in sys.modules
