"""Quotas: what the accounts file says, what the configuration says, and which of them holds."""

from __future__ import annotations

import pytest
from support.config import load_text

from fastlisten.errors import ConfigurationError
from fastlisten.mail.accounts.quota import LARGEST, NO_QUOTA, OwnQuota, Quota
from fastlisten.mail.accounts.roster import Roster

ACCOUNT = '[account."a@b.example"]\n'


def own_quota(value: str) -> OwnQuota:
    (account,) = Roster.parse(f"{ACCOUNT}quota = {value}\n", "accounts.toml").accounts
    return account.quota


@pytest.mark.parametrize(
    ("value", "own", "common", "result"),
    [
        ("{}", OwnQuota(), Quota(5, 6), Quota(5, 6)),
        ('{ bytes = "5GiB" }', OwnQuota(5 << 30), Quota(5, 6), Quota(5 << 30, 6)),
        ("{ bytes = 1 }", OwnQuota(1), NO_QUOTA, Quota(1, None)),
        ('{ bytes = "10MB", messages = 7 }', OwnQuota(10**7, 7), NO_QUOTA, Quota(10**7, 7)),
        ("{ messages = false }", OwnQuota(None, 0), Quota(5, 6), Quota(5, None)),
        ("{ bytes = false, messages = 7 }", OwnQuota(0, 7), Quota(5, 6), Quota(None, 7)),
    ],
)
def test_own_quota_overrides_the_common_one(
    value: str, own: OwnQuota, common: Quota, result: Quota
) -> None:
    assert own_quota(value) == own
    assert own.over(common) == result


def test_quota_may_be_written_as_a_table() -> None:
    text = f'{ACCOUNT}[account."a@b.example".quota]\nbytes = "1KiB"\n'
    assert Roster.parse(text).accounts[0].quota == OwnQuota(1024)
    text = f'{ACCOUNT}quota.bytes = "1KiB"\n'
    assert Roster.parse(text).accounts[0].quota == OwnQuota(1024)


BYTES = f'bytes, or a size such as "256KiB", 1 to {LARGEST}, or false'
MESSAGES = "a whole number, 1 or more, or false"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('"5GiB"', 'quota = "5GiB": must be a table; allowed: { bytes ='),
        ("true", "quota = true: must be a table; allowed: { bytes ="),
        ("{ bytes = true }", f"quota.bytes = true: this is not a size; allowed: {BYTES}"),
        ('{ bytes = "5 TB" }', f'quota.bytes = "5 TB": this is not a size; allowed: {BYTES}'),
        ("{ bytes = 0 }", "quota.bytes = 0: this is too small; for no limit, write false"),
        (f"{{ bytes = {LARGEST + 1} }}", "this is too large"),
        ("{ messages = 1.5 }", f"quota.messages = 1.5: this is not a whole number; {'allowed: '}"),
        ('{ messages = "7" }', f"this is not a whole number; allowed: {MESSAGES}"),
        ("{ messages = -1 }", "quota.messages = -1: this is too small"),
        ("{ byte = 1 }", "quota.byte: unknown key; allowed: bytes, messages; did you mean bytes?"),
    ],
)
def test_mistakes_are_reported_with_key_line_and_what_is_allowed(value: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        own_quota(value)
    (only,) = caught.value.problems
    assert str(only).startswith('accounts.toml:2: account."a@b.example".quota')
    assert problem in str(only)


def test_all_mistakes_have_their_lines() -> None:
    text = f'{ACCOUNT}\n[account."c@d.example".quota]\nbytes = 0\nmessages = 0\n'
    with pytest.raises(ConfigurationError) as caught:
        Roster.parse(text, "f")
    assert [problem.line for problem in caught.value.problems] == [4, 5]


LISTENER = '[server.listener.x]\nbind = "127.0.0.1:2525"\nprotocol = "smtp"\n'


def test_rows_of_the_configuration() -> None:
    text = f'[server]\nquota = {{ bytes = "2GiB", messages = 1000 }}\n{LISTENER}'
    config = load_text(text)
    assert config.process["server.quota.bytes"] == 2 << 30
    assert config.process["server.quota.messages"] == 1000
    config = load_text(LISTENER)
    assert config.process["server.quota.bytes"] is None
    assert config.process["server.quota.messages"] is None


@pytest.mark.parametrize("line", ["quota.bytes = 0", 'quota.messages = "many"', "quota.byte = 1"])
def test_mistakes_in_the_configuration(line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_text(f"[server]\n{line}\n{LISTENER}")
    assert str(caught.value.problems[0]).startswith("<config>:2: server.quota.")
