"""Which hook of an aiosmtpd handler answers an event of the engine, and what its answer means.

Rules of this file: no transport. Hooks are called with what aiosmtpd calls them with, and their
answers mean what they mean there, with these exceptions, all on the safe side:

    the engine decides the state    a hook that says 5xx after it has set the envelope does not
                                    begin a transaction; one that says 250 to MAIL or RCPT and
                                    sets nothing has refused it silently, as in aiosmtpd
    a refused EHLO changes nothing  RFC 5321 4.1.4; in aiosmtpd the transaction is over
    an answer is one reply          see hook_replies.py
    STARTTLS hooks that fail        leave the connection without service, as those do that say no
"""

from __future__ import annotations

import base64
import inspect
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from fastlisten.handlers.smtp.aiosmtpd.auth_hooks import INVALID, last_code, reply_to_auth
from fastlisten.handlers.smtp.aiosmtpd.hook_replies import error_reply, reply_of
from fastlisten.handlers.smtp.aiosmtpd.hook_server import HookServer
from fastlisten.handlers.smtp.aiosmtpd.served_handler import ServedHandler
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING, Envelope
from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.events import Auth, Command, Content, Event, Mail, Recipient

__all__ = ["HookDispatcher"]

logger = logging.getLogger("fastlisten.smtp")

#: What may be said before STARTTLS where that is required (RFC 3207 4).
BEFORE_STARTTLS = frozenset({"EHLO", "LHLO", "NOOP", "QUIT"})

#: What needs a successful AUTH where that is required. The other commands of a transaction come
#: after MAIL.
AFTER_AUTH = frozenset({"MAIL", "VRFY"})

_OK = b"250 OK\r\n"
_INSECURE = b"554 Command refused due to lack of security\r\n"
_STARTTLS_FIRST = b"530 Must issue a STARTTLS command first\r\n"
_AUTH_FIRST = b"530 5.7.0 Authentication required\r\n"
_AUTHENTICATED_ALREADY = b"503 Already authenticated\r\n"
_NO_UTF8 = b"501 Error: SMTPUTF8 disabled\r\n"
_NO_BINARY = b"501 Error: BODY can only be one of 7BIT, 8BITMIME\r\n"
_NO_PARAMETER = b"555 Parameters not recognized or not implemented\r\n"
_NOT_ASCII = b"500 Error: strict ASCII mode\r\n"

#: Parameters whose values are the client's own and lose their meaning in upper case.
_KEEP = frozenset({"AUTH"})


def _options(words: tuple[str, ...]) -> list[str]:
    """Return the parameters of a command as aiosmtpd gives them to hooks: in upper case."""
    options = []
    for word in words:
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
        options.append(keyword + equals + (value if keyword in _KEEP else value.upper()))
    return options


class HookedConnection(Protocol):
    """What the dispatcher uses of its connection; an AiosmtpdConnection.

    Attributes:
        engine: decides the state, and gets the answers.
        server: what hooks get as their first argument.
        held: what hooks have pushed during an AUTH dialogue; None outside of one.
    """

    engine: SmtpEngine
    server: HookServer
    held: bytes | None

    def content(self) -> bytes:
        """Return the message, and forget it."""

    def forget(self) -> None:
        """Drop what is kept of a transaction."""

    def give_up(self) -> None:
        """End a connection on which no answer can be given."""


class HookDispatcher:
    """The hooks of one connection.

    Attributes:
        over: the engine has ended an AUTH dialogue that a hook is still in.
    """

    __slots__ = ("_calls", "_connection", "_secure", "_served", "over")

    def __init__(self, served: ServedHandler, connection: HookedConnection) -> None:
        self._served = served
        self._connection = connection
        self._calls: dict[str, int] = {}
        self._secure = True
        self.over = False

    # --- whatever the event -------------------------------------------------------------------

    def answer_unasked(self, event: Event) -> bool:
        """Answer an event that no hook is asked about; whether it was one.

        Most handlers have hooks for one or two commands. For the others a coroutine each would
        cost as much as the engine's own work.
        """
        served = self._served
        if served.conditional:
            return False
        if isinstance(event, Mail):
            if "MAIL" in served.hooks:
                return False
            self._take_sender(event)
        elif isinstance(event, Recipient):
            if "RCPT" in served.hooks:
                return False
            self._take_recipient(event)
        elif isinstance(event, Command) and event.verb in _EXTENDED and served.ehlo_form == 0:
            self._take_name(event)
        else:
            return False
        return True

    async def answer(self, event: Event) -> None:
        """Answer an event that is to be answered; never raises an Exception."""
        engine = self._connection.engine
        verb = event.verb if isinstance(event, Command) else _VERBS[type(event)]
        try:
            refusal = self._refusal(verb) if self._served.conditional else None
            if refusal is not None:
                self._connection.content()
                engine.reject(refusal)
                return
            await _ANSWERS[verb](self, event)
        except Exception as error:
            reply = await self._of_exception(error)
            if self.over:
                self.over = False
            elif not engine.waiting:
                self._connection.give_up()
            elif verb in ("RSET", "QUIT"):
                engine.accept(reply)
            else:
                if verb in ("MAIL", "DATA"):
                    self._connection.forget()
                engine.reject(reply)

    def _refusal(self, verb: str) -> bytes | None:
        """Return why a command is not carried out, whatever its hook would say."""
        parameters = self._served.parameters
        server, engine = self._connection.server, self._connection.engine
        if not self._secure and verb != "QUIT":
            return _INSECURE
        if (
            parameters.require_starttls
            and not engine.encrypted
            and verb not in BEFORE_STARTTLS
            and verb != "STARTTLS"
        ):
            return _STARTTLS_FIRST
        limit = parameters.call_limit(verb)
        if limit is not None:
            self._calls[verb] = calls = self._calls.get(verb, 0) + 1
            if calls > limit:
                logger.warning("%r over limit for %s", server.session.peer, verb)
                return f"421 4.7.0 {verb} sent too many times\r\n".encode()
        if parameters.auth_required and verb in AFTER_AUTH and not server.session.authenticated:
            return _AUTH_FIRST
        return None

    async def _call(self, name: str, *arguments: Any) -> Any:
        """Return what a hook says, MISSING if there is none."""
        hook = self._served.hooks.get(name)
        if hook is None:
            return MISSING
        server = self._connection.server
        return await hook(server, server.session, server.envelope, *arguments)

    def _reply(self, status: Any) -> bytes:
        return reply_of(status, self._served.parameters.enable_SMTPUTF8)

    async def _of_exception(self, error: Exception) -> bytes:
        """Return what is said of an exception of a hook."""
        utf8 = self._served.parameters.enable_SMTPUTF8
        peer = self._connection.server.session.peer
        hook = self._served.hooks.get("exception")
        try:
            if hook is not None:
                return self._reply(await hook(error))
        except Exception as inner:
            logger.exception("%r: exception in handle_exception()", peer)
            return error_reply(inner, utf8)
        logger.error("%r: SMTP session exception", peer, exc_info=error)
        return error_reply(error, utf8)

    # --- commands -----------------------------------------------------------------------------

    def _take_name(self, event: Command) -> None:
        """Answer EHLO without asking."""
        server = self._connection.server
        server.envelope = Envelope()
        server.session.extended_smtp = True
        server.session.host_name = event.argument
        self._greeted("\r\n".join([*self._served.ehlo_lines(event.usual), ""]).encode())

    async def _ehlo(self, event: Command) -> None:
        served, connection = self._served, self._connection
        if served.ehlo_form == 0:
            self._take_name(event)
            return
        server = connection.server
        session = server.session
        before = (server.envelope, session.extended_smtp, session.host_name)
        server.envelope = Envelope()
        session.extended_smtp = True
        lines = list(served.ehlo_lines(event.usual))
        reply = b""
        try:
            if served.ehlo_form == 4:
                reply = await self._old_ehlo(event.argument, lines)
            else:
                lines = await self._call("EHLO", event.argument, lines)
                reply = self._reply("\r\n".join(lines))
        finally:
            if not (reply.startswith(b"2") and session.host_name):
                server.envelope, session.extended_smtp, session.host_name = before
        self._greeted(reply)

    async def _old_ehlo(self, name: str, lines: list[str]) -> bytes:
        """Call the form of handle_EHLO that gives the last line, and may have pushed others."""
        connection = self._connection
        connection.held = b""
        try:
            reply = self._reply(await self._call("EHLO", name))
            pushed = connection.held
        finally:
            connection.held = None
        if not reply.startswith(b"2"):
            return reply
        return self._reply("\r\n".join(lines[:-1]).encode() + b"\r\n" + pushed + reply)

    async def _helo(self, event: Command) -> None:
        server = self._connection.server
        session = server.session
        before = (server.envelope, session.extended_smtp, session.host_name)
        server.envelope = Envelope()
        session.extended_smtp = False
        reply = b""
        try:
            status = await self._call("HELO", event.argument)
            if status is MISSING:
                session.host_name = event.argument
                reply = event.usual
            else:
                reply = self._reply(status)
        finally:
            if not (reply.startswith(b"2") and session.host_name):
                server.envelope, session.extended_smtp, session.host_name = before
        self._greeted(reply)

    def _greeted(self, reply: bytes) -> None:
        """Answer EHLO or HELO; without a name from the hook the client has not been greeted."""
        engine = self._connection.engine
        if reply.startswith(b"2") and self._connection.server.session.host_name:
            engine.accept(reply)
        else:
            engine.reject(reply)

    async def _rset(self, event: Command) -> None:
        self._connection.forget()
        status = await self._call("RSET")
        self._connection.engine.accept(_OK if status is MISSING else self._reply(status))

    async def _noop(self, event: Command) -> None:
        self._plain(await self._call("NOOP", event.argument or None), event)

    async def _vrfy(self, event: Command) -> None:
        address = event.argument
        if address.startswith("<") and address.endswith(">"):
            address = address[1:-1]
        self._plain(await self._call("VRFY", address), event)

    async def _help(self, event: Command) -> None:
        self._plain(MISSING, event)

    def _plain(self, status: Any, event: Command) -> None:
        """Answer a command that changes nothing."""
        engine = self._connection.engine
        reply = event.usual if status is MISSING else self._reply(status)
        if reply.startswith(b"2"):
            engine.accept(reply)
        else:
            engine.reject(reply)

    async def _quit(self, event: Command) -> None:
        status = await self._call("QUIT")
        self._connection.engine.accept(event.usual if status is MISSING else self._reply(status))

    # --- transactions -------------------------------------------------------------------------

    def _refuse_sender(self, event: Mail) -> bool:
        """Refuse what handlers do not know of MAIL; whether there was such a thing."""
        parameters, connection = self._served.parameters, self._connection
        transaction = event.transaction
        refusal = None
        if transaction.body == "BINARYMIME":
            refusal = _NO_BINARY
        elif transaction.ret or transaction.envid or (parameters.decode_data and transaction.body):
            refusal = _NO_PARAMETER
        elif transaction.smtputf8 and not parameters.enable_SMTPUTF8:
            refusal = _NO_UTF8
        if refusal is not None:
            connection.engine.reject(refusal)
            return True
        connection.server.envelope.smtp_utf8 = transaction.smtputf8
        return False

    def _take_sender(self, event: Mail) -> None:
        """Begin a transaction without asking."""
        if self._refuse_sender(event):
            return
        connection, transaction = self._connection, event.transaction
        envelope = connection.server.envelope
        envelope.mail_from = transaction.sender or "<>"
        envelope.mail_options.extend(_options(transaction.words))
        connection.engine.accept(_OK)

    async def _mail(self, event: Mail) -> None:
        if "MAIL" not in self._served.hooks:
            self._take_sender(event)
            return
        if self._refuse_sender(event):
            return
        connection, transaction = self._connection, event.transaction
        status = await self._call("MAIL", transaction.sender or "<>", _options(transaction.words))
        if status is MISSING:
            self._take_sender(event)
            return
        reply = self._reply(status)
        if reply.startswith(b"2") and connection.server.envelope.mail_from:
            connection.engine.accept(reply)
        else:
            if not reply.startswith(b"2"):
                connection.forget()
            connection.engine.reject(reply)

    def _take_recipient(self, event: Recipient) -> None:
        """Accept a recipient without asking."""
        connection = self._connection
        if event.notify or event.orcpt:
            connection.engine.reject(_NO_PARAMETER)
            return
        envelope = connection.server.envelope
        envelope.rcpt_tos.append(event.mailbox.text)
        envelope.rcpt_options.extend(_options(event.words))
        connection.engine.accept(_OK)

    async def _rcpt(self, event: Recipient) -> None:
        connection = self._connection
        if "RCPT" not in self._served.hooks or event.notify or event.orcpt:
            self._take_recipient(event)
            return
        status = await self._call("RCPT", event.mailbox.text, _options(event.words))
        if status is MISSING:
            self._take_recipient(event)
            return
        reply = self._reply(status)
        if reply.startswith(b"2") and connection.server.envelope.rcpt_tos:
            connection.engine.accept(reply)
        else:
            connection.engine.reject(reply)

    async def _data(self, event: Content) -> None:
        parameters, connection = self._served.parameters, self._connection
        envelope, content = connection.server.envelope, connection.content()
        if parameters.decode_data:
            utf8 = parameters.enable_SMTPUTF8
            try:
                envelope.content = content.decode(
                    "utf-8" if utf8 else "ascii", "surrogateescape" if utf8 else "strict"
                )
            except UnicodeDecodeError:
                connection.forget()
                connection.engine.reject(_NOT_ASCII)
                return
        else:
            envelope.content = content
        envelope.original_content = content
        began = time.monotonic()
        status = await self._call("DATA")
        reply = _OK if status is MISSING else self._reply(status)
        connection.forget()
        if reply.startswith(b"2"):
            self._served.session_log.counts.delivery(time.monotonic() - began)
            connection.engine.accept(reply)
        else:
            connection.engine.reject(reply)

    # --- TLS and AUTH -------------------------------------------------------------------------

    def start_tls(self) -> bool:
        """Whether STARTTLS may go on; if not, it has been answered."""
        refusal = self._refusal("STARTTLS")
        if refusal is not None:
            self._connection.engine.reject(refusal)
        return refusal is None

    @property
    def asks_after_tls(self) -> bool:
        """Whether there is a hook to be asked once TLS has begun."""
        return "STARTTLS" in self._served.hooks

    async def tls_started(self) -> None:
        """Ask the hook whether the TLS session is good enough."""
        server = self._connection.server
        self._secure = False
        try:
            okay = self._served.hooks["STARTTLS"](server, server.session, server.envelope)
            # In aiosmtpd this hook is no coroutine function; one that is would always say yes.
            self._secure = bool(await okay if inspect.isawaitable(okay) else okay)
        except Exception:
            logger.exception("%r: exception in handle_STARTTLS()", server.session.peer)

    async def _auth(self, event: Auth) -> None:
        connection = self._connection
        engine, session = connection.engine, connection.server.session
        if session.authenticated:
            engine.reject(_AUTHENTICATED_ALREADY)
            return
        args = [event.mechanism]
        if event.response is not None:
            args.append(base64.b64encode(event.response).decode() or "=")
        connection.held, self.over = b"", False
        try:
            reply = await reply_to_auth(self._served, connection.server, args)
            reply = connection.held + (reply or b"")
        finally:
            connection.held = None
        if self.over:
            self.over = False
        elif not engine.waiting:
            connection.give_up()  # the hook did not wait for the response to its challenge
        elif last_code(reply).startswith(b"2"):
            session.authenticated = True
            engine.accept(reply)
        else:
            engine.reject(reply or INVALID)


_EXTENDED = frozenset({"EHLO", "LHLO"})

_VERBS: dict[type, str] = {Mail: "MAIL", Recipient: "RCPT", Content: "DATA", Auth: "AUTH"}

_ANSWERS: dict[str, Callable[[HookDispatcher, Any], Coroutine[Any, Any, None]]] = {
    "EHLO": HookDispatcher._ehlo,
    "LHLO": HookDispatcher._ehlo,
    "HELO": HookDispatcher._helo,
    "RSET": HookDispatcher._rset,
    "NOOP": HookDispatcher._noop,
    "VRFY": HookDispatcher._vrfy,
    "HELP": HookDispatcher._help,
    "QUIT": HookDispatcher._quit,
    "MAIL": HookDispatcher._mail,
    "RCPT": HookDispatcher._rcpt,
    "DATA": HookDispatcher._data,
    "AUTH": HookDispatcher._auth,
}
