"""A relay with configurable replies, and clients of a server that relays to it.

The relay is a plain server with threads, so that none of the code under test is used to test it. It
counts its connections: every one must end.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastlisten.config.values.network import HostPort
from support.accounts import cheap_hash
from support.smtp_client import SmtpClient
from support.smtp_harness import Served, serve
from support.waiting import until

USERS = f"""
[account."alice@example.org"]
aliases = ["al@example.org"]
password = "{cheap_hash("wonder")}"

[account."bob@example.org"]
password = "{cheap_hash("builder")}"
"""

FOREIGN = "carol@elsewhere.example"

#: The usual extensions of a relay.
EXTENSIONS = ("PIPELINING", "SIZE 99999999", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")


def plain(name: str, password: str) -> bytes:
    """Return an AUTH PLAIN command."""
    return b"AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()) + b"\r\n"


def sessions_of(served: Served) -> int:
    """Return the number of sessions with the relay."""
    assert served.handler.relay is not None
    return served.handler.relay.sessions


AUTH = plain("alice@example.org", "wonder")


@dataclass
class Relay:
    """A relay.

    Attributes:
        port: its port on 127.0.0.1.
        extensions: the extensions it offers.
        answers: replies other than the usual ones, by the beginning of a command line (in upper
            case); ``.`` is the end of a message, ``220`` the greeting. None closes the connection.
        once: keys of `answers` that are used only once.
        tls: the context for TLS.
        implicit: whether TLS is implicit.
        messages: accepted messages: MAIL command, RCPT commands, content without dot stuffing.
        commands: all command lines, in order.
        cut: what was received of the last incomplete message.
        begun: connections so far.
        open: connections now.
        pause: called before each reply, with the command.
    """

    port: int = 0
    extensions: tuple[str, ...] = EXTENSIONS
    answers: dict[str, str | None] = field(default_factory=dict)
    once: set[str] = field(default_factory=set)
    tls: ssl.SSLContext | None = None
    implicit: bool = False
    messages: list[tuple[str, list[str], bytes]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    cut: bytes = b""
    begun: int = 0
    open: int = 0
    pause: Callable[[str], object] | None = None

    def answer(self, command: str, usual: str) -> str | None:
        if self.pause is not None:
            self.pause(command)
        for key in list(self.answers):
            if command.upper().startswith(key):
                found = self.answers.get(key, usual)
                if key in self.once:
                    del self.answers[key]
                return found
        return usual

    @property
    def endpoint(self) -> HostPort:
        return HostPort("127.0.0.1", self.port)

    def at_rest(self) -> bool:
        return self.open == 0


@contextlib.contextmanager
def relaying(**values: Any) -> Iterator[Relay]:
    """Run a relay; check that no connection to it is left."""
    relay = Relay(**values)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        relay.port = listening.getsockname()[1]
        threads: list[threading.Thread] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                relay.begun += 1
                relay.open += 1
                thread = threading.Thread(target=_converse, args=(relay, connection))
                threads.append(thread)
                thread.start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield relay
            deadline = time.monotonic() + 20
            while relay.open and time.monotonic() < deadline:
                time.sleep(0.002)
            assert relay.open == 0
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            acceptor.join(20)
            for thread in threads:
                thread.join(20)


def _converse(relay: Relay, connection: socket.socket) -> None:
    try:
        connection.settimeout(20)
        with contextlib.suppress(OSError, EOFError), contextlib.closing(connection):
            if relay.implicit:
                assert relay.tls is not None
                connection = relay.tls.wrap_socket(connection, server_side=True)
            _session(relay, connection)
            connection.close()
    finally:
        relay.open -= 1


def _session(relay: Relay, connection: socket.socket, greeted: bool = False) -> None:
    stream = connection.makefile("rwb")

    def say(text: str | None) -> bool:
        if text is None:
            raise EOFError
        stream.write(text.encode("latin-1") + b"\r\n")
        stream.flush()
        return text[0] in "23"

    if not greeted:
        say(relay.answer("220", "220 relay.example ESMTP"))
    sender, recipients = "", list[str]()
    while line := stream.readline():
        command = line.decode().rstrip("\r\n")
        relay.commands.append(command)
        verb = command.upper().partition(" ")[0]
        if verb == "EHLO":
            lines = ["relay.example", *relay.extensions]
            usual = "\r\n".join([*(f"250-{word}" for word in lines[:-1]), f"250 {lines[-1]}"])
            say(relay.answer(command, usual))
        elif verb == "MAIL":
            if say(relay.answer(command, "250 2.1.0 Ok")):
                sender, recipients = command, []
        elif verb == "RCPT":
            if say(relay.answer(command, "250 2.1.5 Ok")):
                recipients.append(command)
        elif verb == "DATA":
            if say(relay.answer(command, "354 go on")):
                received: list[bytes] = []
                while not received or received[-1] != b".\r\n":
                    received.append(stream.readline())
                    if not received[-1]:
                        relay.cut = b"".join(received)
                        raise EOFError
                content = b"".join(received)
                said = relay.answer(".", "250 2.0.0 queued as 4711")
                if said is not None and said.startswith("250"):
                    text = (b"\r\n" + content)[:-3].replace(b"\r\n.", b"\r\n")[2:]
                    relay.messages.append((sender, recipients, text))
                say(said)
        elif verb == "BDAT":
            content = stream.read(int(command.split()[1]))
            if say(relay.answer(command, "250 2.0.0 queued as 4711")):
                relay.messages.append((sender, recipients, content))
        elif verb == "STARTTLS" and relay.tls is not None:
            if say(relay.answer(command, "220 go on")):
                stream.close()
                with relay.tls.wrap_socket(connection, server_side=True) as encrypted:
                    _session(relay, encrypted, greeted=True)
                return
        elif verb == "AUTH":
            say(relay.answer(command, "235 2.7.0 welcome"))
        elif verb == "RSET":
            say(relay.answer(command, "250 2.0.0 Ok"))
        elif verb == "QUIT":
            say(relay.answer(command, "221 2.0.0 bye"))
            return
        else:
            say(relay.answer(command, "500 5.5.1 what?"))


@contextlib.contextmanager
def serving(directory: Path, relay: Relay | None, **options: Any) -> Iterator[Served]:
    """Serve smtp with implicit TLS, accounts with passwords, and a relay."""
    if relay is not None:
        options = {"relay": relay.endpoint, "relay_tls": "none", "relay_timeout": 20.0, **options}
    options = {"accounts": USERS, "tls": "implicit", **options}
    with serve(directory, **options) as served:
        yield served


@contextlib.contextmanager
def client_of(served: Served, auth: bytes = AUTH) -> Iterator[SmtpClient]:
    """Connect, send EHLO, and authenticate unless `auth` is empty."""
    client = SmtpClient(served.connect())
    try:
        assert client.say(b"EHLO client.example.com").startswith(b"250")
        if auth:
            assert client.say(auth).startswith(b"235 ")
        yield client
    finally:
        client.close()


def rcpt(*addresses: str) -> bytes:
    return b"".join(f"RCPT TO:<{address}>\r\n".encode() for address in addresses)


@contextlib.contextmanager
def session(
    tmp_path: Path, relay: Relay | None, **options: Any
) -> Iterator[tuple[Served, SmtpClient]]:
    """Serve, and yield an authenticated client; check that nothing is left behind."""
    with serving(tmp_path, relay, **options) as served:
        with client_of(served) as client:
            yield served, client
        until(lambda: sessions_of(served) == 0)
        until(lambda: not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()])
        until(lambda: not served.left_over())


def set_relay_timeout(served: Served, timeout: float) -> None:
    """Change the timeout of the relay client."""
    assert served.handler.relay is not None
    object.__setattr__(served.handler.relay.settings, "timeout", timeout)
