"""Logins: right and wrong credentials, and the same work for all of them."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import cheap_hash, write_accounts
from support.logins import HASH, TEXT, check, logins_of

from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.mail.logins.logins import Logins, LoginsBusyError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.toml"
    write_accounts(path, TEXT)
    return path


@pytest.fixture
def logins(file: Path) -> Iterator[Logins]:
    logins = logins_of(file)
    yield logins
    logins.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("logins")]


@pytest.mark.parametrize(
    ("name", "password", "account"),
    [
        ("alice@example.org", "sécret", "alice@example.org"),
        ("alice@example.org", "se\u0301cret", "alice@example.org"),  # decomposed
        ("ALICE@Example.ORG", "sécret", "alice@example.org"),
        ("al@example.org", "sécret", "alice@example.org"),
        ("bob@example.org", "bob", "Bob@example.org"),
        ("alice@example.org", "secret", None),
        ("alice@example.org", "Sécret", None),
        ("alice@example.org", "", None),
        ("alice@example.org", "sécret\0", None),
        ("alice@example.org", HASH, None),
        ("alice@example.org", "bob", None),
        ("nobody@example.org", "", None),
        ("nobody@example.org", "sécret", None),
        ("other@example.com", "sécret", None),  # a catch-all is no login name
        ("@example.com", "sécret", None),
        ("postmaster@example.org", "sécret", None),
        ("postmaster", "sécret", None),
        ("alice", "sécret", None),
        ("", "", None),
    ],
)
def test_credentials(logins: Logins, name: str, password: str, account: str | None) -> None:
    assert check(logins, name, password) == account


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice@example.org", "sécret"),
        ("alice@example.org", "wrong"),
        ("alice@example.org", ""),
        ("alice@example.org", "x" * 1025),
        ("alice@example.org", "x" * 100_000),
        ("alice@example.org", "\ud800"),
        ("unknown@example.org", "sécret"),
        ("unknown@example.org", "x" * 1025),
        ("unknown@unknown.example", "x"),
        ("nobody@example.org", "x"),
        ("other@example.com", "x"),
        ("no address", "x"),
        ("", ""),
        ("\ud800@example.org", "x"),
        ("al\u0000ice@example.org", "x"),
        ("alice\u202e@example.org", "x"),
        ("x" * 100_000 + "@example.org", "x"),
        ("a@xn--" + "x" * 60, "x"),
    ],
)
def test_every_attempt_costs_one_verification(
    logins: Logins, monkeypatch: pytest.MonkeyPatch, name: str, password: str
) -> None:
    done: list[passwords.Argon2Parameters] = []
    real = passwords.verify

    def verify(phc: str, secret: bytes) -> bool:
        done.append(passwords.read_parameters(phc))
        assert len(secret) <= passwords.MAX_PASSWORD
        return real(phc, secret)

    monkeypatch.setattr(passwords, "verify", verify)
    check(logins, name, password)
    assert done == [passwords.read_parameters(HASH)]


def test_cost_does_not_depend_on_spelling_of_the_name(
    file: Path, logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are hashes of two costs, so that unknown names have either."""
    hashes = (cheap_hash("a", memory=8), cheap_hash("b", memory=16))
    write_accounts(
        file,
        "".join(
            f'[account."{name}@bücher.example"]\npassword = "{phc}"\n'
            for name, phc in zip(("alice", "bob"), hashes, strict=True)
        ),
    )
    costs: list[int] = []

    def verify(phc: str, secret: bytes) -> bool:
        costs.append(passwords.read_parameters(phc).memory)
        return False

    monkeypatch.setattr(passwords, "verify", verify)
    of_all = set()
    for name in ("alice", "bob", *(f"nobody{number}" for number in range(24))):
        costs.clear()
        for local in (name, name.upper(), f'"{name}"', f'"\\{name}"', f'"{name[0]}\\{name[1:]}"'):
            for domain in ("bücher.example", "xn--bcher-kva.example", "BÜCHER.example"):
                assert check(logins, f"{local}@{domain}", "wrong") is None
        assert len(costs) == 15
        assert len(set(costs)) == 1
        of_all.add(costs[0])
    assert of_all == {8, 16}


def test_matching_decoy_is_rejected(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "verify", lambda phc, secret: True)
    for name in ("unknown@example.org", "nobody@example.org", "other@example.com", ""):
        assert check(logins, name, "x") is None
    assert check(logins, "alice@example.org", "x" * 2000) is None
    assert check(logins, "alice@example.org", "") is None
    assert check(logins, "alice@example.org", "x") == "alice@example.org"


def test_changes_of_the_file_take_effect_at_once(logins: Logins, file: Path) -> None:
    assert check(logins, "alice@example.org", "sécret")
    write_accounts(file, TEXT.replace(HASH, cheap_hash("another", 16)))
    assert check(logins, "alice@example.org", "sécret") is None
    assert check(logins, "alice@example.org", "another")
    write_accounts(file, "# nobody\n")
    assert check(logins, "alice@example.org", "another") is None


def test_busy_without_accounts(tmp_path: Path) -> None:
    logins = Logins(Accounts(tmp_path / "none.toml"))
    with pytest.raises(LoginsBusyError):
        check(logins, "alice@example.org", "sécret")
    logins.close()


def test_busy_without_argon2(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    logins = Logins(Accounts(file))
    assert not logins.available
    with pytest.raises(LoginsBusyError, match="argon2-cffi"):
        check(logins, "alice@example.org", "sécret")
    logins.close()


def test_available(logins: Logins) -> None:
    assert logins.available


def test_new_file_makes_removed_logins_busy(logins: Logins, file: Path) -> None:
    assert check(logins, "alice@example.org", "sécret", "192.0.2.1")
    file.write_text(TEXT.partition('[account."nobody')[0].replace(HASH, cheap_hash("another", 16)))
    for name, password in (("alice@example.org", "another"), ("bob@example.org", "bob")):
        assert check(logins, name, password, "192.0.2.1")
    for name in ("alice@example.org", "bob@example.org", "unknown@example.org"):
        with pytest.raises(LoginsBusyError):
            check(logins, name, "sécret", "192.0.2.2")
    # They count as guesses all the same.
    assert logins.penalties.table.records["192.0.2.2"].failures == 3
