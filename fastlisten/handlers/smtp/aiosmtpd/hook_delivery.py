"""Delivery to a handler written for aiosmtpd: to handle_RCPT and handle_DATA.

Rules of this file: when a hook is asked, and to whom its answer goes; what an answer means is in
transaction_hooks.py. Such a handler gets a message in one piece (`envelope.content`), so that this
is the one way of delivery that holds messages whole, each up to the handler's data_size_limit.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from fastlisten.handlers.smtp.aiosmtpd.hook_replies import HookReply
from fastlisten.mail.delivery_interface import DeliveryOwner
from fastlisten.mail.dsn.outcome import Outcome
from fastlisten.mail.envelope import EnvelopeRecipient

__all__ = ["HookDelivery", "MessageHooks"]


class MessageHooks(Protocol):
    """What hooks say to a message; HookDispatcher implements it. Nothing raises an Exception."""

    @property
    def asks_about_recipients(self) -> bool:
        """Whether a recipient may have to wait for a hook."""

    def take_recipient(self, recipient: EnvelopeRecipient) -> HookReply:
        """Answer for a recipient without a hook."""

    async def recipient(self, recipient: EnvelopeRecipient) -> HookReply:
        """Ask for a recipient."""

    async def message(self, content: bytes) -> HookReply:
        """Hand the message over."""

    def recipients(self) -> list[str]:
        """Return the addresses that the handler has accepted."""


class HookDelivery:
    """One message for a handler's hooks; implements `Delivery`.

    Args:
        hooks: the handler's.
        owner: hears from hooks that suspend.
        run: begins a coroutine, and returns when it has ended or suspended.
    """

    __slots__ = ("_accepted", "_content", "_early", "_hooks", "_owner", "_run", "_tell")

    def __init__(
        self,
        hooks: MessageHooks,
        owner: DeliveryOwner,
        run: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._hooks = hooks
        self._owner = owner
        self._run = run
        self._accepted = 0
        self._content = bytearray()  # a list of small pieces would take far more memory
        self._early: HookReply | None = None  # the answer of a hook that did not suspend
        self._tell: Callable[[HookReply], None] | None = None  # who waits for one that did

    @property
    def name(self) -> str:
        """Nothing: handlers name their messages themselves."""
        return ""

    def add_recipient(self, recipient: EnvelopeRecipient) -> HookReply | None:
        """Ask handle_RCPT, if there is such a hook."""
        if not self._hooks.asks_about_recipients:
            # Most handlers have no hook for RCPT; a coroutine would cost as much as the command.
            return self._noted(self._hooks.take_recipient(recipient))
        answer = self._ask(self._hooks.recipient(recipient), self._recipient_answered)
        return None if answer is None else self._noted(answer)

    def _noted(self, answer: HookReply) -> HookReply:
        self._accepted += answer.accepted
        return answer

    def _recipient_answered(self, answer: HookReply) -> None:
        self._owner.recipient_answered(self._noted(answer))

    def add(self, data: bytes) -> None:
        """Append to the message."""
        self._content += data

    @property
    def full(self) -> bool:
        """Whether to wait: never, the handler wants all of it."""
        return False

    def commit(self) -> Sequence[HookReply] | None:
        """Give the message to handle_DATA; its one reply stands for all recipients."""
        content = bytes(self._content)
        self._content.clear()
        answer = self._ask(self._hooks.message(content), self._message_answered)
        return None if answer is None else self._for_all(answer)

    def _message_answered(self, answer: HookReply) -> None:
        self._owner.message_answered(self._for_all(answer))

    def _for_all(self, answer: HookReply) -> list[HookReply]:
        return [answer] * max(1, self._accepted)

    def abort(self) -> None:
        """Drop the message. A hook that runs is cancelled by its session."""
        self._content.clear()
        self._tell = None

    def outcomes(self) -> list[Outcome]:
        """Return nothing: DSN is not offered to these handlers."""
        return []

    def destinations(self) -> list[str]:
        """Return the accepted addresses."""
        return [f"<{address}>" for address in self._hooks.recipients()]

    def _ask(
        self, question: Coroutine[Any, Any, HookReply], tell: Callable[[HookReply], None]
    ) -> HookReply | None:
        """Ask a hook; return its answer if it did not suspend, else have it told later."""
        self._run(self._answered(question))
        answer, self._early = self._early, None
        if answer is None:
            self._tell = tell
        return answer

    async def _answered(self, question: Coroutine[Any, Any, HookReply]) -> None:
        answer = await question
        tell, self._tell = self._tell, None
        if tell is None:
            self._early = answer
        else:
            tell(answer)
