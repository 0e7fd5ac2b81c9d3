"""Which hook of an aiosmtpd handler answers an event of the engine.

Rules of this file: no transport. Hooks are called as aiosmtpd calls them, and their answers mean
what they mean there. The exceptions, all on the safe side, are stated at the head of
command_hooks.py, transaction_hooks.py and hook_replies.py. If handle_STARTTLS raises, the client
gets no service, as if it had returned False.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastlisten.handlers.smtp.aiosmtpd.auth_hooks import AuthHooks
from fastlisten.handlers.smtp.aiosmtpd.command_hooks import CommandHooks
from fastlisten.handlers.smtp.aiosmtpd.hook_replies import HookReply
from fastlisten.handlers.smtp.aiosmtpd.transaction_hooks import TransactionHooks
from fastlisten.handlers.smtp.engine.smtp_events import Auth, Command, Event, Mail
from fastlisten.mail.envelope import EnvelopeRecipient

__all__ = ["HookDispatcher"]

logger = logging.getLogger("fastlisten.smtp")

#: Commands that are allowed before STARTTLS where that is required (RFC 3207 4).
BEFORE_STARTTLS = frozenset({"EHLO", "LHLO", "NOOP", "QUIT"})

#: Commands that need a successful AUTH where that is required; the others of a transaction come
#: after MAIL.
AFTER_AUTH = frozenset({"MAIL", "VRFY"})

_INSECURE = b"554 Command refused due to lack of security\r\n"
_STARTTLS_FIRST = b"530 Must issue a STARTTLS command first\r\n"
_AUTH_FIRST = b"530 5.7.0 Authentication required\r\n"

_EXTENDED = frozenset({"EHLO", "LHLO"})

_VERBS: dict[type, str] = {Mail: "MAIL", Auth: "AUTH"}


class HookDispatcher(CommandHooks, TransactionHooks, AuthHooks):
    """The hooks of one connection."""

    __slots__ = ()

    def answer_unasked(self, event: Event) -> bool:
        """Answer an event that no hook is asked about; return whether it was one.

        Most handlers have hooks for one or two commands. A coroutine for each of the others would
        cost as much as the engine's own work.
        """
        served = self._served
        if served.conditional:
            return False
        if isinstance(event, Mail):
            if "MAIL" in served.hooks:
                return False
            self._take_sender(event)
        elif isinstance(event, Command) and event.verb in _EXTENDED and served.ehlo_form == 0:
            self._take_name(event)
        else:
            return False
        return True

    async def answer(self, event: Event) -> None:
        """Answer an event; never raises an Exception."""
        engine = self._connection.engine
        verb = event.verb if isinstance(event, Command) else _VERBS[type(event)]
        try:
            refusal = self._refusal(verb) if self._served.conditional else None
            if refusal is not None:
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
                if verb == "MAIL":
                    self._connection.forget()
                engine.reject(reply)

    # --- the message, as hook_delivery.py asks ------------------------------------------------

    @property
    def asks_about_recipients(self) -> bool:
        """Whether a recipient may have to wait for a hook."""
        return self._served.conditional or "RCPT" in self._served.hooks

    def recipients(self) -> list[str]:
        """Return the addresses that the handler has accepted."""
        return list(self._connection.server.envelope.rcpt_tos)

    async def recipient(self, recipient: EnvelopeRecipient) -> HookReply:
        """Ask for a recipient; never raises an Exception."""
        try:
            refusal = self._refusal("RCPT") if self._served.conditional else None
            if refusal is None:
                return await self._rcpt(recipient)
        except Exception as error:
            refusal = await self._of_exception(error)
        return HookReply.of(refusal, accepted=False)

    async def message(self, content: bytes) -> HookReply:
        """Hand the message over; never raises an Exception."""
        try:
            refusal = self._refusal("DATA") if self._served.conditional else None
            if refusal is None:
                return await self._data(content)
        except Exception as error:
            refusal = await self._of_exception(error)
            self._connection.forget()
        return HookReply.of(refusal, accepted=False)

    def _refusal(self, verb: str) -> bytes | None:
        """Return the refusal of a command that its hook is not asked about; None if it is."""
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

    # --- TLS ----------------------------------------------------------------------------------

    def start_tls(self) -> bool:
        """Return whether STARTTLS may go on; if not, it has been refused."""
        refusal = self._refusal("STARTTLS")
        if refusal is not None:
            self._connection.engine.reject(refusal)
        return refusal is None

    @property
    def asks_after_tls(self) -> bool:
        """Whether there is a hook to ask once TLS has begun."""
        return "STARTTLS" in self._served.hooks

    async def tls_started(self) -> None:
        """Ask handle_STARTTLS whether the TLS session is good enough."""
        server = self._connection.server
        self._secure = False
        try:
            okay = self._served.hooks["STARTTLS"](server, server.session, server.envelope)
            # In aiosmtpd this hook is a plain function; a coroutine function would always mean yes.
            self._secure = bool(await okay if inspect.isawaitable(okay) else okay)
        except Exception:
            logger.exception("%r: exception in handle_STARTTLS()", server.session.peer)


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
    "AUTH": HookDispatcher._auth,
}
