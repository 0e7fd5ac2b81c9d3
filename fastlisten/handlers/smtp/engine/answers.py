"""The answers of the SMTP engine's user to its events, and what they do to a session.

Rules of this file: one method per kind of answer; nothing of the input is looked at. The methods
are described in engine.py, as part of the engine.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence

from fastlisten.handlers.smtp.engine import replies
from fastlisten.handlers.smtp.engine.extension_commands import Extensions
from fastlisten.handlers.smtp.engine.smtp_events import (
    Auth,
    Command,
    Content,
    Mail,
    Recipient,
    Response,
    StartTls,
    Transaction,
)
from fastlisten.handlers.smtp.engine.smtp_session import SessionState

__all__ = ["Answers"]


class Answers(Extensions):
    """A session whose events can be answered."""

    __slots__ = ()

    def accept(self, answer: bytes = b"") -> None:
        """Answer the waiting event with yes.

        After the answer to a StartTls the transaction is over, and `securing` is true, unless
        more was received meanwhile; then the session is over. After the answer to an Auth or a
        Response `authenticated` is true.

        Args:
            answer: the complete reply, empty for the usual words. In LMTP a reply to a final
                Content is given for each recipient.

        Raises:
            RuntimeError: no event waits for an answer.
        """
        event = self._waiting
        self._waiting = None
        if isinstance(event, Recipient):
            assert self.transaction is not None
            self.transaction.recipients.append(event)
            self._replies.append(answer or replies.RECIPIENT_OK)
        elif isinstance(event, Mail):
            self.transaction = event.transaction
            self.chunked = False
            self._replies.append(answer or replies.SENDER_OK)
        elif isinstance(event, Content):
            if self._lmtp:
                answer = self._for_each(answer or replies.OK)
            self.transaction = None
            self._rejected = 0
            self._take()
            self._replies.append(answer or replies.OK)
        elif isinstance(event, StartTls):
            if self.buffered:
                self._hang_up(self._limits.too_early)
                return
            self._replies.append(answer or replies.GO_AHEAD)
            self._state = SessionState.SECURING
            self._forget()
        elif isinstance(event, Command):
            self._carry_out(event, answer)
        elif event is not None:  # Auth or Response
            self._limits.counts.login("succeeded")
            self._replies.append(answer or replies.AUTHENTICATED)
            self._state = SessionState.COMMAND
            self.authenticated = True
            self._locked = False
        else:
            raise RuntimeError("no event waits for an answer")

    def reject(self, answer: bytes) -> None:
        """Answer the waiting event with no.

        Args:
            answer: the complete reply, 4xx or 5xx; after 421 the connection is to be closed. In
                LMTP a reply to a final Content is given for each recipient.

        Raises:
            RuntimeError: no event waits for an answer.
        """
        event, self._waiting = self._waiting, None
        if event is None:
            raise RuntimeError("no event waits for an answer")
        transaction = self.transaction
        recipients: tuple[Recipient, ...] = ()
        if isinstance(event, Recipient):
            recipients = (event,)
        elif isinstance(event, Content):
            answer = self._for_each(answer)
            if transaction is not None:
                recipients = tuple(transaction.recipients)
            self.transaction = None
            self._limits.counts.message("deferred" if answer[:1] == b"4" else "rejected")
        elif isinstance(event, Mail):
            transaction = event.transaction
        elif isinstance(event, Auth | Response):
            self._count_login(answer)
            if isinstance(event, Response):
                self._state = SessionState.COMMAND
        if answer.startswith(b"421"):
            self._hang_up(answer, recipients, transaction)
        elif isinstance(event, Recipient) and answer.startswith(b"5"):
            self._rejected += 1
            if self._rejected > self._limits.max_recipients:
                self._hang_up(self._limits.too_many_rejected, recipients)
            else:
                self._reply(answer, recipients)
        else:
            self._refuse(answer, recipients, transaction)

    def challenge(self, data: bytes) -> None:
        """Answer the waiting Auth or Response with a question; a Response will follow.

        Args:
            data: what the client is asked, not encoded yet.

        Raises:
            RuntimeError: no Auth and no Response waits for an answer.
        """
        if not isinstance(self._waiting, Auth | Response):
            raise RuntimeError("no step of an AUTH dialogue waits for an answer")
        self._waiting = None
        self._replies.append(b"334 " + binascii.b2a_base64(data, newline=False) + b"\r\n")
        self._state = SessionState.DIALOGUE

    def answer(self, answers: Sequence[bytes]) -> None:
        """Answer the waiting final Content, in LMTP for each recipient by itself.

        Args:
            answers: one complete reply for each of the transaction's recipients, in their order;
                in SMTP one for all. If one is 421 the connection is to be closed.

        Raises:
            RuntimeError: no final Content waits for an answer.
            ValueError: there are not as many replies as needed.
        """
        transaction = self.transaction
        if not isinstance(self._waiting, Content) or transaction is None:
            raise RuntimeError("no message waits for an answer")
        if len(answers) != (len(transaction.recipients) if self._lmtp else 1):
            raise ValueError("in LMTP each recipient needs a reply, in SMTP the message needs one")
        self._waiting = None
        kinds = {answer[:1] for answer in answers}
        if b"2" in kinds:
            self._rejected = 0
            self._take()
        else:
            self._limits.counts.message("deferred" if b"4" in kinds else "rejected")
        everybody = tuple(transaction.recipients)
        whom = [(recipient,) for recipient in everybody] if self._lmtp else [everybody]
        *others, last = zip(answers, whom, strict=True)
        for answer, recipients in others:
            self._reply(answer, recipients)
        self.transaction = None
        if any(answer.startswith(b"421") for answer in answers):
            self._hang_up(*last, transaction)
        elif kinds == {b"5"}:
            self._refuse(*last, transaction)
        else:
            self._reply(*last, transaction)

    def _reply(
        self,
        answer: bytes,
        recipients: tuple[Recipient, ...],
        transaction: Transaction | None = None,
    ) -> None:
        """Give a reply that ends nothing and is no error of the client's."""
        if not answer.startswith(b"2"):
            self._note(answer, recipients, transaction)
        self._replies.append(answer)

    def _take(self) -> None:
        """Count a message that was accepted."""
        self.taken += 1
        self._limits.counts.message("accepted", self._size)

    def _count_login(self, answer: bytes) -> None:
        """Count a login that was refused; a command that was none has been no login."""
        if answer.startswith(b"535"):
            self._limits.counts.login("failed")
        elif answer.startswith(b"4"):
            self._limits.counts.login("deferred")

    def tls_started(self) -> None:
        """Begin anew, over TLS.

        Raises:
            RuntimeError: the engine did not give the go-ahead, or plaintext came after it.
        """
        if self._state is not SessionState.SECURING:
            raise RuntimeError("not waiting for a handshake")
        self._state = SessionState.COMMAND
        self.encrypted = True

    def _forget(self) -> None:
        """Forget what the client said, as if it had just been greeted."""
        self.client_name = ""
        self.extended = False
        self.authenticated = False
        self._locked = self._limits.auth_required
        self.transaction = None
        self.discard()
