"""The accounts file: its syntax, and which account an address or a login belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlisten.errors import ConfigurationError, Problem
from fastlisten.mail.accounts.roster import Account, Roster
from fastlisten.mail.address import Mailbox, parse_mailbox

#: What "secret" is with 8 KiB and one pass.
HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$RdescudvJCsgt3ub+b8dWRJJTmaaJObG"

TEXT = f"""
# several accounts
[account."alice@example.org"]
password = "{HASH}"
aliases = ["Al@Example.ORG", "sales@example.com"]

[account."Bob@example.org"]
[account."bob@example.org"]
[account.'"x y"@example.org']
"""

POSTMASTER = Mailbox("postmaster", "postmaster", "")


def found(roster: Roster, text: str) -> str | None:
    account = roster.find(parse_mailbox(text))
    return account.name if account else None


@pytest.mark.parametrize(
    ("address", "account"),
    [
        ("alice@example.org", "alice@example.org"),
        ("ALICE@EXAMPLE.ORG", "alice@example.org"),
        ("al@example.org", "alice@example.org"),
        ("Sales@EXAMPLE.com", "alice@example.org"),
        ("bob@example.org", "bob@example.org"),
        ("Bob@example.org", "Bob@example.org"),
        ("BOB@example.org", "Bob@example.org"),
        ('"alice"@example.org', "alice@example.org"),
        ('"X Y"@example.org', '"x y"@example.org'),
        ("alice@example.com", None),
        ("nobody@example.org", None),
        ("alice@sub.example.org", None),
    ],
)
def test_find_account_by_address(address: str, account: str | None) -> None:
    assert found(Roster.parse(TEXT), address) == account


def test_postmaster_is_the_first_account_by_default() -> None:
    roster = Roster.parse(TEXT)
    first = Account("alice@example.org", ("Al@Example.ORG", "sales@example.com"), HASH)
    assert HASH not in repr(first)
    assert roster.find(POSTMASTER) == first
    assert found(roster, "Postmaster@example.com") == "alice@example.org"
    assert found(roster, "postmaster@elsewhere.example") is None


def test_postmaster_may_be_an_alias() -> None:
    roster = Roster.parse(
        '[account."a@one.example"]\n[account."b@two.example"]\naliases=["Postmaster@two.example"]'
    )
    assert roster.find(POSTMASTER) == roster.accounts[1]
    assert found(roster, "postmaster@two.example") == "b@two.example"
    assert found(roster, "postmaster@one.example") == "b@two.example"


CATCH_ALL = """
[account."a@one.example"]
aliases = ["@one.example", "@Two.example", "@xn--bcher-kva.example", '""@three.example']
[account."b@one.example"]
aliases = ["c@two.example"]
"""


@pytest.mark.parametrize(
    ("address", "account"),
    [
        ("anybody@one.example", "a@one.example"),
        ("Anybody@TWO.example", "a@one.example"),
        ("x@bücher.example", "a@one.example"),
        ("b@one.example", "b@one.example"),
        ("B@one.example", "b@one.example"),
        ("C@two.example", "b@one.example"),
        ("postmaster@two.example", "a@one.example"),
        ('""@three.example', "a@one.example"),
        ("x@three.example", None),
        ("x@sub.one.example", None),
    ],
)
def test_catch_all_alias(address: str, account: str | None) -> None:
    assert found(Roster.parse(CATCH_ALL), address) == account


def test_postmaster_of_a_catch_all_domain() -> None:
    roster = Roster.parse(
        '[account."a@one.example"]\naliases = ["@two.example"]\n'
        '[account."b@one.example"]\naliases = ["postmaster@one.example"]'
    )
    assert found(roster, "postmaster@two.example") == "b@one.example"
    assert roster.is_local("two.example")
    assert not roster.is_local("three.example")


@pytest.mark.parametrize(
    ("name", "account"),
    [
        ("alice@example.org", "alice@example.org"),
        ("Alice@Example.org", "alice@example.org"),
        ("AL@example.org", "alice@example.org"),
        ("bob@example.org", "bob@example.org"),
        ("Bob@example.org", "Bob@example.org"),
        ("BOB@example.org", "Bob@example.org"),
        ('"x y"@example.org', '"x y"@example.org'),
        ("postmaster@example.org", None),
        ("postmaster", None),
        ("alice", None),
        ("<alice@example.org>", None),
        ("", None),
    ],
)
def test_login_names(name: str, account: str | None) -> None:
    who = Roster.parse(TEXT).login(name)
    assert (who.name if who else None) == account


@pytest.mark.parametrize("name", ["any@one.example", "@one.example", "postmaster@one.example"])
def test_catch_all_addresses_are_no_login_names(name: str) -> None:
    assert Roster.parse(CATCH_ALL).login(name) is None


@given(st.text(max_size=40))
def test_any_text_as_login_name(name: str) -> None:
    assert Roster.parse(CATCH_ALL).login(name) is None


def test_empty_file_has_no_accounts() -> None:
    roster = Roster.parse("")
    assert roster.accounts == ()
    assert roster.find(POSTMASTER) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("account = 3", "must be tables"),
        ("[account", "Expected"),
        ("[acount]", "unknown key"),
        ("[account]\nx = {}", "not an address"),
        ('[account]\n"a@b" = 3', "must be a table"),
        ('[account."a@b"]\nalias = []', "did you mean aliases?"),
        ('[account."a@b"]\naliases = "c@d"', "array of addresses"),
        ('[account."a@b"]\naliases = [3]', "array of addresses"),
        ('[account."a@b"]\naliases = ["c"]', "not an address"),
        ('[account."a@b"]\naliases = ["a@B"]', "is an address of"),
        ('[account."a@b"]\naliases = ["c@d", "c@D"]', "is an address of"),
        (
            '[account."a@b"]\naliases = ["c@d"]\n[account."c@d"]',
            'is an address of account."a@b" too',
        ),
        ('[account."a@b"]\n[account."a@B"]', "is an address of"),
        ('[account."' + "/" * 120 + '@b"]', "too long for the name of a directory"),
        ("x = " + "[" * 100_000, ""),
    ],
)
def test_errors_in_the_file(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Roster.parse(text, "accounts.toml")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Roster.parse('top = 1\n[account.x]\n[account."a@b"]\nalias = 1\npassword = 1\n', "f")
    assert len(caught.value.problems) == 4
    assert all(str(problem).startswith("f: ") for problem in caught.value.problems)


@given(st.text(max_size=80) | st.text("[account.\"]=\n'a@b{},", max_size=60))
def test_any_text_parses_or_raises_configuration_error(text: str) -> None:
    problems: tuple[Problem, ...] | None = None
    try:
        Roster.parse(text)
    except ConfigurationError as error:
        problems = error.problems
    assert problems != ()


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("alice@example.org", "alice@example.org"),
        ("a/b@c", "a%2Fb@c"),
        ("a%2Fb@c", "a%252Fb@c"),
        ('"../.."@c', '"..%2F.."@c'),
    ],
)
def test_account_directories_are_escaped(name: str, directory: str) -> None:
    assert Account(name).directory == directory
    assert Account(".x").directory == "%2Ex"
