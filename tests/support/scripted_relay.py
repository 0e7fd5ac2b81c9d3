"""A relay that can send anything at any moment, and a client of it.

A script tells for each step what to do instead of the usual reply: octets, each item in a segment
of its own, or one of the actions below. The relay keeps what it has received and whether it has
accepted it, so that a test can compare that with what our client was told. It consists of blocking
sockets and threads: none of the code under test is used to test it.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import enum
import fcntl
import select
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay.message_source import BytesSource
from fastlisten.mail.relay.relay import Relay, RelaySettings
from fastlisten.mail.relay.relay_error import RelayError
from fastlisten.mail.relay.session import RelaySession
from fastlisten.mail.reply import Reply
from support.loops import LOOPS


class Do(enum.Enum):
    """What a relay does besides sending octets."""

    CLOSE = "close"
    RESET = "reset"
    #: Send nothing until the client disconnects.
    SILENCE = "silence"
    #: Wait until the client's kernel has acknowledged everything: what follows is another segment.
    GAP = "gap"
    #: The usual reply.
    USUAL = "usual"


Action = bytes | Do

#: The usual replies, by step.
USUAL: dict[str, bytes] = {
    "220": b"220 relay.example ESMTP\r\n",
    "EHLO": b"",  # made of the extensions
    "HELO": b"250 relay.example\r\n",
    "STARTTLS": b"220 2.0.0 go ahead\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
    "MAIL": b"250 2.1.0 Ok\r\n",
    "RCPT": b"250 2.1.5 Ok\r\n",
    "DATA": b"354 go on\r\n",
    ".": b"250 2.0.0 queued as 4711\r\n",
    "BDAT": b"250 2.0.0 queued as 4711\r\n",
    "RSET": b"250 2.0.0 Ok\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}


@dataclass
class Script:
    """A relay and its script.

    Attributes:
        steps: actions by step: a verb, ``220``, or ``.`` for the end of a message; ``RCPT 2`` is
            the second RCPT of a session only.
        once: whether `steps` applies to the first session only.
        midway: actions when so many octets of a message have been received; None for none.
        extensions: the extensions that EHLO offers.
        tls: the context for STARTTLS.
        answers: replies to the lines that follow AUTH.
        port: its port on 127.0.0.1.
        commands: all commands received.
        messages: all complete messages, with dot stuffing.
        kept: those of them that it then accepted.
        unfinished: what came of messages that had no end.
        refused: whether it has refused DATA or a message by 5xx, also during the message.
        begun: connections so far.
        open: connections now.
    """

    steps: dict[str, Sequence[Action]] = field(default_factory=dict)
    once: bool = False
    midway: tuple[int, Sequence[Action]] | None = None
    extensions: Sequence[str] = ("SIZE 0", "8BITMIME", "SMTPUTF8")
    tls: ssl.SSLContext | None = None
    answers: list[bytes] = field(default_factory=list)
    port: int = 0
    commands: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    unfinished: list[bytes] = field(default_factory=list)
    refused: bool = False
    begun: int = 0
    open: int = 0


class _Ended(Exception):
    pass


class _Session:
    def __init__(self, script: Script, connection: socket.socket) -> None:
        self.script = script
        self.socket = connection
        self.buffer = bytearray()
        self.said = b""  # at the last step
        self.seen: dict[str, int] = {}
        self.steps: dict[str, Sequence[Action]] = script.steps
        if script.once and script.begun > 1:
            self.steps = {}

    def run(self) -> None:
        script = self.script
        self.do("220")
        while True:
            line = self.line()
            script.commands.append(line)
            verb = line.upper().partition(" ")[0]
            if self.said.startswith(b"334") and script.answers:
                self.perform([script.answers.pop(0)], b"")
                continue
            if verb == "BDAT":
                while len(self.buffer) < int(line.split()[1]):
                    self.more()
                script.messages.append(bytes(self.buffer))
                self.buffer.clear()
            try:
                self.do(verb if verb in USUAL else "RSET")
            finally:
                script.refused |= verb == "DATA" and self.said.startswith(b"5")
            if verb == "QUIT":
                return
            if verb == "DATA" and self.said.startswith(b"354"):
                self.message()
            elif verb == "STARTTLS" and self.said.startswith(b"220") and script.tls is not None:
                self.socket = script.tls.wrap_socket(self.socket, server_side=True)

    def message(self) -> None:
        script = self.script
        try:
            self.whole_message()
        except (_Ended, OSError):
            script.unfinished.append(bytes(self.buffer))
            raise
        whole = bytes(self.buffer)
        self.buffer = bytearray()
        script.messages.append(whole)
        try:
            self.do(".")
        finally:
            script.refused |= self.said.startswith(b"5")
            if self.said.startswith((b"250 ", b"250-")):
                script.kept.append(whole)

    def whole_message(self) -> None:
        script = self.script
        message, midway = self.buffer, script.midway
        while message != b".\r\n" and message[-5:] != b"\r\n.\r\n":
            if midway is not None and len(message) >= midway[0]:
                try:
                    self.perform(midway[1], b"")
                finally:
                    script.refused |= self.said.startswith(b"5")
                midway = None
            self.more()

    def line(self) -> str:
        while (end := self.buffer.find(b"\n")) < 0:
            self.more()
        line = self.buffer[: end + 1].decode("utf-8", "replace")
        del self.buffer[: end + 1]
        return line.strip()

    def more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise _Ended
        self.buffer += data

    def do(self, step: str) -> None:
        """Perform the script's actions for a step."""
        self.seen[step] = number = self.seen.get(step, 0) + 1
        usual = USUAL[step]
        if step == "EHLO":
            lines = ["relay.example", *self.script.extensions]
            usual = b"".join(
                f"250{' ' if index == len(lines) else '-'}{line}\r\n".encode()
                for index, line in enumerate(lines, 1)
            )
        usually = self.steps.get(step, (Do.USUAL,))
        actions = self.steps.get(f"{step} {number}", usually)
        self.perform(actions, usual)

    def perform(self, actions: Iterable[Action], usual: bytes) -> None:
        self.said = b""
        for action in actions:
            if action is Do.CLOSE:
                raise _Ended
            if action is Do.RESET:
                option = struct.pack("ii", 1, 0)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
                raise _Ended
            if action is Do.SILENCE:
                while True:
                    self.more()
            if action is Do.GAP:
                self.gap()
                continue
            data = usual if isinstance(action, Do) else action
            self.said += data
            self.socket.sendall(data)

    def gap(self) -> None:
        left = array.array("i", [1])
        gone = select.poll()
        gone.register(self.socket, 0)  # POLLERR and POLLHUP are always reported
        while left[0] and not gone.poll(0):
            fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, left)
            time.sleep(0.0002)


@contextlib.contextmanager
def scripted(script: Script) -> Iterator[Script]:
    """Run a relay; check that no connection to it is left."""
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        script.port = listening.getsockname()[1]

        def converse(connection: socket.socket) -> None:
            session = _Session(script, connection)
            try:
                with contextlib.suppress(OSError, _Ended):
                    session.run()
            finally:
                session.socket.close()
                connection.close()
                script.open -= 1

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.settimeout(20)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                script.begun += 1
                script.open += 1
                threads.append(threading.Thread(target=converse, args=(connection,)))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield script
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            acceptor.join(20)
            for thread in threads:
                thread.join(20)
    assert script.open == 0


@dataclass
class ClientReplies:
    """The replies that our client gets.

    Attributes:
        recipients: the reply to each RCPT.
        message: the reply to the message; empty if it was not sent because no recipient was
            accepted.
    """

    recipients: list[bytes] = field(default_factory=list)
    message: bytes = b""

    @property
    def last(self) -> bytes:
        """The reply that decides about the mail."""
        return self.message or self.recipients[-1]


def _written(reply: Reply) -> bytes:
    """Return a reply as it is on the wire."""
    return f"{reply}\r\n".encode()


def relay_message(
    script: Script,
    message: bytes,
    loop: str = "asyncio",
    envelope: Envelope | None = None,
    recipients: Sequence[str] = ("carol@elsewhere.example",),
    wait: float = 10.0,
    tls: str = "none",
    user: str = "",
    idle: bool = False,
    socket_path: str = "",
) -> ClientReplies:
    """Relay a message as an SMTP connection does; return the replies to the client.

    Checks that the session leaves nothing behind.

    Args:
        script: the running relay.
        message: the message, with line ends.
        loop: a key of `LOOPS`.
        envelope: the envelope with the sender; by default one without parameters.
        recipients: addresses, one RCPT each.
        wait: as `smtp.relay-timeout`.
        tls: as `smtp.relay-tls`.
        user: authenticate as this user with the password "secret"; empty for no AUTH.
        socket_path: path of a Unix socket, instead of the script's port.
        idle: send the message only once the relay has sent something unasked.
    """
    replies = ClientReplies()

    async def main() -> None:
        host, port = ("127.0.0.1", script.port) if not socket_path else (socket_path, 0)
        settings = RelaySettings(host, port, tls, "me.example", user, "secret", timeout=wait)
        relay = Relay(settings)
        session = RelaySession(relay, envelope or Envelope("a@b.example"))
        for recipient in recipients:
            try:
                await session.recipient(EnvelopeRecipient(parse_mailbox(recipient)))
                replies.recipients.append(b"250 ")
            except RelayError as error:
                replies.recipients.append(_written(error.reply))
        while idle and not session._smtp._interrupted:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        if session.recipients:
            try:
                replies.message = b"250 " + (await session.send(BytesSource(message))).encode()
            except RelayError as error:
                replies.message = _written(error.reply)
        session.quit()
        await relay.close()
        assert relay.sessions == 0

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    return replies
