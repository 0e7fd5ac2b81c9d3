"""Who is told that a message has arrived (NOTIFY=SUCCESS), and how the notice gets there.

Rules of this file: after the reply to the message, beside everything else: a notice that cannot be
sent is logged and forgotten, and delays nobody. A notice has no sender, and no notice is made for
a message without one, so that none answers another (RFC 3461 6.2).

    the sender has a mailbox here                the notice is delivered there
    another, the session is authenticated        the relay, if there is one, gets it
    another                                      nothing: a stranger could have notices sent to
                                                 anybody whose name it gives as the sender
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastlisten.handlers.smtp.engine.events import Recipient, Transaction
from fastlisten.handlers.smtp.trace_fields import return_path
from fastlisten.log_events import log
from fastlisten.mail.address import Mailbox, parse_mailbox
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.dsn.message import Outcome, notice
from fastlisten.mail.relay.message_source import Octets
from fastlisten.mail.relay.relay import Relay
from fastlisten.mail.relay.relay_error import RelayRefused

if TYPE_CHECKING:
    from fastlisten.mail.relay.session import Outgoing

__all__ = ["LARGEST_HEADER", "DsnSender", "header_of", "outcomes", "wanted"]

logger = logging.getLogger("fastlisten.smtp")

#: Octets of a message's header that are kept for its notice.
LARGEST_HEADER = 64 * 1024

#: Notices that are on their way at a time; each keeps a header. More are not sent.
MOST = 100

#: Seconds that notices get when the server stops.
_LAST = 5.0


def wanted(recipients: Sequence[Recipient]) -> list[Recipient]:
    """Return the recipients for which a notice of success was asked for."""
    return [recipient for recipient in recipients if "SUCCESS" in recipient.notify]


def outcomes(
    recipients: Sequence[Recipient], failed: Sequence[Recipient], outgoing: Outgoing | None
) -> list[Outcome]:
    """Return what a message's sender is to be told, by what became of it.

    Args:
        recipients: all that were accepted.
        failed: those of them who did not get it.
        outgoing: the session with the relay, which has it; None if there was none.
    """
    relayed = [] if outgoing is None else outgoing.recipients
    others = {id(recipient) for recipient in (*relayed, *failed)}
    here = [recipient for recipient in recipients if id(recipient) not in others]
    found = [Outcome("delivered", "2.0.0", wanted(here))]
    if outgoing is not None and not outgoing.relays_dsn:
        found.append(Outcome("relayed", "2.1.9", wanted(relayed), outgoing.host))
    return found


def header_of(beginning: bytes) -> bytes:
    """Return the header of a message, as far as it is kept.

    Args:
        beginning: of the message.
    """
    if beginning.startswith(b"\r\n"):
        return b""  # there is none, all is body
    return beginning.partition(b"\r\n\r\n")[0][:LARGEST_HEADER] + b"\r\n"


class DsnSender:
    """Sends the notices of one listener.

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
        transaction: Transaction,
        outcome: Outcome,
        header: bytes,
        authenticated: bool,
    ) -> None:
        """Send a notice to the sender of a message, in the background.

        Args:
            office: where local senders have their mailboxes.
            transaction: the message's.
            outcome: what became of it.
            header: the message's.
            authenticated: the client has shown who it is.
        """
        if not (transaction.sender and outcome.recipients):
            return
        if len(self._tasks) >= MOST:
            logger.warning("no notice to <%s>: %d are on their way", transaction.sender, MOST)
            return
        arrival = email.utils.formatdate()
        work = self._send(office, transaction, outcome, header, arrival, authenticated)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for what is being sent, not for long."""
        tasks = list(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LAST)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send(
        self,
        office: PostOffice,
        transaction: Transaction,
        outcome: Outcome,
        header: bytes,
        arrival: str,
        authenticated: bool,
    ) -> None:
        to = transaction.sender
        try:
            mailbox = parse_mailbox(to)
            roster = office.accounts.roster
            account = None if roster is None else roster.find(mailbox)
            # It is made only where it can be sent, and in a thread: with many recipients and a
            # long header that takes a while.
            make = functools.partial(notice, transaction, outcome, header, self._hostname, arrival)
            if account is not None:
                data = await asyncio.to_thread(make)
                await office.deliver([account], return_path("") + data)
            elif roster is not None and roster.is_local(mailbox.domain):
                logger.debug("no notice to <%s>: no such mailbox", to)
            elif self._relay is None or not authenticated:
                logger.debug("no notice to <%s>: it would go elsewhere", to)
            else:
                await self._hand_over(self._relay, mailbox, await asyncio.to_thread(make))
        except (OSError, RelayRefused) as error:
            text, why = "a notice to <%s> cannot be sent: %s", str(error)
            log(logger, logging.WARNING, "notice-not-sent", text, to, why, to=to, error=why)
        except Exception:
            # Nobody waits for this task, and what is wrong must not go by unseen.
            logger.exception("a notice to <%s> cannot be sent", to)

    async def _hand_over(self, relay: Relay, mailbox: Mailbox, data: bytes) -> None:
        transaction = Transaction("", smtputf8=not mailbox.text.isascii())
        outgoing = relay.outgoing(transaction)
        try:
            # No notice about a notice (RFC 3461 6.2).
            await outgoing.recipient(Recipient(mailbox, notify="NEVER"))
            await outgoing.send(Octets(data))
            outgoing.finish()
        except BaseException:
            outgoing.abort()
            raise
