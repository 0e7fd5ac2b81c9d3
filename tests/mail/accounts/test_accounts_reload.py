"""Reloading the accounts file: changes, half-written copies, missing files.

An account in both versions is never reported as unknown in between; a removal takes effect once the
file has been unchanged for a while.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.accounts import cheap_hash, write_accounts

from fastlisten.mail.accounts import accounts_file
from fastlisten.mail.accounts.accounts_file import LONGEST, QUIET, Accounts
from fastlisten.mail.accounts.roster import Roster, read_accounts
from fastlisten.mail.address import parse_mailbox

A, B, C = (f'[account."{name}@example.org"]\n' for name in "abc")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class WatchedFile:
    """An accounts file, its reader, and the clock of the latter."""

    def __init__(self, directory: Path, text: str | None = None) -> None:
        self.path = directory / "accounts.toml"
        self.clock = Clock()
        # The reader's time of day stands still, so that files stay new however slow the test is.
        today = time.time()
        self.accounts = Accounts(self.path, self.clock, lambda: today)
        if text is not None:
            write_accounts(self.path, text)
        self.accounts.reload()

    def ask(self, address: str) -> str:
        """Return the account of an address, ``none`` if there is certainly none, or ``later``."""
        if not self.accounts.current():
            self.accounts.reload()
        roster = self.accounts.roster
        if roster is None:
            return "later"
        account = roster.find(parse_mailbox(f"{address}@example.org"))
        if account is not None:
            return account.name[0]
        return "none" if roster.certain else "later"

    def rest(self) -> None:
        """Let enough time pass for the file to count as complete."""
        self.clock.now += QUIET


@pytest.fixture
def watched(tmp_path: Path) -> WatchedFile:
    return WatchedFile(tmp_path, A + B)


def test_old_file_takes_effect_at_once(watched: WatchedFile) -> None:
    assert [watched.ask(name) for name in "abc"] == ["a", "b", "none"]
    write_accounts(watched.path, B + C)
    assert [watched.ask(name) for name in "abc"] == ["none", "b", "c"]
    assert watched.accounts.reload() is watched.accounts.reload()


def test_new_file_adds_at_once_and_removes_later(
    watched: WatchedFile,
) -> None:
    watched.path.write_text(B + C)
    assert [watched.ask(name) for name in "abcd"] == ["a", "b", "c", "later"]
    assert watched.accounts.current()
    watched.rest()
    assert not watched.accounts.current()
    assert [watched.ask(name) for name in "abcd"] == ["none", "b", "c", "none"]
    assert watched.accounts.current()


@pytest.mark.parametrize("text", ["", "\n \n", "\0" * 4096])
def test_blank_file_keeps_the_previous_version(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    watched = WatchedFile(tmp_path, A)
    watched.path.write_text(text)
    for _ in range(3):
        assert [watched.ask(name) for name in "ab"] == ["a", "later" if _ == 0 else "none"]
        watched.rest()
    assert caplog.text.count("the previous version holds: ") == 1
    assert caplog.text.count("write a comment") == 1
    watched.path.write_text("# nobody\n")
    assert watched.ask("a") == "a"
    watched.rest()
    assert watched.ask("a") == "none"
    # At the start, too: a crash may leave such a file.
    watched.path.write_text(text)
    other = WatchedFile(tmp_path)
    other.rest()
    assert other.ask("a") == "later"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("[account"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text('[account."x"]'),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["cut", "no text", "wrong", "gone", "directory"],
)
def test_lasting_error_is_logged_once(
    watched: WatchedFile, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    spoil(watched.path)
    assert [watched.ask(name) for name in "abd"] == ["a", "b", "later"]
    assert caplog.records == []
    watched.rest()
    for _ in range(3):
        assert [watched.ask(name) for name in "abd"] == ["a", "b", "none"]
        watched.rest()
    assert len(caplog.records) == 1
    assert "the previous version holds" in caplog.text


@pytest.mark.parametrize("text", [None, "", "[account", '[account."x"]'])
def test_without_a_readable_version_mail_waits(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    watched = WatchedFile(tmp_path)
    if text is not None:
        watched.path.write_text(text)
    for _ in range(3):
        assert watched.ask("a") == "later"
        watched.rest()
    assert "mail is deferred with 451" in caplog.text
    assert len(caplog.records) == (1 if text is None else 2)


def test_copy_in_progress_at_start(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    with open(path, "w") as copy:
        copy.write(A)
        copy.flush()
        watched = WatchedFile(tmp_path)
        assert [watched.ask(name) for name in "ab"] == ["a", "later"]
        roster = watched.accounts.roster
        assert roster is not None
        assert roster.is_local("elsewhere.example")  # not known yet
        copy.write(B)
    assert [watched.ask(name) for name in "abc"] == ["a", "b", "later"]
    watched.rest()
    assert [watched.ask(name) for name in "abc"] == ["a", "b", "none"]
    assert not watched.accounts.roster.is_local("elsewhere.example")  # type: ignore[union-attr]


def test_new_file_deleted_before_it_was_complete(tmp_path: Path) -> None:
    """Its accounts stay known; about others nothing is certain."""
    watched = WatchedFile(tmp_path)
    watched.path.write_text(A)
    assert [watched.ask(name) for name in "ab"] == ["a", "later"]
    watched.path.unlink()
    for _ in range(3):
        assert [watched.ask(name) for name in "ab"] == ["a", "later"]
        watched.rest()


def test_removals_wait_while_the_file_is_open(watched: WatchedFile) -> None:
    """The server owns this file, and can see that it is open for writing."""
    with open(watched.path, "w") as copy:
        copy.write(A)
        copy.flush()
        for _ in range(3):
            watched.rest()
            assert [watched.ask(name) for name in "ab"] == ["a", "b"]
        copy.write(C)
    watched.ask("a")
    watched.rest()
    assert [watched.ask(name) for name in "abc"] == ["a", "none", "c"]


def test_file_kept_open_is_trusted_after_a_minute(watched: WatchedFile) -> None:
    with open(watched.path, "w") as copy:
        copy.write(A)
        copy.flush()
        waited = 0.0
        while watched.ask("b") == "b":
            watched.rest()
            waited += QUIET
    assert LONGEST <= waited <= LONGEST + 2 * QUIET


def test_file_changing_all_the_time_is_trusted_after_a_minute(watched: WatchedFile) -> None:
    for number in range(round(LONGEST)):
        watched.path.write_text(f"{A}# {number}\n")
        assert watched.ask("b") == "b", number
        watched.clock.now += 1
    watched.path.write_text(f"{A}# whole\n")
    assert watched.ask("b") == "none"


def test_unobserved_time_does_not_count(watched: WatchedFile) -> None:
    watched.path.write_text(A)
    assert watched.ask("b") == "b"
    watched.clock.now += 10 * LONGEST  # nobody looked meanwhile
    watched.path.write_text(A + C)
    assert watched.ask("b") == "b"


def test_file_with_future_mtime(watched: WatchedFile) -> None:
    watched.path.write_text(A)
    os.utime(watched.path, (time.time() + 1e6,) * 2)
    assert watched.ask("b") == "b"
    watched.rest()
    assert watched.ask("b") == "none"


def test_replacement_of_same_size_and_mtime_is_noticed(tmp_path: Path) -> None:
    watched, other = WatchedFile(tmp_path, A), tmp_path / "other"
    other.write_text(B)
    for file in (watched.path, other):
        os.utime(file, (1, 1))
    assert watched.ask("a") == "a"
    os.replace(other, watched.path)
    assert not watched.accounts.current()
    assert [watched.ask(name) for name in "ab"] == ["none", "b"]


def test_change_during_the_read(watched: WatchedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read may mix two versions, and is discarded."""

    def read(path: Path) -> bytes:
        content = read_accounts(path)
        with open(watched.path, "a") as file:
            file.write("# more\n")
        return content

    watched.path.write_text(A + C)
    with monkeypatch.context() as patch:
        patch.setattr(accounts_file, "read_accounts", read)
        watched.accounts.reload()
    roster = watched.accounts.roster
    assert roster is not None
    assert not roster.certain
    assert [account.name[0] for account in roster.accounts] == ["a", "b"]
    assert [watched.ask(name) for name in "abc"] == ["a", "b", "c"]


def test_log_counts_new_and_removed_accounts(
    watched: WatchedFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_accounts(watched.path, B + C + '[account."d@example.org"]\n')
    watched.ask("a")
    assert f"{watched.path}: 3 accounts now, 2 new, 1 removed" in caplog.text


# --- addresses and logins during a copy -----------------------------------------------------------

OLD, NEW = cheap_hash("old"), cheap_hash("new")


def test_catch_all_does_not_take_mail_during_a_copy(tmp_path: Path) -> None:
    """In the file, the catch-all alias comes before another account of its domain."""
    text = f'{A}aliases = ["@example.org"]\n{B}'
    watched = WatchedFile(tmp_path, text)
    watched.path.write_text(text[: -len(B)])
    assert [watched.ask(name) for name in "abx"] == ["a", "b", "a"]
    watched = WatchedFile(tmp_path, B)
    watched.path.write_text(text[: -len(B)])
    assert [watched.ask(name) for name in "abx"] == ["a", "b", "later"]


def test_logins_during_a_copy(tmp_path: Path) -> None:
    text = f'{A}password = "{OLD}"\n{B}password = "{OLD}"\n{C}password = "{OLD}"\n'
    watched = WatchedFile(tmp_path, text)
    before = watched.accounts.roster
    assert before is not None
    watched.path.write_text(f'{A}password = "{NEW}"\n{B}')
    watched.ask("a")
    roster = watched.accounts.roster
    assert roster is not None
    found = {name: roster.login(f"{name}@example.org") for name in "abcd"}
    assert [None if it is None else it.password for it in found.values()] == [NEW, OLD, OLD, None]
    for login in (*before.accounts, found["a"]):
        assert login is not None
        assert roster.admits(login)
    watched.rest()
    watched.ask("a")
    roster = watched.accounts.roster
    assert roster is not None
    assert [roster.admits(login) for login in before.accounts] == [False, False, False]


_names = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1)


def _text(names: list[str]) -> str:
    lines = []
    for name in names:
        lines.append(f'[account."{name}@example.org"]\npassword = "{OLD}"\n')
        lines.append(f'aliases = ["{name}1@example.org",\n"{name}2@example.net"]\n\n')
    return "".join(lines)


@settings(max_examples=150, deadline=None)
@given(_names, _names, st.data())
def test_copy_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], data: st.DataObject
) -> None:
    """Truncated, then written in pieces: accounts in both versions are known at every moment."""
    watched = WatchedFile(tmp_path_factory.mktemp("copy"), _text(old))
    content = _text(new).encode()
    cuts = data.draw(st.sets(st.integers(1, len(content) - 1), max_size=6).map(sorted))
    both = [name for name in old if name in new]
    moments = data.draw(st.lists(st.floats(0, QUIET * 0.9), min_size=8, max_size=8))
    if data.draw(st.booleans()):
        watched.path.unlink()
        assert all(watched.ask(name) == name for name in both)
    last = 0
    for end, moment in zip([0, *cuts, len(content)], moments, strict=False):
        with open(watched.path, "ab" if last or end else "wb") as copy:
            copy.write(content[last:end])
        last = end
        for name in "abcdefgh":
            for address in (name, f"{name}1"):
                allowed = {name, "later"} - ({"later"} if name in both else set())
                assert watched.ask(address) in allowed
        watched.clock.now += moment
    watched.rest()
    watched.ask("a")
    watched.rest()
    for name in "abcdefgh":
        assert watched.ask(name) == (name if name in new else "none")
    roster = watched.accounts.roster
    assert roster is not None
    assert [account.name for account in roster.accounts] == [
        account.name for account in Roster.parse(content.decode()).accounts
    ]
