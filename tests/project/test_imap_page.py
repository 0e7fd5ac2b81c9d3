"""docs/imap.md is correct: the capabilities, their tests, the keys and what clients are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastlisten.config import loads
from fastlisten.handlers.base import HandlerSettings, Reason
from fastlisten.handlers.imap.capabilities import after_login, before_login
from fastlisten.handlers.imap.handler import ImapHandler
from fastlisten.handlers.imap.settings import IMAP
from fastlisten.mail.logins.sasl import MECHANISMS

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
PAGE = DOCS / "imap.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside these tests")


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def rows(section: str) -> list[list[str]]:
    """Return the cells of a section's table, without its head."""
    text = page().partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_capabilities_are_those_that_are_announced() -> None:
    listed = [word for row in rows("Capabilities") for word in words(row[0])]
    announced = {
        *before_login(MECHANISMS, encrypted=False, starttls=True),
        *before_login(MECHANISMS, encrypted=True, starttls=False),
        *(name.removesuffix("=1") for name in after_login(1)),
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == announced


def test_every_capability_has_a_test_that_names_it() -> None:
    for row in rows("Capabilities")[1:]:
        files = words(row[3])
        assert files, row
        text = "".join((TESTS / "imap" / name).read_text(encoding="utf-8") for name in files)
        said = [row[1].removeprefix("RFC ").split()[0], *words(row[0])]
        assert any(word.removeprefix("AUTH=") in text for word in said), row


def test_keys_exist_and_have_these_defaults() -> None:
    known = {f"imap.{row.key}": row.default for row in IMAP.options}
    (listener,) = loads(
        '[server.listener.it]\nprotocol = "imap"\nbind = "127.0.0.1:143"\n'
    ).listeners
    for row in rows("What administrators of other servers look for")[1:]:
        for key in words(row[0]):
            if key.endswith(".*"):
                assert [name for name in known if name.startswith(key[:-1])], key
            else:
                assert key in known or listener[key] is not None, key
    sizes = {"max-line": 64 << 10, "max-literal": 64 << 10, "append-limit": 50 << 20}
    numbers = {"max-errors": 20, "login-attempts": 10, "sessions-per-user": 10}
    times = {"timeout-before-login": 180.0, "idle-keep-alive": 120.0}
    for name, value in {**sizes, **numbers, **times}.items():
        assert known[f"imap.{name}"] == value
    assert listener["timeout.idle"] == 1800.0


def test_farewells_are_those_that_are_sent(tmp_path: Path) -> None:
    said = [word for row in rows("Sessions") for word in words(row[1])]
    handler = ImapHandler(HandlerSettings("x", "imap", "h", data_directory=str(tmp_path)))
    sent = [
        handler.refusal(Reason.LIMIT),
        handler.farewell(Reason.IDLE),
        handler.farewell(Reason.SHUTDOWN),
    ]
    assert {line.decode().strip() for line in sent} <= set(said)
    text = "".join(path.read_text(encoding="utf-8") for path in (TESTS / "imap").rglob("*.py"))
    for words_said in said:
        assert words_said.rpartition("* BYE ")[2].removeprefix("... ") in text, words_said


def test_links_resolve() -> None:
    targets = re.findall(r"\]\(([^)#]+)", page())
    assert targets
    assert [target for target in targets if not (DOCS / target).exists()] == []
