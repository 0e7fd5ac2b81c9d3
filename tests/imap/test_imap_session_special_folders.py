"""A new account's folders with a special use, as clients are told of them (RFC 6154)."""

from __future__ import annotations

from pathlib import Path

from support.imap_server import NO_FOLDERS, serve_imap

ALL = {f"folders.{use.lower()}": use for use in ("Drafts", "Sent", "Junk", "Trash", "Archive")}


def test_new_account_has_folders_with_their_uses(tmp_path: Path) -> None:
    with serve_imap(tmp_path, options=ALL) as server:
        client = server.lines()
        uses = [
            b'* LIST (\\HasNoChildren \\%b) "/" %b' % (use, use)
            for use in (b"Archive", b"Drafts", b"Junk", b"Sent", b"Trash")
        ]
        assert client.ok('LIST (SPECIAL-USE) "" *') == uses
        assert client.ok('LIST "" *') == [
            *uses[:2],
            b'* LIST (\\HasNoChildren) "/" INBOX',
            *uses[2:],
        ]
        assert len(client.ok('LSUB "" *')) == 5
        # RFC 6154 5.2: the use can be given once more, and moves.
        client.ok("CREATE Spam (USE (\\Junk))")
        assert b'* LIST (\\HasNoChildren \\Junk) "/" Spam' in client.ok('LIST (SPECIAL-USE) "" *')
        assert len(client.ok('LIST (SPECIAL-USE) "" *')) == 5


def test_folders_are_named_by_the_configuration(tmp_path: Path) -> None:
    options = {**NO_FOLDERS, "folders.sent": "Mail/Gesendet"}
    with serve_imap(tmp_path, options=options) as server:
        client = server.lines()
        assert client.ok('LIST (SPECIAL-USE) "" *') == [
            b'* LIST (\\HasNoChildren \\Sent) "/" Mail/Gesendet'
        ]


def test_deleted_folder_stays_deleted(tmp_path: Path) -> None:
    with serve_imap(tmp_path, options=ALL) as server:
        server.lines().ok("DELETE Archive")
    with serve_imap(tmp_path, options=ALL) as server:
        assert not any(b"Archive" in line for line in server.lines().ok('LIST (SPECIAL-USE) "" *'))
