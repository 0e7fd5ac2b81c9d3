"""An account that `fastlisten serve` offers over imaps, for tests of real clients.

Rules of this file: no test in it, and nothing that only one client needs. The name and password
have the characters that clients must quote.
"""

from __future__ import annotations

import contextlib
import imaplib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import authority
from support.mail_store import deliver
from support.real_server import ALICE, HOST, PASSWORDS, serving
from support.waiting import PATIENCE

__all__ = ["ImapAccount", "served_account"]


class ImapAccount:
    """An account, and the way to it.

    Attributes:
        port: of imaps, on 127.0.0.1; the certificate is valid for that address.
        authority: a file with the certificate to trust.
        root: the account's Maildir.
    """

    user = ALICE
    password = PASSWORDS[ALICE]

    def __init__(self, port: int, authority: str, root: Path) -> None:
        self.port = port
        self.authority = authority
        self.root = root
        self.clients = contextlib.ExitStack()

    def client(self) -> imaplib.IMAP4:
        """Return a client that has logged in."""
        context = authority().client_context()
        client = self.clients.enter_context(
            imaplib.IMAP4_SSL(HOST, self.port, ssl_context=context, timeout=PATIENCE)
        )
        # imaplib sends a literal and the end of its line apart: without this, the second waits
        # for the acknowledgement of the first, 40 ms for each APPEND.
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.login(self.user, self.password)
        return client

    def deliver(self, *messages: bytes) -> None:
        """Put messages into the inbox, as another process does."""
        for message in messages:
            deliver(str(self.root), message)


@pytest.fixture
def served_account(tmp_path: Path) -> Iterator[ImapAccount]:
    """Serve an account of its own for a test."""
    directory = tmp_path / "server"
    directory.mkdir()
    with serving(directory, "imaps") as mail:
        root = mail.program.directory / "data" / "mail" / ALICE
        account = ImapAccount(mail.port("imaps"), mail.authority, root)
        with account.clients:
            yield account
