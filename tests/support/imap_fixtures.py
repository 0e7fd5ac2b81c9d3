"""Fixtures of tests of the imap server; a test file binds them to names of its own.

server, client, box, other = imap_fixtures.EVERY

Rules of this file: one server for a file of tests; each test has sessions of its own, and a mailbox
whose name no other test has, so that none sees what another has done.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.imap_expect import new_mailbox
from support.imap_server import MESSAGE, ImapServer, Lines, serve_imap

__all__ = ["EVERY", "served_for_a_file"]


@pytest.fixture(scope="module", name="server")
def served_for_a_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImapServer]:
    """The server."""
    with serve_imap(tmp_path_factory.mktemp("imap")) as served:
        yield served


@pytest.fixture(name="client")
def session(server: ImapServer) -> Iterator[Lines]:
    """A session that has logged in."""
    client = server.lines()
    yield client
    client.close()


@pytest.fixture(name="box")
def selected_mailbox(client: Lines) -> str:
    """The name of a mailbox with four messages, none recent, which the session has selected."""
    name = new_mailbox(client, *[MESSAGE] * 4)
    client.ok(f"SELECT {name}")
    client.ok(f"SELECT {name}")
    return name


@pytest.fixture(name="other")
def other_session(server: ImapServer, box: str) -> Iterator[Lines]:
    """Another session that has selected the mailbox."""
    client = server.lines(box)
    yield client
    client.close()


EVERY = (served_for_a_file, session, selected_mailbox, other_session)
