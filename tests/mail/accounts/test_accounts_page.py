"""docs/accounts.md: its file loads, its commands run, its limits are current, its program works."""

from __future__ import annotations

import ast
import asyncio
import io
import re
import sys
from pathlib import Path
from types import CodeType

import pytest
from support.accounts import cheap_hash

from fastlisten.cli.main import main
from fastlisten.mail.accounts import accounts_file, passwords
from fastlisten.mail.accounts.roster import Roster
from fastlisten.mail.logins import failed_names, login_cache, logins, penalties, verification_queue
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import STALE_AFTER
from fastlisten.runtime.supervisor.login_penalties import LONGEST_ATTEMPT
from fastlisten.runtime.supervisor.remote_penalties import ANSWER_SECONDS, SILENCE

PAGE = (Path(__file__).parents[3] / "docs" / "accounts.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def sample(password: str) -> str:
    return re.sub(r'password = "[^"]*"', f'password = "{password}"', block("toml"))


def test_sample_file_loads() -> None:
    (account,) = Roster.parse(sample(cheap_hash("x"))).accounts
    assert account.name == "alice@example.org"
    assert len(account.aliases) == 3
    prefix = re.search(r'password = "([^"]*)\.\.\."', block("toml"))
    assert prefix is not None
    assert passwords.hash_password("x").startswith(prefix[1])


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(passwords, "DEFAULT", passwords.Argon2Parameters(8, 1, 1, 16, 32))
    lines = re.findall(r"^    fastlisten (account .*)$", PAGE, re.MULTILINE)
    assert len(lines) == 13
    Maildir(str(tmp_path / "fastlisten" / "mail" / "alice@example.org")).prepare()
    removed = False
    for line in lines:
        words = line.partition("#")[0].partition("<")[0].split()
        if removed and words[1] == "remove":  # so that the second way to remove finds an account
            assert main(["account", "add", words[2]]) == 0
        monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
        assert main(words) == 0
        removed = words[1] == "remove"


@pytest.mark.parametrize(
    "row",
    [
        f"| verifications at a time | {logins.AT_ONCE}, of {passwords.DEFAULT.memory // 1024} MiB ",
        f"| waiting for verification | {logins.WAITING} |",
        f"| attempts at a time from one address | {penalties.FREE}, ",
        f"| waiting attempts from one address | {penalties.WAITING} |",
        f"| after {penalties.FREE} failures | one at a time, 1, 2, 4, ... {penalties.LONGEST:.0f} ",
        f"| forgetting a failure | {failed_names.FORGOTTEN / 60:.0f} minutes after",
        f"| addresses remembered | {penalties.SIZE:,}, IPv6 by /64 |",
        f", at most {logins.LOGGED} a minute;",
        f"at most {passwords.MAX_PASSWORD} octets",
        f"after {STALE_AFTER // 3600} hours",
        f"fewest failures in the last {failed_names.FORGOTTEN / 60:.0f} minutes",
        {3600: "remembered for an hour"}[round(login_cache.LIFE)],
        {2: "changed less than two seconds ago"}[round(accounts_file.QUIET)],
        {60: "trusted after a minute"}[round(accounts_file.LONGEST)],
        {60: "or takes more than a minute"}[round(LONGEST_ATTEMPT)],
        {2: "no answer within two seconds"}[round(ANSWER_SECONDS)],
        {10: "a table of its own for the next ten"}[round(SILENCE)],
        {10: "wait for it for at most ten seconds"}[round(verification_queue.PATIENCE)],
        {6: "From six workers on"}[
            next(n for n in range(99) if logins.shared_verifications(n) > logins.AT_ONCE)
        ],
    ],
)
def test_limits_are_current(row: str) -> None:
    assert row in PAGE.replace("\n", " ")


def test_program_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "accounts.toml").write_text(sample(cheap_hash("x")))
    text = block("python").replace("/var/lib/fastlisten", str(tmp_path))
    code = compile(
        "from fastlisten.mail.delivery import PostOffice\n" + text,
        "accounts.md",
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
    )
    assert isinstance(code, CodeType)
    names: dict[str, object] = {}

    async def run() -> None:
        await eval(code, names)

    asyncio.run(run())
    names["office"].leave()  # type: ignore[attr-defined]
    assert len(list((tmp_path / "mail" / "alice@example.org" / "cur").iterdir())) == 1
    assert "Delivered(account='alice@example.org'" in capsys.readouterr().out
