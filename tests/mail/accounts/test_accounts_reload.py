"""The accounts file while it is in use: changes, copies that are half done, files that are gone.

What is known before and after a change never seems not to be there in between; what a change says
holds once the file is at rest.
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
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A file and those who read it."""

    def __init__(self, directory: Path, text: str | None = None) -> None:
        self.path = directory / "accounts.toml"
        self.clock = Clock()
        # However slow the test is: what is written in it is of this moment.
        today = time.time()
        self.accounts = Accounts(self.path, self.clock, lambda: today)
        if text is not None:
            write_accounts(self.path, text)
        self.accounts.reload()

    def ask(self, address: str) -> str:
        """Return whose an address is: a name, ``none`` for certain, or ``later``."""
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
        """Leave the file alone for long enough."""
        self.clock.now += QUIET


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, A + B)


def test_a_file_that_is_at_rest_holds_at_once(site: Site) -> None:
    assert [site.ask(name) for name in "abc"] == ["a", "b", "none"]
    write_accounts(site.path, B + C)
    assert [site.ask(name) for name in "abc"] == ["none", "b", "c"]
    assert site.accounts.reload() is site.accounts.reload()


def test_a_file_of_this_moment_adds_at_once_and_removes_when_it_is_at_rest(site: Site) -> None:
    site.path.write_text(B + C)
    assert [site.ask(name) for name in "abcd"] == ["a", "b", "c", "later"]
    assert site.accounts.current()
    site.rest()
    assert not site.accounts.current()
    assert [site.ask(name) for name in "abcd"] == ["none", "b", "c", "none"]
    assert site.accounts.current()


@pytest.mark.parametrize("text", ["", "\n \n", "\0" * 4096])
def test_a_file_without_text_says_nothing_ever(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path, A)
    site.path.write_text(text)
    for _ in range(3):
        assert [site.ask(name) for name in "ab"] == ["a", "later" if _ == 0 else "none"]
        site.rest()
    assert caplog.text.count("the previous version holds: ") == 1
    assert caplog.text.count("write a comment") == 1
    site.path.write_text("# nobody\n")
    assert site.ask("a") == "a"
    site.rest()
    assert site.ask("a") == "none"
    # At start, too: it is what a crash may leave.
    site.path.write_text(text)
    other = Site(tmp_path)
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
def test_what_does_not_load_is_reported_once_if_it_stays(
    site: Site, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    spoil(site.path)
    assert [site.ask(name) for name in "abd"] == ["a", "b", "later"]
    assert caplog.records == []
    site.rest()
    for _ in range(3):
        assert [site.ask(name) for name in "abd"] == ["a", "b", "none"]
        site.rest()
    assert len(caplog.records) == 1
    assert "the previous version holds" in caplog.text


@pytest.mark.parametrize("text", [None, "", "[account", '[account."x"]'])
def test_before_anything_could_be_read_all_wait(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path)
    if text is not None:
        site.path.write_text(text)
    for _ in range(3):
        assert site.ask("a") == "later"
        site.rest()
    assert "mail has to wait" in caplog.text
    assert len(caplog.records) == (1 if text is None else 2)


def test_a_copy_at_start(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    with open(path, "w") as copy:
        copy.write(A)
        copy.flush()
        site = Site(tmp_path)
        assert [site.ask(name) for name in "ab"] == ["a", "later"]
        roster = site.accounts.roster
        assert roster is not None
        assert roster.is_local("elsewhere.example")  # nobody knows
        copy.write(B)
    assert [site.ask(name) for name in "abc"] == ["a", "b", "later"]
    site.rest()
    assert [site.ask(name) for name in "abc"] == ["a", "b", "none"]
    assert not site.accounts.roster.is_local("elsewhere.example")  # type: ignore[union-attr]


def test_a_file_that_is_gone_before_it_was_at_rest(tmp_path: Path) -> None:
    """Whom it named is known all the same; of others nothing is."""
    site = Site(tmp_path)
    site.path.write_text(A)
    assert [site.ask(name) for name in "ab"] == ["a", "later"]
    site.path.unlink()
    for _ in range(3):
        assert [site.ask(name) for name in "ab"] == ["a", "later"]
        site.rest()


def test_a_slow_copy_is_not_believed_while_it_is_open(site: Site) -> None:
    """The server here owns the file, and can see that."""
    with open(site.path, "w") as copy:
        copy.write(A)
        copy.flush()
        for _ in range(3):
            site.rest()
            assert [site.ask(name) for name in "ab"] == ["a", "b"]
        copy.write(C)
    site.ask("a")
    site.rest()
    assert [site.ask(name) for name in "abc"] == ["a", "none", "c"]


def test_a_file_that_somebody_keeps_open_is_believed_in_the_end(site: Site) -> None:
    with open(site.path, "w") as copy:
        copy.write(A)
        copy.flush()
        waited = 0.0
        while site.ask("b") == "b":
            site.rest()
            waited += QUIET
    assert LONGEST <= waited <= LONGEST + 2 * QUIET


def test_a_file_that_never_rests_is_believed_in_the_end(site: Site) -> None:
    for number in range(round(LONGEST)):
        site.path.write_text(f"{A}# {number}\n")
        assert site.ask("b") == "b", number
        site.clock.now += 1
    site.path.write_text(f"{A}# whole\n")
    assert site.ask("b") == "none"


def test_who_did_not_look_believes_nothing_early(site: Site) -> None:
    site.path.write_text(A)
    assert site.ask("b") == "b"
    site.clock.now += 10 * LONGEST  # it was at rest then, and nobody asked
    site.path.write_text(A + C)
    assert site.ask("b") == "b"


def test_a_file_from_the_future_holds_when_it_has_been_seen_at_rest(site: Site) -> None:
    site.path.write_text(A)
    os.utime(site.path, (time.time() + 1e6,) * 2)
    assert site.ask("b") == "b"
    site.rest()
    assert site.ask("b") == "none"


def test_a_replacement_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    site, other = Site(tmp_path, A), tmp_path / "other"
    other.write_text(B)
    for file in (site.path, other):
        os.utime(file, (1, 1))
    assert site.ask("a") == "a"
    os.replace(other, site.path)
    assert not site.accounts.current()
    assert [site.ask(name) for name in "ab"] == ["none", "b"]


def test_a_change_while_it_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read may be of two versions, and counts for nothing."""

    def read(path: Path) -> bytes:
        content = read_accounts(path)
        with open(site.path, "a") as file:
            file.write("# more\n")
        return content

    site.path.write_text(A + C)
    with monkeypatch.context() as patch:
        patch.setattr(accounts_file, "read_accounts", read)
        site.accounts.reload()
    roster = site.accounts.roster
    assert roster is not None
    assert not roster.certain
    assert [account.name[0] for account in roster.accounts] == ["a", "b"]
    assert [site.ask(name) for name in "abc"] == ["a", "b", "c"]


def test_the_log_says_how_many_are_gone(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write_accounts(site.path, B + C + '[account."d@example.org"]\n')
    site.ask("a")
    assert f"{site.path}: 3 accounts now, 2 new, 1 removed" in caplog.text


# --- who is who in between ------------------------------------------------------------------------

OLD, NEW = cheap_hash("old"), cheap_hash("new")


def test_a_copy_gives_nobody_the_mail_of_another(tmp_path: Path) -> None:
    """An alias for a whole domain stands above those whom it does not concern."""
    text = f'{A}aliases = ["@example.org"]\n{B}'
    site = Site(tmp_path, text)
    site.path.write_text(text[: -len(B)])
    assert [site.ask(name) for name in "abx"] == ["a", "b", "a"]
    site = Site(tmp_path, B)
    site.path.write_text(text[: -len(B)])
    assert [site.ask(name) for name in "abx"] == ["a", "b", "later"]


def test_logins_in_between(tmp_path: Path) -> None:
    text = f'{A}password = "{OLD}"\n{B}password = "{OLD}"\n{C}password = "{OLD}"\n'
    site = Site(tmp_path, text)
    before = site.accounts.roster
    assert before is not None
    site.path.write_text(f'{A}password = "{NEW}"\n{B}')
    site.ask("a")
    roster = site.accounts.roster
    assert roster is not None
    found = {name: roster.login(f"{name}@example.org") for name in "abcd"}
    assert [None if it is None else it.password for it in found.values()] == [NEW, OLD, OLD, None]
    for login in (*before.accounts, found["a"]):
        assert login is not None
        assert roster.admits(login)
    site.rest()
    site.ask("a")
    roster = site.accounts.roster
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
def test_a_copy_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], data: st.DataObject
) -> None:
    """Emptied, filled piece by piece: who stands in both versions is there at every moment."""
    site = Site(tmp_path_factory.mktemp("copy"), _text(old))
    content = _text(new).encode()
    cuts = data.draw(st.sets(st.integers(1, len(content) - 1), max_size=6).map(sorted))
    both = [name for name in old if name in new]
    moments = data.draw(st.lists(st.floats(0, QUIET * 0.9), min_size=8, max_size=8))
    if data.draw(st.booleans()):
        site.path.unlink()
        assert all(site.ask(name) == name for name in both)
    last = 0
    for end, moment in zip([0, *cuts, len(content)], moments, strict=False):
        with open(site.path, "ab" if last or end else "wb") as copy:
            copy.write(content[last:end])
        last = end
        for name in "abcdefgh":
            for address in (name, f"{name}1"):
                allowed = {name, "later"} - ({"later"} if name in both else set())
                assert site.ask(address) in allowed
        site.clock.now += moment
    site.rest()
    site.ask("a")
    site.rest()
    for name in "abcdefgh":
        assert site.ask(name) == (name if name in new else "none")
    roster = site.accounts.roster
    assert roster is not None
    assert [account.name for account in roster.accounts] == [
        account.name for account in Roster.parse(content.decode()).accounts
    ]
