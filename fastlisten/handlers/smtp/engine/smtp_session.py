"""The state of an SMTP session, and operations that several commands share.

Rules of this file: all data of a session is declared here. Functions that work on it are in
base_commands.py and extension_commands.py (commands), message_input.py (messages) and answers.py
(answers of the engine's user).
"""

from __future__ import annotations

from fastlisten.handlers.smtp.engine.chunk_reader import ChunkReader
from fastlisten.handlers.smtp.engine.input_buffer import InputBuffer
from fastlisten.handlers.smtp.engine.reasons import reason_of
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import Limits
from fastlisten.handlers.smtp.engine.session_states import NEXT, SessionState
from fastlisten.handlers.smtp.engine.smtp_events import (
    Event,
    Recipient,
    Refusal,
    Reset,
    Transaction,
)

__all__ = ["RESET", "Session"]

RESET = Reset()

#: Refusals that are kept until somebody asks for them: more than there are between two batches of
#: replies, but for messages of LMTP with more recipients than that.
_MOST_REFUSALS = 256

# CPython 3.11 takes 40 ns to look up a member of an enum.
_COMMAND = SessionState.COMMAND
_CLOSING = SessionState.CLOSING


class Session:
    """One session.

    Attributes:
        authenticated: AUTH has succeeded.
        chunked: the transaction's message comes by BDAT, and its first chunk has been begun.
        chunks: reads them; made for the first BDAT.
        client_name: what the client called itself by EHLO or HELO, empty before.
        encrypted: the session runs over TLS.
        errors: commands that were refused with 5xx.
        extended: the client said EHLO.
        input: input that has not been parsed yet.
        limits: what holds for the listener.
        lmtp: LMTP is spoken.
        locked: nothing can be sent before AUTH.
        refusal: what will be said at the end of a message or chunk that is being dropped.
        refusal_about: the transaction of a chunk that is being dropped.
        refusals: the negative replies that `take_refusals` has not returned yet.
        refused: negative replies, all of them.
        rejected: recipients that were rejected since the last accepted message.
        size: octets of the message so far.
        state: where the session is; changed by `enter`.
        taken: messages that were accepted.
        transaction: the one in progress, or None.
        unsent: complete replies that are to be written to the client.
        verb: of the command that was executed last, empty for what is none.
        waiting: the event that waits for its answer.
    """

    __slots__ = (
        "authenticated",
        "chunked",
        "chunks",
        "client_name",
        "encrypted",
        "errors",
        "extended",
        "input",
        "limits",
        "lmtp",
        "locked",
        "refusal",
        "refusal_about",
        "refusals",
        "refused",
        "rejected",
        "size",
        "state",
        "taken",
        "transaction",
        "unsent",
        "verb",
        "waiting",
    )

    def __init__(self, limits: Limits, source: InputBuffer, encrypted: bool) -> None:
        self.authenticated = False
        self.chunked = False
        self.chunks: ChunkReader | None = None
        self.client_name = ""
        self.encrypted = encrypted
        self.errors = 0
        self.extended = False
        self.input = source
        self.limits = limits
        self.lmtp = limits.protocol == "lmtp"
        self.locked = limits.auth_required
        self.refusal = b""
        self.refusal_about: Transaction | None = None
        self.refusals: list[Refusal] | None = None
        self.refused = 0
        self.rejected = 0
        self.size = 0
        self.state: SessionState = _COMMAND
        self.taken = 0
        self.transaction: Transaction | None = None
        self.unsent: list[bytes] = []
        self.verb = b""
        self.waiting: Event | None = None

    @property
    def protocol(self) -> str:
        """What is spoken, as RFC 5321 and 3848 name it without their letters for TLS and AUTH."""
        return "LMTP" if self.lmtp else "ESMTP" if self.extended else "SMTP"

    def enter(self, state: SessionState) -> None:
        """Change the state.

        Raises:
            RuntimeError: it cannot follow the current one (session_states.NEXT).
        """
        if state not in NEXT[self.state]:
            raise RuntimeError(f"{state.name} cannot follow {self.state.name}")
        self.state = state

    # --- negative replies ---------------------------------------------------------------------

    def refuse(
        self,
        answer: bytes,
        recipients: tuple[Recipient, ...] = (),
        transaction: Transaction | None = None,
        sender: str | None = None,
    ) -> None:
        """Reply to a command that is not carried out; hang up after too many 5xx.

        Args:
            answer: the complete reply.
            recipients: whom it is about.
            transaction: which it is about, if not the one in progress.
            sender: whom it is about, if not the sender of that.
        """
        if answer.startswith(b"5"):
            self.errors += 1
            if self.errors > self.limits.max_errors:
                self.hang_up(self.limits.too_many_errors, recipients, transaction, sender)
                return
        self.note(answer, recipients, transaction, sender)
        self.unsent.append(answer)

    def note(
        self,
        answer: bytes,
        recipients: tuple[Recipient, ...] = (),
        transaction: Transaction | None = None,
        sender: str | None = None,
    ) -> None:
        """Keep a negative reply for whoever logs it, and count it; as in `refuse`."""
        about = transaction or self.transaction
        reason = reason_of(answer, self.verb)
        # In LMTP a message has a reply for each recipient.
        times = max(1, len(recipients)) if self.lmtp else 1
        self.refused += times
        self.limits.counts.rejection(answer, reason, times)
        if sender is None and about is not None:
            sender = about.sender
        refusal = Refusal(answer, self.verb, reason, sender, recipients)
        if self.refusals is None:
            self.refusals = [refusal]
        elif len(self.refusals) < _MOST_REFUSALS:
            self.refusals.append(refusal)

    def take_refusals(self) -> list[Refusal]:
        """Return the negative replies since it was called last."""
        refusals, self.refusals = self.refusals, None
        return refusals or []

    def hang_up(
        self,
        answer: bytes,
        recipients: tuple[Recipient, ...] = (),
        transaction: Transaction | None = None,
        sender: str | None = None,
    ) -> None:
        """Give the last reply; the rest as in `refuse`."""
        if not answer.startswith(b"2"):
            self.note(answer, recipients, transaction, sender)
        self.unsent.append(answer)
        self.enter(_CLOSING)
        self.transaction = None
        self.input.discard()

    def out_of_order(self, first: str) -> Refused:
        """Return the verdict on a command that another must precede."""
        if self.locked:
            if self.limits.offers_tls(self.encrypted):
                return Refused(530, "5.7.0", "Authentication required; use STARTTLS, then AUTH")
            return Refused(530, "5.7.0", "Authentication required")
        return Refused(503, "5.5.1", f"Need {first} command")

    def no_recipients(self) -> Refused:
        """Return the refusal of a message without recipients (in LMTP as RFC 2033 4.2 says)."""
        return Refused(503 if self.lmtp else 554, "5.5.1", "No valid recipients")

    # --- transactions -------------------------------------------------------------------------

    def reset(self) -> Event | None:
        """End the transaction, if there is one."""
        if self.transaction is None:
            return None
        self.transaction = None
        return RESET

    def for_each(self, answer: bytes) -> bytes:
        """Return the reply to a whole message: in LMTP it is given for each recipient."""
        if self.lmtp and self.transaction is not None:
            return answer * len(self.transaction.recipients)
        return answer

    def take_message(self) -> None:
        """Count a message that was accepted."""
        self.taken += 1
        self.rejected = 0
        self.limits.counts.message("accepted", self.size)

    def forget(self) -> None:
        """Forget what the client said, as if it had just been greeted."""
        self.client_name = ""
        self.extended = False
        self.authenticated = False
        self.locked = self.limits.auth_required
        self.transaction = None
        self.input.discard()
