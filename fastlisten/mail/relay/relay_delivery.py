"""Delivery to the relay, and into mailboxes here where a message has recipients of both kinds.

Rules of this file: the order of the two, and who may use the relay; SMTP is in session.py, files
are in delivery/. A message with both kinds of recipients:

    last octet ──> written, synced ──> relay gets it ──250──> moved into mailboxes ──> our 250
                         │ error           │ 4xx, 5xx, lost          │ error
                         v                 v                         v
                        4xx         relay's reply; nothing      4xx, although the relay has it:
                                    is delivered here           better twice than never

A message without recipients here waits for the relay in the spool. The relay is asked for each
recipient at once, so that the client learns which of them it refuses.

    recipient in a local domain      as in delivery/mailbox_delivery.py; never handed to the relay,
                                     which might send it back
    elsewhere, client logged in      the relay decides
    elsewhere, anybody else          550 5.7.1
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from fastlisten.mail.accounts.roster import Account, Roster
from fastlisten.mail.counts import Counts
from fastlisten.mail.delivery.mailbox_delivery import ACCEPTED, LOOKUP_FAILED, MailboxDelivery
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.delivery_interface import LoggingOwner
from fastlisten.mail.dsn.outcome import Outcome, relayed
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay.message_source import MessageSource
from fastlisten.mail.relay.own_addresses import is_own_address
from fastlisten.mail.relay.relay import Relay
from fastlisten.mail.relay.relay_error import LOOPS_BACK, RelayError
from fastlisten.mail.relay.session import RelaySession
from fastlisten.mail.reply import Reply

__all__ = ["RelayDelivery"]

_NEEDS_LOGIN = Reply(550, "5.7.1", "Relay access denied; authentication required")
_INTERNAL_ERROR = Reply(451, "4.3.0", "Internal error; try again later")


class RelayDelivery:
    """One message for the relay, for mailboxes here, or for both; implements `Delivery`.

    It is the owner of the MailboxDelivery that keeps the message. All recipients get it or none.

    Args:
        office: where the mailboxes are.
        relay: for all other recipients.
        envelope: what the relay is told of the message.
        owner: is called with results that are not available at once.
        counts: the listener's.
        login: the account that the client has logged in to, as it was then.
        client: address and port of the client.
    """

    __slots__ = (
        "_client",
        "_counts",
        "_envelope",
        "_login",
        "_mailboxes",
        "_office",
        "_owner",
        "_relay",
        "_said",
        "_session",
        "_task",
    )

    def __init__(
        self,
        office: PostOffice,
        relay: Relay,
        envelope: Envelope,
        owner: LoggingOwner,
        counts: Counts,
        login: Account | None,
        client: tuple[str, int],
    ) -> None:
        self._office = office
        self._relay = relay
        self._envelope = envelope
        self._owner: LoggingOwner | None = owner
        self._counts = counts
        self._login = login
        self._client = client
        self._mailboxes = MailboxDelivery(office, envelope.sender, self, counts, size=envelope.size)
        self._session: RelaySession | None = None
        self._task: asyncio.Task[None] | None = None
        self._said = ""  # the relay's reply to the message, once it has taken it

    @property
    def name(self) -> str:
        """The message's name."""
        return self._mailboxes.name

    # --- recipients ---------------------------------------------------------------------------

    def add_recipient(self, recipient: EnvelopeRecipient) -> Reply | None:
        """Look for a mailbox, or ask the relay; read the accounts first if they have changed."""
        if self._office.accounts.current():
            return self._look_up(recipient)
        loop = asyncio.get_running_loop()
        self._office.refresh(loop, lambda: self._answer(recipient))
        return None

    def _answer(self, recipient: EnvelopeRecipient) -> None:
        if self._owner is not None:
            reply = self._look_up(recipient)
            if reply is not None:
                self._owner.recipient_answered(reply)

    def _look_up(self, recipient: EnvelopeRecipient) -> Reply | None:
        roster, mailbox = self._office.accounts.roster, recipient.mailbox
        if roster is None or not mailbox.domain or roster.is_local(mailbox.domain):
            return self._mailboxes.look_up(recipient)
        if roster.find(mailbox) is not None:
            return self._mailboxes.look_up(recipient)
        if not self._may_send(roster):
            return _NEEDS_LOGIN if roster.certain else LOOKUP_FAILED
        if is_own_address(*self._client):
            return LOOPS_BACK
        self._task = asyncio.get_running_loop().create_task(self._ask(recipient))
        return None

    def _may_send(self, roster: Roster) -> bool:
        """Return whether the client may use the relay: it has logged in, and still could.

        An account that has been removed, or whose password was changed because it was stolen, must
        not send any more, not even through sessions that are already open.
        """
        return self._login is not None and roster.admits(self._login)

    async def _ask(self, recipient: EnvelopeRecipient) -> None:
        """Answer with what the relay says to a recipient."""
        session = self._session
        if session is None:
            user = "" if self._login is None else self._login.name
            session = self._session = RelaySession(self._relay, self._envelope, user)
        answer = ACCEPTED
        try:
            await session.recipient(recipient)
        except RelayError as error:
            answer = error.reply
            self._count("recipient", answer)
        except Exception:
            answer = self._fault()
        else:
            self._count("recipient")
            self._mailboxes.accept(recipient, None)
        self._task = None
        if self._owner is not None:
            self._owner.recipient_answered(answer)

    def _count(self, step: str, refusal: Reply | None = None) -> None:
        self._counts.relayed(step, b"" if refusal is None else b"%d" % refusal.code)

    def _fault(self) -> Reply:
        """Log the exception that is being handled; return the reply to the client."""
        self.log_fault()
        return _INTERNAL_ERROR

    @property
    def _relays(self) -> bool:
        """Whether the relay gets the message."""
        return self._session is not None and bool(self._session.recipients)

    def destinations(self) -> list[str]:
        """Return the names of accounts, then the addresses elsewhere."""
        others = [] if self._session is None else self._session.recipients
        return [*self._mailboxes.destinations(), *(f"<{each.mailbox}>" for each in others)]

    # --- the message --------------------------------------------------------------------------

    def add(self, data: bytes) -> None:
        """Append to the message."""
        self._mailboxes.add(data)

    @property
    def full(self) -> bool:
        """Whether to wait before more is added."""
        return self._mailboxes.full

    def commit(self) -> Sequence[Reply] | None:
        """Make the message durable, hand it to the relay, and move it into the mailboxes."""
        if self._relays:
            replies = self._mailboxes.prepare(self._hand_over_later)
        else:
            replies = self._mailboxes.commit()
        return None if replies is None else self._settled(replies)

    def _hand_over_later(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._hand_over())

    async def _hand_over(self) -> None:
        """Hand the message to the relay, then move it into the mailboxes."""
        session, mailboxes = self._session, self._mailboxes
        assert session is not None
        try:
            size = mailboxes.size - mailboxes.offset
            source = MessageSource(mailboxes.path, mailboxes.offset, size)
            self._said = await session.send(source) or "Ok"
        except RelayError as error:
            relay, reason = str(session), str(error)
            what = "not accepted by relay %s: %s"
            level, event = logging.WARNING, "message-refused-by-relay"
            self.log(level, event, what, relay, reason, relay=relay, reply=reason)
            answer = error.reply
            self._count("message", answer)
        except Exception:
            answer = self._fault()
        else:
            self._count("message")
            self._task = None
            replies = mailboxes.commit()
            if replies is not None:
                self.message_answered(replies)
            return
        self._task = None
        mailboxes.abort()
        self.message_answered(mailboxes.replies(answer))

    def abort(self) -> None:
        """Drop the message, and cut off the session with the relay."""
        self._owner = None
        self._mailboxes.abort()
        session, task = self._session, self._task
        self._task = None
        if task is not None:
            task.cancel()
            if session is not None:
                session.abort()
        elif session is not None:
            session.quit()

    # --- the end; what the MailboxDelivery tells its owner ------------------------------------

    def recipient_answered(self, reply: Reply) -> None:
        """Pass on what is known only now: whether a mailbox with a quota has room."""
        if self._owner is not None:
            self._owner.recipient_answered(reply)

    def delivery_resumed(self) -> None:
        """Pass it on."""
        if self._owner is not None:
            self._owner.delivery_resumed()

    def message_answered(self, replies: Sequence[Reply]) -> None:
        """Pass the replies on."""
        owner = self._owner
        if owner is not None:
            owner.message_answered(self._settled(replies))

    def _settled(self, replies: Sequence[Reply]) -> Sequence[Reply]:
        """End the session with the relay; return the replies, with what the relay has said."""
        self._owner = None
        if self._session is not None:
            self._session.quit()
        if not self._said:
            return replies
        return [
            Reply(code, status, f"{text}; the relay says: {self._said}" if code < 300 else text)
            for code, status, text in replies
        ]

    def log(self, level: int, event: str, what: str, *values: object, **fields: object) -> None:
        """Pass on what is logged, with what the relay has said."""
        if self._said:
            relay = str(self._session)
            if event == "message-delivered":
                what += "; accepted by relay %s: %s"
                values = (*values, relay, self._said)
                fields |= {"relay": relay, "reply": self._said}
            else:
                what = (
                    "accepted by relay %s but not delivered here; a retry sends it there twice: %s"
                )
                values = (relay, *values)
                fields["relay"] = relay
        if self._owner is not None:
            self._owner.log(level, event, what, *values, **fields)

    def log_fault(self) -> None:
        """Pass it on."""
        if self._owner is not None:
            self._owner.log_fault()

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes for mailboxes here, and for a relay that sends no DSNs itself."""
        found = self._mailboxes.outcomes()
        if self._session is not None and not self._session.relays_dsn:
            found.append(relayed(self._session.recipients, self._session.host))
        return found
