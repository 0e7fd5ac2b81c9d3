"""fetchmail fetches all mail over imaps, and deletes what it has.

Rules of this file: what it hands on is looked at, and what is left in the account.
"""

from __future__ import annotations

from pathlib import Path

from support.external_programs import run
from support.imap_account import ImapAccount, served_account
from support.imap_sync import ImapSide, filled
from support.marks import external

account = served_account

#: fetchmail's exit code: there was no mail.
NOTHING = 1

CONFIGURATION = """
poll localhost protocol imap port {port} user "{user}" password "{password}"
ssl sslcertfile "{authority}" sslcertck mda "cat >>{out}" fetchall
"""


@external("fetchmail")
def test_fetch_all(account: ImapAccount, tmp_path: Path) -> None:
    ours = ImapSide(account.client())
    inbox = filled(ours, "INBOX", "mail", 12)
    path, out = tmp_path / "fetchmailrc", tmp_path / "out"
    path.write_text(
        CONFIGURATION.format(
            port=account.port,
            user=account.user,
            # A quoted word ends at either kind of quote.
            password="".join(
                f"\\{ord(one):03o}" if one in "\"'\\" else one for one in account.password
            ),
            authority=account.authority,
            out=out,
        )
    )
    path.chmod(0o600)
    files = ("--idfile", tmp_path / "ids", "--pidfile", tmp_path / "pid", "--nosyslog")
    run("fetchmail", "--fetchmailrc", path, *files)
    fetched = out.read_bytes().replace(b"\r\n", b"\n")
    for one in inbox.values():
        body = one.content.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
        assert body in fetched
    assert fetched.count(b"\nSubject: mail-") == len(inbox)
    assert ours.read("INBOX") == {}
    run("fetchmail", "--fetchmailrc", path, *files, expect=(NOTHING,))
