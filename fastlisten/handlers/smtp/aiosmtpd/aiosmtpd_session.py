"""One SMTP session whose events go to the hooks of an aiosmtpd handler.

Rules of this file: events in their order, and hooks that suspend. hook_dispatch.py decides which
hook is asked, smtp/engine_protocol.py when something is executed. What the engine waits for:

    a hook has suspended                    the end of its task -> _hook_ended
    a hook waits for a response to AUTH     nothing: `run` goes on and gives it the response
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.aiosmtpd.hook_delivery import HookDelivery
from fastlisten.handlers.smtp.aiosmtpd.hook_dispatch import HookDispatcher
from fastlisten.handlers.smtp.aiosmtpd.hook_replies import HookReply
from fastlisten.handlers.smtp.aiosmtpd.hook_server import HookServer
from fastlisten.handlers.smtp.aiosmtpd.served_handler import ServedHandler
from fastlisten.handlers.smtp.aiosmtpd.types import Envelope
from fastlisten.handlers.smtp.dialogue_log import DialogueEngine
from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine.smtp_events import (
    Auth,
    Command,
    Content,
    Event,
    Mail,
    Recipient,
    Reset,
    Response,
)
from fastlisten.handlers.smtp.engine_user import EngineConnection
from fastlisten.handlers.smtp.session_log import LogContext, SessionLog
from fastlisten.log_events import session_name
from fastlisten.mail.reply import Reply

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["AiosmtpdSession"]

_GIVEN_UP = reply(421, "4.3.0", "Internal error; try again later")

#: The events that hooks answer as they come; recipients and message go to the delivery.
_ASKED = (Command, Mail, Auth)


class AiosmtpdSession:
    """One session; implements `EngineUser` and `DeliveryOwner`.

    Args:
        served: its handler.
        info: about the client; None: ask the transport.

    Attributes:
        engine: the protocol.
        server: what hooks get as their first argument.
        held: what hooks have pushed during an AUTH exchange; None outside of one.
    """

    __slots__ = (
        "_connection",
        "_context",
        "_delivery",
        "_dispatcher",
        "_drained",
        "_info",
        "_response",
        "_served",
        "_task",
        "engine",
        "held",
        "server",
    )

    def __init__(self, served: ServedHandler, info: ConnectionInfo | None = None) -> None:
        self.engine: SmtpEngine = served.engine_kind(served.limits, info is not None and info.tls)
        self._connection: EngineConnection | None = None  # None before its start and after its end
        self._served = served
        self._info = info
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._response: asyncio.Future[bytes | None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._delivery: HookDelivery | None = None  # from the transaction's first RCPT
        self.held: bytes | None = None
        self.server = HookServer(served, self, asyncio.get_running_loop())
        self._dispatcher = HookDispatcher(served, self)

    # --- for the connection -------------------------------------------------------------------

    @property
    def session_log(self) -> SessionLog:
        """The listener's log."""
        return self._served.session_log

    @property
    def tls(self) -> TlsSettings | None:
        """How to start TLS."""
        return self._served.tls

    @property
    def user_name(self) -> str:
        """The name of the user that has logged in, as far as the authenticator tells."""
        session = self.server.session
        if not session.authenticated:
            return ""
        # Whatever else is in auth_data may be secret.
        login = getattr(session.auth_data, "login", "somebody")
        return login.decode(errors="replace") if isinstance(login, bytes) else str(login)

    @property
    def waits(self) -> bool:
        """Whether the client waits for a hook."""
        return self.held_up()

    @property
    def busy(self) -> bool:
        """Whether a transaction is in progress or a hook is running.

        A hook that waits for the client's response to AUTH does not count.
        """
        return self.engine.transaction is not None or self.held_up()

    def held_up(self) -> bool:
        """Return whether a hook is running, unless it waits for the client's response."""
        return self._task is not None and self._response is None

    def origin(self) -> tuple[str, str, int]:
        """Return the listener's id, the client's address and its port."""
        peer = self.server.session.peer
        listener = self._served.session_log.listener
        if not isinstance(peer, tuple) or len(peer) < 2:
            return listener, "", 0
        return listener, str(peer[0]), int(peer[1])

    def connected(self, connection: EngineConnection) -> None:
        """Begin the session."""
        self._connection = connection
        transport = self.server.transport = connection.transport
        assert transport is not None
        if transport.get_extra_info("sslcontext") is not None and not self.engine.encrypted:
            self.engine.encrypted = True
            connection.note_tls()
        self._begin_session()
        if isinstance(self.engine, DialogueEngine):
            name = session_name(connection.session)
            self.engine.tell = self._served.transcript(self.server.session.peer, name)

    def write_resumed(self) -> None:
        """Go on with a hook that waits for this."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def disconnected(self) -> None:
        """Drop everything; a running hook is cancelled, as in aiosmtpd."""
        self._connection = self.server.transport = None
        if self._delivery is not None:
            self._delivery.abort()
            self._delivery = None
        if self._task is not None:
            self._task.cancel()
        else:
            self._unlink()

    def _unlink(self) -> None:
        """Break the reference cycles, so that the garbage collector is not needed."""
        self.server.detach()
        del self._dispatcher

    # --- events -------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Handle an event."""
        if isinstance(event, _ASKED):
            self._ask(event)
        elif isinstance(event, Recipient):
            self._recipient(event)
        elif isinstance(event, Content):
            self._content(event)
        elif isinstance(event, Response):
            self._respond(event.data)
        elif isinstance(event, Reset):
            self.forget()
        else:
            raise AssertionError(f"unexpected {event}")

    def farewell_said(self) -> None:
        """Keep everything: hooks learn of the session's end when the connection is lost."""

    def forget(self) -> None:
        """Drop the transaction."""
        self._delivery = None
        self.server.envelope = Envelope()

    # --- the message --------------------------------------------------------------------------

    def _recipient(self, event: Recipient) -> None:
        delivery = self._delivery
        if delivery is None:
            delivery = self._delivery = HookDelivery(self._dispatcher, self, self._run_hook)
        answer = delivery.add_recipient(event)
        if answer is not None:
            self.recipient_answered(answer)

    def _content(self, event: Content) -> None:
        delivery = self._delivery
        assert delivery is not None
        delivery.add(event.data)
        if event.final:
            replies = delivery.commit()
            if replies is not None:
                self.message_answered(replies)

    def recipient_answered(self, reply: Reply) -> None:
        """Answer RCPT, as its hook did."""
        assert isinstance(reply, HookReply)
        if reply.accepted:
            self.engine.accept(reply.octets)
        else:
            self.engine.reject(reply.octets)

    def message_answered(self, replies: Sequence[Reply]) -> None:
        """Answer the message, as its hook did."""
        self._delivery = None
        self.recipient_answered(replies[0])

    def delivery_resumed(self) -> None:
        """Do nothing: no delivery to hooks is ever full."""

    # --- hooks --------------------------------------------------------------------------------

    def _ask(self, event: Event) -> None:
        """Have an event answered, by its hook if there is one."""
        if not self._dispatcher.answer_unasked(event):
            self._run_hook(self._dispatcher.answer(event))

    def _run_hook(self, coroutine: Any) -> None:
        tasks = self._served.eager_tasks(self.server.loop)
        try:
            self._task = tasks.run(coroutine, self._context, self._hook_ended)
        except asyncio.CancelledError:
            self.give_up()

    def _hook_ended(self, task: asyncio.Task[None]) -> None:
        """Go on after a hook that had suspended."""
        self._task = self._response = None
        connection = self._connection
        if connection is None:
            self._unlink()
        elif not task.cancelled():
            task.result()  # raises what ends the loop: SystemExit and KeyboardInterrupt
            connection.run()
        elif self._open_transport() is not None:
            self.give_up()

    def _open_transport(self) -> asyncio.Transport | None:
        """Return the transport; None if it is lost, or being closed."""
        transport = None if self._connection is None else self._connection.transport
        return None if transport is None or transport.is_closing() else transport

    def give_up(self) -> None:
        """End the connection, because no answer can be given."""
        connection = self._connection
        if connection is not None and connection.transport is not None:
            self.engine.note(_GIVEN_UP)
            connection.end_reason = "error"
            connection.write(_GIVEN_UP)
            connection.transport.close()

    def push(self, data: bytes) -> None:
        """Send what a hook says before its answer; nothing after a farewell."""
        if self.held is not None:
            self.held += data
        elif self._connection is not None and self._open_transport() is not None:
            self._connection.write(data)

    async def drained(self) -> None:
        """Wait until the transport's buffer has drained."""
        while self._connection is not None and self._connection.write_paused:
            if self._drained is None or self._drained.done():
                self._drained = self.server.loop.create_future()
            await self._drained

    async def challenge(self, challenge: bytes) -> bytes | None:
        """Send a challenge of AUTH and return the response, None if the exchange is over.

        Raises:
            RuntimeError: no AUTH command is being executed.
        """
        if self.held is None:
            raise RuntimeError("a challenge can be sent only while an AUTH command is executed")
        connection, engine, said = self._connection, self.engine, self.held
        self.held = b""
        if connection is not None:
            connection.write(said)
        engine.challenge(challenge)
        self._response = self.server.loop.create_future()
        if connection is not None:
            connection.write()
            if self._task is not None and engine.buffered:
                # The response may be there already, and `run` returned when the hook suspended.
                connection.run_later()
        try:
            return await self._response
        finally:
            self._response = None

    def _respond(self, data: bytes | None) -> None:
        """Give the client's response to the hook that waits for it."""
        if data is None:
            self._dispatcher.over = True
        response, self._response = self._response, None
        if response is not None and not response.done():
            response.set_result(data)
        elif data is not None:
            # The hook did not wait for the response.
            self.give_up()

    # --- TLS ----------------------------------------------------------------------------------

    def _begin_session(self) -> None:
        """Make a new session and envelope: at the start, and after STARTTLS."""
        self.server.begin_session(self._info, self.engine.encrypted)
        self.forget()

    def admits_tls(self) -> bool:
        """Return whether STARTTLS may go on, or has been refused."""
        return self._dispatcher.start_tls()

    def forget_session(self) -> None:
        """Drop the transaction; when TLS has begun, a new session is made."""
        self.forget()

    def tls_begun(self) -> None:
        """Begin a new session, and ask handle_STARTTLS about it."""
        assert self._connection is not None
        self.server.transport = self._connection.transport
        self._begin_session()
        if self._dispatcher.asks_after_tls:
            self._run_hook(self._dispatcher.tls_started())

    @property
    def log_context(self) -> LogContext:
        """What a log record says of the session."""
        return LogContext("", "", 0) if self._connection is None else self._connection.log_context()
