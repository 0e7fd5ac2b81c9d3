"""`fastlisten account folders`, `usage` and `rebuild`: tables, documents, exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.accounts import write_accounts
from support.mail_store import deliver, inbox, index_of

from fastlisten.cli.main import main
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.folders import create, find
from fastlisten.mail.store.interface import Flag, StoreMode

ALICE = "alice@example.org"

MESSAGE = b"Subject: x\r\n\r\nx\r\n"

ACCOUNTS = f"""
[account."{ALICE}"]
quota.messages = 7
[account."bob@example.org"]
"""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Account = Callable[..., Ran]


@pytest.fixture
def account(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Account:
    """Run `fastlisten account` with a configuration whose data is in `tmp_path`."""
    file = tmp_path / "fastlisten.toml"
    file.write_text(
        f'[server]\ndata-directory = "{tmp_path}"\nquota.bytes = "1MiB"\n'
        '[server.listener.smtp]\nbind = "127.0.0.1:2525"\nprotocol = "smtp"\n'
    )
    write_accounts(tmp_path / "accounts.toml", ACCOUNTS)

    def run(action: str, *arguments: str) -> Ran:
        code = main(["account", action, *arguments, "--config", str(file)])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    """Return alice's Maildir with two messages, and one in each of two folders."""
    root = tmp_path / "mail" / ALICE
    for _ in range(2):
        deliver(str(root), MESSAGE)
    with index_of(root) as index:
        look(index, inbox(index).id)
        store(index, inbox(index).id, [1], StoreMode.ADD, Flag.SEEN)
        create(index, "Sent", "Sent")
        create(index, "Work/Ä")
        deliver(f"{root}/.Sent", MESSAGE)
    Path(root, ".Work.&AMQ-", "cur", "1.other:2,S").write_bytes(b"four")
    return root


def validity(root: Path, name: str) -> int:
    with index_of(root) as index:
        return find(index, name).uidvalidity


def test_folders(mail: Path, account: Account) -> None:
    done = account("folders", ALICE)
    assert (done.code, done.err) == (0, "")
    numbers = [validity(mail, name) for name in ("INBOX", "Sent", "Work/Ä")]
    size = len(MESSAGE)
    assert [line.split() for line in done.out.splitlines()] == [
        ["MESSAGES", "UNSEEN", "SIZE", "UIDVALIDITY", "ROLE", "FOLDER"],
        ["2", "1", str(2 * size), str(numbers[0]), "INBOX"],
        ["1", "1", str(size), str(numbers[1]), "Sent", "Sent"],
        ["1", "0", "4", str(numbers[2]), "Work/Ä"],
    ]
    document = json.loads(account("folders", ALICE, "--json").out)
    assert document["folders"][1] == {
        "name": "Sent",
        "messages": 1,
        "unseen": 1,
        "size": size,
        "uidvalidity": numbers[1],
        "role": "Sent",
        "subscribed": True,
    }


def test_usage(mail: Path, account: Account) -> None:
    done = account("usage")
    used = 3 * len(MESSAGE) + 4
    assert [line.split() for line in done.out.splitlines()] == [
        ["BYTES", "QUOTA", "MESSAGES", "QUOTA", "ACCOUNT"],
        [str(used), "1048576", "4", "7", ALICE],
        ["0", "1048576", "0", "-", "bob@example.org"],
    ]
    document = json.loads(account("usage", "--json", ALICE).out)
    assert document["accounts"] == [
        {"name": ALICE, "bytes": used, "messages": 4, "quota": {"bytes": 1048576, "messages": 7}}
    ]
    assert not (mail.parent / "bob@example.org").exists()


def test_rebuild(mail: Path, account: Account, caplog: pytest.LogCaptureFixture) -> None:
    before = validity(mail, "Sent")
    done = account("rebuild", ALICE)
    assert done == Ran(
        0,
        f"made the index of {ALICE} again: 4 messages in 3 folders; clients will load them again\n",
        "",
    )
    assert validity(mail, "Sent") > before
    assert caplog.messages == []  # nothing was lost
    assert account("rebuild", "bob@example.org") == Ran(0, "it has no mail\n", "")


def test_mail_of_a_removed_account(mail: Path, account: Account, tmp_path: Path) -> None:
    write_accounts(tmp_path / "accounts.toml", "# nobody\n")
    assert account("folders", ALICE).code == 0
    document: dict[str, Any] = json.loads(account("usage", ALICE, "--json").out)
    assert document["accounts"][0]["messages"] == 4
    assert document["accounts"][0]["quota"] == {"bytes": 1048576, "messages": None}


@pytest.mark.parametrize("action", ["folders", "usage", "rebuild"])
def test_errors(
    mail: Path, account: Account, tmp_path: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = account(action, "carol@example.org")
    assert nobody == Ran(2, "", "carol@example.org: there is no such account\n")
    assert account(action, "not an address").code == 2
    (mail / "index.lock").unlink()
    (mail / "index.lock").mkdir()
    failed = account(action, ALICE)
    assert (failed.code, failed.out) == (1, "")
    assert "index.lock: Is a directory\n" in failed.err
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    other = account(action, ALICE)
    assert other.code == 1
    assert other.err.endswith("run this as root, or as that user\n")
    (tmp_path / "accounts.toml").write_text("[acount]\n")
    assert account(action, ALICE).code == 2
    (tmp_path / "accounts.toml").unlink()
    assert "does not exist: there are no accounts yet" in account(action, ALICE).err
