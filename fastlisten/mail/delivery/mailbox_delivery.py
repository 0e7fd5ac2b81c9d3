"""Delivery into mailboxes here: which recipients have one, and what becomes of the message.

Rules of this file: accounts and replies, on the loop; how a message gets onto the disk is in
message_writer.py. Answers to recipients:

    recipient with a mailbox here    accepted for its account; for a folder of it (detail_folder.py)
    its mailbox is full now          452 4.2.2
    larger than the mailbox may be   552 5.2.2
    none, in a local domain          550 5.1.1
    in another domain                550 5.7.1; relay/relay_delivery.py may know better

While the accounts file may be half written, 451 takes the place of 550 (accounts_file.py).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Sequence

from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.counts import Counts
from fastlisten.mail.delivery.detail_folder import detail_folder
from fastlisten.mail.delivery.mailbox_room import MailboxRoom, QuotaExceededError
from fastlisten.mail.delivery.message_writer import MessageWriter
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.delivery_interface import LoggingOwner
from fastlisten.mail.dsn.outcome import Outcome, delivered
from fastlisten.mail.envelope import EnvelopeRecipient
from fastlisten.mail.loop_calls import call_on
from fastlisten.mail.maildir.maildir import Maildir, unique_name
from fastlisten.mail.reply import Reply
from fastlisten.mail.store.usage import OVER_QUOTA

__all__ = ["ACCEPTED", "LOOKUP_FAILED", "MailboxDelivery"]

ACCEPTED = Reply(250, "2.1.5", "Ok")
LOOKUP_FAILED = Reply(451, "4.3.5", "Temporary lookup failure; try again later")
_UNKNOWN_RECIPIENT = Reply(550, "5.1.1", "No such mailbox here")
_NO_RELAY = Reply(550, "5.7.1", "Relay access denied")
_NO_SPACE = Reply(452, "4.3.1", "Insufficient system storage; try again later")
_FULL_MAILBOX = Reply(452, "4.2.2", "Mailbox is full; try again later")
_OVER_QUOTA = Reply(452, "4.2.2", OVER_QUOTA)
_TOO_LARGE = Reply(552, "5.2.2", "Quota exceeded (message is larger than the mailbox may be)")
_NOT_STORED = Reply(451, "4.3.0", "Message could not be stored; try again later")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class MailboxDelivery:
    """One message for mailboxes here; implements `Delivery`.

    A message that has no recipient here waits in the spool until `prepare` has been followed by
    `commit`: that is how RelayDelivery keeps what it sends.

    Args:
        office: where the mailboxes are.
        sender: the reverse path, for Return-Path.
        owner: is called with results that are not available at once.
        counts: the listener's.
        independent: each recipient gets the message or not by itself (LMTP); otherwise all or none.
        size: the message's, as the sender has declared it; 0 if it has not.
    """

    __slots__ = (
        "_accepted",
        "_counts",
        "_ended_at",
        "_failed",
        "_folders",
        "_independent",
        "_name",
        "_office",
        "_owner",
        "_prepared",
        "_sender",
        "_size",
        "_writer",
        "offset",
    )

    def __init__(
        self,
        office: PostOffice,
        sender: str,
        owner: LoggingOwner,
        counts: Counts,
        *,
        independent: bool = False,
        size: int = 0,
    ) -> None:
        self._office = office
        self._sender = sender
        self._size = size
        self._owner: LoggingOwner | None = owner
        self._counts = counts
        self._independent = independent
        self._accepted: list[tuple[EnvelopeRecipient, Account | None]] = []
        self._folders: dict[str, Maildir] = {}  # by account: where it goes, if not the inbox
        self._failed: dict[str, OSError] = {}  # by account: why it has not got the message
        self._name = ""
        self._writer: MessageWriter | None = None
        self._prepared: Callable[[], None] | None = None
        self._ended_at = 0.0  # when the last octet of the message came
        self.offset = 0  # octets at the beginning that are for mailboxes only

    @property
    def name(self) -> str:
        """The message's name, of its files too."""
        if not self._name:
            self._name = unique_name()
        return self._name

    # --- recipients ---------------------------------------------------------------------------

    def add_recipient(self, recipient: EnvelopeRecipient) -> Reply | None:
        """Look for the recipient's mailbox; read the accounts first if they have changed."""
        if self._office.accounts.current():
            return self.look_up(recipient)
        loop = asyncio.get_running_loop()
        self._office.refresh(loop, lambda: self._answer(recipient))
        return None

    def _answer(self, recipient: EnvelopeRecipient) -> None:
        if self._owner is not None:
            answer = self.look_up(recipient)
            if answer is not None:
                self._owner.recipient_answered(answer)

    def look_up(self, recipient: EnvelopeRecipient) -> Reply | None:
        """Answer for a recipient by the accounts as they were last read.

        Returns:
            The answer; None: the mailbox has to be looked into, and the owner's
            `recipient_answered` will be called.
        """
        roster, mailbox = self._office.accounts.roster, recipient.mailbox
        if roster is None:
            return LOOKUP_FAILED
        account = roster.find(mailbox)
        if account is not None:
            room, detail = self._office.room(account), roster.detail(mailbox)
            if room is not None or detail:
                self._look_into_mailbox(recipient, account, room, detail)
                return None
            self.accept(recipient, account)
            return ACCEPTED
        if not roster.certain:
            return LOOKUP_FAILED
        if not mailbox.domain or roster.is_local(mailbox.domain):
            return _UNKNOWN_RECIPIENT
        return _NO_RELAY

    def _look_into_mailbox(
        self, recipient: EnvelopeRecipient, account: Account, room: MailboxRoom | None, detail: str
    ) -> None:
        """Look in the pool whether a mailbox is full, and for the folder; then answer."""
        loop = asyncio.get_running_loop()
        inbox = self._office.maildir(account)

        def answer(refusal: QuotaExceededError | None, folder: Maildir) -> None:
            owner = self._owner
            if owner is None:
                return
            if refusal is None:
                # An account gets a message once: of several addresses the first says where.
                if folder is not inbox and account.name not in self.destinations():
                    self._folders[account.name] = folder
                self.accept(recipient, account)
                owner.recipient_answered(ACCEPTED)
            else:
                owner.recipient_answered(_TOO_LARGE if refusal.never else _FULL_MAILBOX)

        def look() -> None:
            refusal = None if room is None else room.refusal(self._size)
            folder = detail_folder(inbox, detail) if detail else inbox
            call_on(loop, lambda: answer(refusal, folder))

        self._office.submit(look)

    def accept(self, recipient: EnvelopeRecipient, account: Account | None) -> None:
        """Note an accepted recipient; without an account it gets its reply and nothing else."""
        self._accepted.append((recipient, account))

    def destinations(self) -> list[str]:
        """Return the names of the accounts that get the message, or have got it."""
        names = (account.name for _, account in self._accepted if account is not None)
        return [name for name in dict.fromkeys(names) if name not in self._failed]

    # --- the message --------------------------------------------------------------------------

    def add(self, data: bytes) -> None:
        """Append to the message."""
        (self._writer or self._begin()).add(data)

    def _begin(self) -> MessageWriter:
        accounts = {a.name: a for _, a in self._accepted if a is not None}
        writer = self._writer = MessageWriter(
            self._office,
            list(accounts.values()),
            self.name,
            asyncio.get_running_loop(),
            self._changed,
            independent=self._independent,
            spool=not accounts,
            folders=self._folders,
        )
        if accounts:
            # RFC 5321 4.4: final delivery adds it, and nobody else.
            field = f"Return-Path: <{self._sender}>\r\n".encode()
            self.offset = len(field)
            writer.add(field)
        return writer

    @property
    def full(self) -> bool:
        """Whether to wait before more is added."""
        return self._writer is not None and self._writer.full

    @property
    def path(self) -> str:
        """The file that holds the message while it is prepared."""
        return "" if self._writer is None else self._writer.path

    @property
    def size(self) -> int:
        """Octets of the message so far, Return-Path included."""
        return 0 if self._writer is None else self._writer.size

    def prepare(self, then: Callable[[], None]) -> Sequence[Reply] | None:
        """Make the message durable without showing it to anybody; little can fail after that.

        Args:
            then: called when that is done; `commit` or `abort` has to follow.

        Returns:
            The replies if it has failed already; None: `then` or `message_answered` follows.
        """
        writer = self._writer or self._begin()
        self._ended_at = time.monotonic()
        self._prepared = then
        writer.prepare()
        return self._settled(writer) if writer.done else None

    def commit(self) -> Sequence[Reply] | None:
        """Move the message into the mailboxes."""
        writer = self._writer or self._begin()
        self._ended_at = self._ended_at or time.monotonic()
        writer.commit()
        return self._settled(writer) if writer.done else None

    def abort(self) -> None:
        """Drop the message, unless it has been delivered."""
        self._owner = self._prepared = None
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _changed(self) -> None:
        """Go on after a job of the writer."""
        writer, owner, prepared = self._writer, self._owner, self._prepared
        if writer is None or owner is None:
            return
        if writer.done:
            owner.message_answered(self._settled(writer))
        elif writer.prepared and prepared is not None:
            self._prepared = None
            prepared()
        else:
            owner.delivery_resumed()

    # --- the end ------------------------------------------------------------------------------

    def _settled(self, writer: MessageWriter) -> list[Reply]:
        """Log what became of the message, and return the replies to it."""
        owner = self._owner
        assert owner is not None
        # Nothing is needed of these any more; they refer to each other.
        self._owner = self._prepared = self._writer = None
        error = writer.error
        if error is not None:
            what = "not delivered: %s"
            owner.log(_level(error), "message-not-delivered", what, error, error=str(error))
            return self.replies(_failure(error))
        if self._independent:
            self._failed = writer.errors
        duration = time.monotonic() - self._ended_at
        self._counts.delivery(duration)
        owner.log(
            logging.INFO,
            "message-delivered",
            "%d octets delivered",
            writer.size,
            bytes=writer.size,
            duration=round(duration, 4),
            relay=None,
            reply="",
        )
        done = Reply(250, "2.0.0", f"Ok, id {self._name}")
        if not self._failed:
            return self.replies(done)
        for name, why in self._failed.items():
            what, values = "not delivered to %s: %s", (name, why)
            owner.log(_level(why), "message-not-delivered", what, *values, to=name, error=str(why))
        return [
            _failure(self._failed[account.name])
            if account is not None and account.name in self._failed
            else done
            for _, account in self._accepted
        ]

    def replies(self, reply: Reply) -> list[Reply]:
        """Return a reply that stands for all recipients, once for each."""
        return [reply] * len(self._accepted)

    def outcomes(self) -> list[Outcome]:
        """Return the outcome for the recipients whose mailboxes have the message."""
        return [
            delivered(
                recipient
                for recipient, account in self._accepted
                if account is not None and account.name not in self._failed
            )
        ]


def _level(error: OSError) -> int:
    """Return how much a failure matters to the administrator."""
    return logging.INFO if isinstance(error, QuotaExceededError) else logging.ERROR


def _failure(error: OSError) -> Reply:
    """Return the reply to a message that could not be stored."""
    if isinstance(error, QuotaExceededError):
        return _TOO_LARGE if error.never else _OVER_QUOTA
    return _NO_SPACE if error.errno in _FULL else _NOT_STORED
