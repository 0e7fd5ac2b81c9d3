"""The IMAP engine without a connection: input in any pieces, every command answered at once.

Rules of this file: no expectations; a driver keeps what happened.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastlisten.handlers.imap.engine.commands import (
    AppendMessage,
    AppendOctets,
    Authenticate,
    AuthenticateResponse,
    Cancelled,
    Enable,
    Event,
    Goodbye,
    Idle,
    Refusal,
)
from fastlisten.handlers.imap.engine.engine import ImapEngine, Limits
from fastlisten.handlers.imap.engine.session_states import State

__all__ = ["ImapDriver", "command", "octets_one_by_one", "refused"]

_NOT_ANSWERED = (AppendOctets, Cancelled, Goodbye, Refusal)


class ImapDriver:
    """A session, and a user of the engine who does what every client wants.

    Attributes:
        engine: the engine.
        events: what it has reported; octets of a message that follow each other are one event.
        output: what it has written.
        failing: commands of these types are answered with NO.
        challenges: what Authenticate and its responses are answered with before they succeed.
    """

    def __init__(
        self,
        state: State = State.SELECTED,
        limits: Limits | None = None,
        *,
        encrypted: bool = True,
        failing: tuple[type, ...] = (),
        challenges: Iterable[bytes] = (),
    ) -> None:
        self.engine = ImapEngine(limits or Limits(), encrypted, state)
        self.events: list[Event] = []
        self.output = b""
        self.failing = failing
        self.challenges = list(challenges)

    def send(self, data: bytes) -> bytes:
        """Give input to the engine, do what it reports, return what it writes."""
        self.engine.receive(data)
        while (event := self.engine.next_event()) is not None:
            self._keep(event)
            if not isinstance(event, _NOT_ANSWERED):
                self._answer(event)
        output = self.engine.output()
        self.output += output
        return output

    def _keep(self, event: Event) -> None:
        last = self.events[-1] if self.events else None
        if isinstance(event, AppendOctets) and isinstance(last, AppendOctets):
            self.events[-1] = AppendOctets(last.data + event.data)
        else:
            self.events.append(event)

    def _answer(self, event: Event) -> None:
        engine = self.engine
        if isinstance(event, self.failing):
            engine.no("Failed")
        elif isinstance(event, AppendMessage | Idle):
            engine.accept()
        elif isinstance(event, Authenticate | AuthenticateResponse) and self.challenges:
            engine.challenge(self.challenges.pop(0))
        else:
            if isinstance(event, Enable):
                engine.enable(frozenset(event.names))
            engine.ok("Done")


def octets_one_by_one(data: bytes) -> Iterable[bytes]:
    """Return the octets of data, each by itself."""
    return (data[index : index + 1] for index in range(len(data)))


def command(line: bytes, state: State = State.SELECTED, enabled: Iterable[str] = ()) -> Event:
    """Return the only event of a command, given without tag and CRLF; it is not answered."""
    engine = ImapEngine(Limits(starttls=True), state is not State.NOT_AUTHENTICATED, state)
    if state is State.NOT_AUTHENTICATED and line.upper() != b"STARTTLS":
        engine.encrypted = True
    engine.enable(frozenset(enabled))
    engine.receive(b"a1 " + line + b"\r\n")
    event = engine.next_event()
    assert event is not None, "incomplete"
    assert engine.tag == b"a1"
    assert engine.buffered == 0
    return event


def refused(line: bytes, state: State = State.SELECTED, enabled: Iterable[str] = ()) -> str:
    """Return why a command, given as to `command`, is refused."""
    event = command(line, state, enabled)
    assert isinstance(event, Refusal), event
    return event.text
