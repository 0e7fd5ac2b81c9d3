"""Sends DSNs of success to the senders who asked for them (NOTIFY=SUCCESS).

Rules of this file: everything happens in the background, after the reply to the message. A DSN that
cannot be sent is logged and forgotten. DSNs have no sender, and none is sent about a message
without a sender, so that they never answer each other (RFC 3461 6.2).

    the sender has a mailbox here                deliver it there
    elsewhere, the session is authenticated      hand it to the relay, if there is one
    elsewhere, not authenticated                 send nothing: anybody could have DSNs sent to any
                                                 address by giving it as the sender
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import logging

from fastlisten.log_events import log
from fastlisten.mail.address import Mailbox, parse_mailbox
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.dsn.message import dsn_message
from fastlisten.mail.dsn.outcome import Outcome
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay.message_source import BytesSource
from fastlisten.mail.relay.relay import Relay
from fastlisten.mail.relay.relay_error import RelayError
from fastlisten.mail.relay.session import RelaySession

__all__ = ["DsnSender"]

logger = logging.getLogger("fastlisten.smtp")

#: DSNs in progress at a time; each keeps a header. Beyond that none are sent.
MOST = 100

#: Seconds that DSNs in progress get when the server stops.
_LAST = 5.0

#: RFC 5321 4.4: what final delivery puts on top of a message without a sender.
_RETURN_PATH = b"Return-Path: <>\r\n"


class DsnSender:
    """Sends the DSNs of one listener.

    Args:
        hostname: the name the server calls itself.
        relay: for senders elsewhere, if there is one.
    """

    __slots__ = ("_hostname", "_relay", "_tasks")

    def __init__(self, hostname: str, relay: Relay | None) -> None:
        self._hostname = hostname
        self._relay = relay
        self._tasks: set[asyncio.Task[None]] = set()

    def send(
        self,
        office: PostOffice,
        envelope: Envelope,
        outcome: Outcome,
        header: bytes,
        authenticated: bool,
    ) -> None:
        """Send a DSN to the sender of a message, in the background.

        Args:
            office: where local senders have their mailboxes.
            envelope: the message's.
            outcome: what became of the message; without recipients nothing is sent.
            header: the message's.
            authenticated: the client that sent the message has logged in.
        """
        if not (envelope.sender and outcome.recipients):
            return
        if len(self._tasks) >= MOST:
            logger.warning("DSN to <%s> not sent: %d are in progress", envelope.sender, MOST)
            return
        arrival = email.utils.formatdate()
        work = self._send(office, envelope, outcome, header, arrival, authenticated)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait a few seconds for DSNs in progress, then drop them."""
        tasks = list(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LAST)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send(
        self,
        office: PostOffice,
        envelope: Envelope,
        outcome: Outcome,
        header: bytes,
        arrival: str,
        authenticated: bool,
    ) -> None:
        to = envelope.sender
        try:
            mailbox = parse_mailbox(to)
            roster = office.accounts.roster
            account = None if roster is None else roster.find(mailbox)
            # Made only if it can be sent, and in a thread: many recipients and a long header take
            # a while.
            make = functools.partial(
                dsn_message, envelope, outcome, header, self._hostname, arrival
            )
            if account is not None:
                data = await asyncio.to_thread(make)
                await office.deliver([account], _RETURN_PATH + data)
            elif roster is not None and roster.is_local(mailbox.domain):
                logger.debug("DSN to <%s> not sent: no such mailbox", to)
            elif self._relay is None or not authenticated:
                logger.debug("DSN to <%s> not sent: the sender is elsewhere", to)
            else:
                await self._relay_dsn(self._relay, mailbox, await asyncio.to_thread(make))
        except (OSError, RelayError) as error:
            text, why = "DSN to <%s> not sent: %s", str(error)
            log(logger, logging.WARNING, "notice-not-sent", text, to, why, to=to, error=why)
        except Exception:
            # Nothing awaits this task, so the exception would be lost.
            logger.exception("DSN to <%s> not sent: internal error", to)

    async def _relay_dsn(self, relay: Relay, mailbox: Mailbox, data: bytes) -> None:
        session = RelaySession(relay, Envelope("", smtputf8=not mailbox.text.isascii()))
        try:
            # No DSN about a DSN (RFC 3461 6.2).
            await session.recipient(EnvelopeRecipient(mailbox, notify="NEVER"))
            await session.send(BytesSource(data))
            session.quit()
        except BaseException:
            session.abort()
            raise
