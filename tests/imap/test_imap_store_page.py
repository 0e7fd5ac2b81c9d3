"""docs/imap-store.md: its program serves as the page says, with clients' daily work.

Rules of this file: the program and its configuration are taken from the page; only the port
and where the certificate lies are replaced.
"""

from __future__ import annotations

import imaplib
import mailbox
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import cheap_hash, write_accounts
from support.documented_programs import Ports, run, trust
from support.waiting import PATIENCE

from fastlisten.mail.store import base

PAGE = Path(__file__).parents[2] / "docs" / "imap-store.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside these tests")

MESSAGE = "From: a@example.org\nSubject: number {0}\nDate: Tue, 3 Feb 2026 10:00:0{0} +0000\n\nHi\n"


def blocks() -> dict[str, str]:
    """Return the page's program and configuration, by the name in their first line."""
    return dict(
        re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.M)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    box = mailbox.mbox(tmp_path / "list.mbox")
    for number in range(3):
        box.add(MESSAGE.format(number).encode())
    box.close()
    (tmp_path / "data").mkdir()
    secret = cheap_hash("wonder")
    users = [f'[account."{name}@example.org"]\npassword = "{secret}"\n' for name in ("a", "b")]
    write_accounts(tmp_path / "data" / "accounts.toml", "".join(users))
    yield tmp_path
    assert not (tmp_path / "data" / "mail").exists()


def log_in(ports: Ports, folder: Path, user: str) -> imaplib.IMAP4_SSL:
    client = imaplib.IMAP4_SSL(
        "localhost", ports[8993], ssl_context=trust(folder), timeout=PATIENCE
    )
    client.login(f"{user}@example.org", "wonder")
    return client


def check(ports: Ports, folder: Path) -> None:
    with log_in(ports, folder, "a") as one:
        assert one.select() == ("OK", [b"3"])
        assert one.search(None, "SUBJECT", '"number 1"') == ("OK", [b"2"])
        _, data = one.fetch("2", "(INTERNALDATE RFC822.SIZE BODY.PEEK[])")
        assert isinstance(data[0], tuple)
        assert data[0][1] == MESSAGE.format(1).replace("\n", "\r\n").encode()
        assert b'INTERNALDATE " 3-Feb-2026 10:00:01 +0000"' in data[0][0]
        assert one.store("2", "+FLAGS", "(\\Seen Read)")[0] == "OK"
        assert one.status("INBOX", "(MESSAGES UNSEEN)")[1] == [b"INBOX (MESSAGES 3 UNSEEN 2)"]
        assert one.append("INBOX", "", "", b"Subject: x\r\n\r\nx")[0] == "NO"
    with log_in(ports, folder, "a") as again, log_in(ports, folder, "b") as other:
        again.select()
        other.select()
        assert again.search(None, "KEYWORD", "Read") == ("OK", [b"2"])
        assert other.search(None, "SEEN") == ("OK", [b""])


def test_program_serves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = Ports()
    for name, text in blocks().items():
        (folder / name).write_text(ports.replace(text.replace("/etc/ssl/mail", str(folder))))
    monkeypatch.setenv("ARCHIVE", "list.mbox")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))
    command = [sys.executable, "-X", "dev", "-m", "fastlisten", "serve", "archive.toml"]
    run(command, folder, ports, check)


def test_program_is_short() -> None:
    assert len(blocks()["archive.py"].splitlines()) <= 50


def test_names_of_methods_exist() -> None:
    text = PAGE.read_text()
    for kind, name in re.findall(r"`(BaseAccount|BaseFolder|Messages)\.(\w+)", text):
        assert hasattr(getattr(base, kind), name), (kind, name)
