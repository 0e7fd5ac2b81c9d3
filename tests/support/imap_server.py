"""The imap handler served in a thread, and clients: imaplib, and one that sees every line.

Rules of this file: sessions run over TLS, as logins need it, on the native transports. The account
has a cheap hash, so that a login costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import imaplib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fastlisten import testing
from fastlisten.handlers.imap.handler import ImapHandler
from fastlisten.runtime.listener import Listener
from support.accounts import cheap_hash, write_accounts
from support.mail_store import deliver
from support.waiting import PATIENCE

__all__ = ["ADDRESS", "MESSAGE", "NO_FOLDERS", "PASSWORD", "ImapServer", "Lines", "serve_imap"]

ADDRESS, PASSWORD = "alice@example.org", "wonder"

MESSAGE = (
    b"From: Bob <bob@example.com>\r\nTo: alice@example.org\r\nSubject: Hello\r\n"
    b"Date: Tue, 3 Feb 2026 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n\r\nbody text\r\n"
)

#: Options with which a new account has INBOX only.
NO_FOLDERS: dict[str, None] = {
    f"folders.{use}": None for use in ("drafts", "sent", "junk", "trash", "archive")
}

_LITERAL = re.compile(rb"\{([0-9]+)\}\r\n\Z")


class Lines:
    """A client that sends commands as they are, and returns the responses one by one."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.stream = connection.makefile("rb")
        self.count = 0
        self.greeting = self.response()

    def response(self) -> bytes:
        """Read one response with its literals, without its CRLF."""
        whole = self.stream.readline()
        while match := _LITERAL.search(whole):
            whole += self.stream.read(int(match[1]))
            whole += self.stream.readline()
        assert whole.endswith(b"\r\n"), whole
        return whole[:-2]

    def send(self, data: bytes) -> None:
        """Send octets."""
        self.connection.sendall(data)

    def say(self, command: str | bytes) -> list[bytes]:
        """Send a command; return its responses, the tagged one last and without its tag."""
        self.count += 1
        tag = b"t%d" % self.count
        octets = command.encode() if isinstance(command, str) else command
        self.send(b"%b %b\r\n" % (tag, octets))
        return self.answers(tag)

    def answers(self, tag: bytes) -> list[bytes]:
        """Read up to the tagged response."""
        found: list[bytes] = []
        while True:
            one = self.response()
            if one.startswith(tag + b" "):
                return [*found, one[len(tag) + 1 :]]
            found.append(one)

    def ok(self, command: str | bytes) -> list[bytes]:
        """Send a command that succeeds; return its untagged responses."""
        *untagged, tagged = self.say(command)
        assert tagged.startswith(b"OK "), (command, tagged)
        return untagged

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()
        self.connection.close()


class ImapServer:
    """A handler that is being served.

    Attributes:
        directory: its data directory.
        port: the port on 127.0.0.1.
        handler: it.
        listener: that of the handler.
        context: the context for clients.
        faults: calls of the loop's exception handler.
        stop: begins to stop the server.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.handler: ImapHandler | None = None
        self.listener: Listener | None = None
        self.context: ssl.SSLContext | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.faults: list[dict[str, Any]] = []
        self.stop: Callable[[], object] = lambda: None
        self._clients = contextlib.ExitStack()

    @property
    def root(self) -> Path:
        """The account's Maildir."""
        return self.directory / "mail" / ADDRESS

    @property
    def certificate(self) -> Path:
        """A file with the server's certificate, for clients that are not in Python."""
        path = self.directory / "certificate.pem"
        if not path.exists():
            path.write_text(ssl.get_server_certificate(("127.0.0.1", self.port)))
        return path

    def deliver(self, *messages: bytes) -> None:
        """Put messages into the inbox, as another process does."""
        for message in messages or (MESSAGE,):
            deliver(str(self.root), message)

    def client(self) -> imaplib.IMAP4_SSL:
        """Return a client that has logged in."""
        client = self._clients.enter_context(
            imaplib.IMAP4_SSL("127.0.0.1", self.port, ssl_context=self.context, timeout=PATIENCE)
        )
        # imaplib sends a literal and the end of its line apart: without this, the second waits
        # for the acknowledgement of the first, 40 ms for each APPEND.
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.login(ADDRESS, PASSWORD)
        return client

    def connect(self, source: str = "127.0.0.1") -> Lines:
        """Return a client, at an address of this host, that has been greeted."""
        address = ("127.0.0.1", self.port)
        connection = socket.create_connection(address, PATIENCE, (source, 0))
        assert self.handler is not None
        if self.handler.settings.tls_implicit:
            connection = self.encrypt(connection)
        client = Lines(connection)
        self._clients.callback(client.close)
        return client

    def encrypt(self, connection: socket.socket) -> ssl.SSLSocket:
        """Perform the handshake."""
        assert self.context is not None
        return self.context.wrap_socket(connection, server_hostname="127.0.0.1")

    def lines(self, mailbox: str = "", enable: str = "") -> Lines:
        """Return a client that has logged in, and perhaps selected a mailbox."""
        client = self.connect()
        client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
        if enable:
            client.ok(f"ENABLE {enable}")
        if mailbox:
            client.ok(f"SELECT {mailbox}")
        return client

    def close_clients(self) -> None:
        """Close all clients."""
        self._clients.close()


@contextlib.contextmanager
def serve_imap(
    directory: Path,
    kind: type[ImapHandler] = ImapHandler,
    tls: Any = "implicit",
    idle_timeout: float = 0.0,
    quota: str = "{}",
    options: Mapping[str, Any] | None = None,
    accounts: str = "",
) -> Iterator[ImapServer]:
    """Serve the handler in a thread, with one account.

    Args:
        directory: its data directory.
        kind: the handler's class.
        tls: as in `testing.serve`.
        idle_timeout: as in `testing.serve`.
        quota: the account's, in TOML.
        options: as in `testing.serve`; unless they say otherwise, the account gets no folders, and
            as many sessions as a test opens.
        accounts: other accounts, in TOML.
    """
    options = {**NO_FOLDERS, "sessions-per-user": None, **(options or {})}
    write_accounts(
        directory / "accounts.toml",
        f'[account."{ADDRESS}"]\npassword = "{cheap_hash(PASSWORD)}"\nquota = {quota}\n{accounts}',
    )
    server = ImapServer(directory)
    ready, failures = threading.Event(), list[BaseException]()

    async def main() -> None:
        server.loop = loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: server.faults.append(context))
        finished = asyncio.Event()
        server.stop = lambda: loop.call_soon_threadsafe(finished.set)
        async with testing.serve(
            kind,
            tls=tls,
            data_directory=str(directory),
            drain_timeout=0.01,
            idle_timeout=idle_timeout,
            options=options,
        ) as served:
            server.port, server.context = served.port, served.client_context
            assert isinstance(served.handler, ImapHandler)
            server.handler, server.listener = served.handler, served.listener
            ready.set()
            await finished.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        if not failures:
            yield server
    finally:
        server.close_clients()
        if thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has been stopped
                server.stop()
        thread.join()
        if failures:
            raise failures[0]
        assert server.faults == []
