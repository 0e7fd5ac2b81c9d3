"""mutt reads, flags, copies and deletes mail, typed in at a terminal.

Rules of this file: keys are typed by mutt itself (`push`), and it runs on a pseudo-terminal, which
it insists on. What counts is what the account has in the end.
"""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from pathlib import Path

import pytest
from support.environment import own_environment
from support.external_programs import which
from support.imap_account import ImapAccount, served_account
from support.imap_sync import ImapSide, filled
from support.marks import external
from support.waiting import PATIENCE

account = served_account

CONFIGURATION = """
set folder = "imaps://localhost:{port}/"
set spoolfile = "+INBOX"
set imap_user = "{user}"
set imap_pass = "{password}"
set ssl_ca_certificates_file = "{authority}"
set imap_condstore = {fast}
set imap_qresync = {fast}
set header_cache = "{cache}"
set confirmcreate = no
set confirmappend = no
set delete = yes
set quit = yes
set move = no
set sleep_time = 0
set mail_check_stats = no
set wait_key = no
set record = ""
"""


def mutt(account: ImapAccount, directory: Path, keys: str, fast: str = "no") -> None:
    """Run mutt on the inbox, type keys, and leave it."""
    path = directory / "muttrc"
    path.write_text(
        CONFIGURATION.format(
            port=account.port,
            user=account.user,
            password=account.password.replace('"', '\\"'),
            authority=account.authority,
            cache=directory / "cache",
            fast=fast,
        )
    )
    master, slave = pty.openpty()
    shown: list[bytes] = []
    command = [which("mutt") or "", "-n", "-F", str(path), "-e", f"push '{keys}<quit>'"]
    environment = {**own_environment(), "TERM": "xterm", "HOME": str(directory), "LANG": "C.UTF-8"}
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    ) as process:
        os.close(slave)

        def read() -> None:
            try:
                while data := os.read(master, 65536):
                    shown.append(data)
            except OSError:
                pass  # the terminal's other end is closed

        reader = threading.Thread(target=read)
        reader.start()
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            process.kill()
            reader.join()
            os.close(master)
    assert code == 0, b"".join(shown)[-3000:]


@external("mutt")
@pytest.mark.parametrize("fast", ["no", "yes"])
def test_work_in_the_inbox(account: ImapAccount, tmp_path: Path, fast: str) -> None:
    ours = ImapSide(account.client())
    inbox = filled(ours, "INBOX", "mail", 12)
    mutt(
        account,
        tmp_path,
        "<tag-pattern>~s mail-1<enter><tag-prefix><copy-message>+Copies<enter>"
        "<untag-pattern>~A<enter>"
        "<delete-pattern>~s mail-3<enter><delete-pattern>~s mail-4<enter>"
        "<search>~s mail-5<enter><flag-message><sync-mailbox>"
        "<search>~s mail-6<enter><display-message><exit>",
        fast,
    )
    copies = ours.read("Copies")
    assert set(copies) == {"mail-1", "mail-10", "mail-11"}
    assert all(copies[name].content == inbox[name].content for name in copies)
    now = ours.read("INBOX")
    assert set(now) == set(inbox) - {"mail-3", "mail-4"}
    assert "\\Flagged" in now["mail-5"].flags
    assert "\\Seen" in now["mail-6"].flags
    # A second run has the header cache, and sees what others have done.
    account.deliver(b"Subject: later\r\n\r\nx\r\n")
    ours.remove("INBOX", ["mail-7"])
    mutt(account, tmp_path, "<search>~s later<enter><display-message><exit>", fast)
    now = ours.read("INBOX")
    assert set(now) == set(inbox) - {"mail-3", "mail-4", "mail-7"} | {"later"}
    assert "\\Seen" in now["later"].flags
