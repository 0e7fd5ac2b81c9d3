"""A relay that can say anything at any moment, and a client of it.

A script says for each step what is done instead of the usual reply: octets, each item a segment of
its own, and the ends and pauses below. The relay keeps what it has got and whether it has taken it,
so that a test can compare what our side believes with what happened. It is made of blocking sockets
and threads: nothing of what is tested is used to test it.
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
    """What a relay does beside saying something."""

    CLOSE = "close"
    RESET = "reset"
    #: Say nothing until the other side goes.
    SILENCE = "silence"
    #: Wait until the other side's host has all that was said: what follows is a later segment.
    GAP = "gap"
    #: The usual reply.
    USUAL = "usual"


Action = bytes | Do

#: The replies of a relay that does what it should, by step.
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
    """A relay.

    Attributes:
        steps: what is done, by step: a verb, ``220``, ``.`` for the end of a message; ``RCPT 2`` is
            the second RCPT of a session only.
        once: the steps are those of the first session; later ones go as usual.
        midst: what is done when so many octets of a message have come; None for nothing.
        extensions: what EHLO offers.
        tls: for STARTTLS.
        answers: what is said to the lines that follow AUTH.
        port: where, on 127.0.0.1.
        commands: all that came.
        messages: those that came whole, dots as they came.
        kept: those of them that it has accepted then, and in its turn.
        refused: it has refused DATA, or a message, by 5xx when that was its turn, or in the midst.
        begun: connections so far.
        open: connections now.
    """

    steps: dict[str, Sequence[Action]] = field(default_factory=dict)
    once: bool = False
    midst: tuple[int, Sequence[Action]] | None = None
    extensions: Sequence[str] = ("SIZE 0", "8BITMIME", "SMTPUTF8")
    tls: ssl.SSLContext | None = None
    answers: list[bytes] = field(default_factory=list)
    port: int = 0
    commands: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
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
        message, midst = self.buffer, script.midst
        while message != b".\r\n" and message[-5:] != b"\r\n.\r\n":
            if midst is not None and len(message) >= midst[0]:
                try:
                    self.perform(midst[1], b"")
                finally:
                    script.refused |= self.said.startswith(b"5")
                midst = None
            self.more()
        whole = bytes(message)
        self.buffer = bytearray()
        script.messages.append(whole)
        try:
            self.do(".")
        finally:
            script.refused |= self.said.startswith(b"5")
            if self.said.startswith((b"250 ", b"250-")):
                script.kept.append(whole)

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
        """Do what the script has for a step."""
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
        gone.register(self.socket, 0)  # POLLERR and POLLHUP are told of in any case
        while left[0] and not gone.poll(0):
            fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, left)
            time.sleep(0.0002)


@contextlib.contextmanager
def scripted(script: Script) -> Iterator[Script]:
    """Run a relay; at the end no connection to it may be left."""
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
class Heard:
    """What our client hears.

    Attributes:
        recipients: the reply to each RCPT.
        message: the reply to the message; empty if it was not sent, for want of recipients.
    """

    recipients: list[bytes] = field(default_factory=list)
    message: bytes = b""

    @property
    def last(self) -> bytes:
        """The reply that says what becomes of the mail."""
        return self.message or self.recipients[-1]


def _written(reply: Reply) -> bytes:
    """Return a reply as SMTP writes it."""
    return f"{reply}\r\n".encode()


def hand_over(
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
) -> Heard:
    """Hand a message to a relay as a connection of ours does, and return what is heard.

    Nothing of the session may be left afterwards.

    Args:
        script: the relay, which runs.
        message: with line ends.
        loop: of `LOOPS`.
        envelope: with the sender; one without parameters if none is given.
        recipients: addresses, one RCPT each.
        wait: as `smtp.relay-timeout`.
        tls: as `smtp.relay-tls`.
        user: to log in as, with the password "secret"; empty for nobody.
        socket_path: of a relay on a Unix socket, instead of the script's.
        idle: send the message only when the relay has said something without being asked.
    """
    heard = Heard()

    async def main() -> None:
        host, port = ("127.0.0.1", script.port) if not socket_path else (socket_path, 0)
        settings = RelaySettings(host, port, tls, "me.example", user, "secret", timeout=wait)
        relay = Relay(settings)
        session = RelaySession(relay, envelope or Envelope("a@b.example"))
        for recipient in recipients:
            try:
                await session.recipient(EnvelopeRecipient(parse_mailbox(recipient)))
                heard.recipients.append(b"250 ")
            except RelayError as error:
                heard.recipients.append(_written(error.reply))
        while idle and not session._smtp._heard:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        if session.recipients:
            try:
                heard.message = b"250 " + (await session.send(BytesSource(message))).encode()
            except RelayError as error:
                heard.message = _written(error.reply)
        session.quit()
        await relay.close()
        assert relay.sessions == 0

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    return heard
