"""What all connections of an aiosmtpd handler share.

Rules of this file: made once per listener; it finds out which hooks the handler has, and derives
from them and from the parameters what the engine is told. Nothing about a single connection.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastlisten._tls import TlsSettings
from fastlisten.handlers.smtp.aiosmtpd.aiosmtpd_parameters import AiosmtpdParameters
from fastlisten.handlers.smtp.aiosmtpd.blocking_handlers import blocking_hook
from fastlisten.handlers.smtp.aiosmtpd.eager_tasks import EagerTasks
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING
from fastlisten.handlers.smtp.dialogue_log import DialogueEngine, foreign_transcript
from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.replies import TELLABLE, Limits
from fastlisten.handlers.smtp.session_log import SessionLog
from fastlisten.handlers.transcript import Transcript, transcript
from fastlisten.mail.counts import Counts

__all__ = ["IDENT", "Authenticate", "ServedHandler"]

logger = logging.getLogger("fastlisten.smtp")

#: The text of the greeting after the host name.
IDENT = "ESMTP fastlisten"

#: An authenticator as aiosmtpd has it, or a coroutine function.
Authenticate = Callable[..., Any]

_MECHANISM = re.compile(r"[A-Z0-9_-]{1,20}\Z")

#: Extensions that handlers were not written for. DSN and BINARYMIME are promises that only the
#: handler could keep. Enhanced status codes must be in all replies or in none (RFC 2034), and those
#: of handlers have none.
_NOT_OFFERED = {"DSN", "BINARYMIME", "ENHANCEDSTATUSCODES"}


class ServedHandler:
    """A handler, as connections use it.

    Args:
        handler: an object with handle_* and auth_* methods.
        parameters: aiosmtpd's.
        hostname: the name the server calls itself.
        protocol: ``smtp`` or ``lmtp``.
        tls: how STARTTLS is carried out, None if it is not offered.
        authenticate: verifies the credentials of PLAIN and LOGIN; None to offer neither, unless the
            handler has a handle_AUTH hook.
        session_log: the log; None for one of its own.
        logs_dialogue: whether commands and replies are logged; None: if aiosmtpd's logger is
            enabled.

    Attributes:
        hooks: the handler's handle_* methods, by what follows the underscore.
        auth_hooks: its auth_* methods, by mechanism.
        limits: what the engine is told.
        conditional: a command may be refused by something other than its hook.
        ehlo_form: the number of parameters of handle_EHLO, 0 without one.

    Raises:
        TypeError: the handler cannot be served; the message says why.
    """

    def __init__(
        self,
        handler: Any,
        parameters: AiosmtpdParameters,
        hostname: str,
        *,
        protocol: Literal["smtp", "lmtp"] = "smtp",
        tls: TlsSettings | None = None,
        authenticate: Authenticate | None = None,
        session_log: SessionLog | None = None,
        logs_dialogue: bool | None = None,
    ) -> None:
        self.handler = handler
        self.parameters = parameters
        self.hostname = hostname
        self.ident = IDENT if parameters.ident is None else parameters.ident
        self.protocol = protocol
        self.tls = tls
        self.session_log = session_log or SessionLog("", Counts())
        self._logs_dialogue = logs_dialogue
        self.authenticate = authenticate
        self._eager_tasks: EagerTasks | None = None
        self._ehlo_lines: dict[bytes, tuple[str, ...]] = {}
        self.hooks: dict[str, Callable[..., Any]] = {
            name.removeprefix("handle_"): getattr(handler, name)
            for name in dir(handler)
            if name.startswith("handle_")
        }
        if "DATA" not in self.hooks and hasattr(handler, "process_message"):
            warnings.warn(
                "write handle_DATA() instead of process_message()", DeprecationWarning, stacklevel=3
            )
            self.hooks["DATA"] = _of_process_message(handler.process_message)
        if (hook := blocking_hook(handler)) is not None:
            self.hooks["DATA"] = hook
        self.ehlo_form = _ehlo_form(self.hooks.get("EHLO"))
        self.auth_hooks = _auth_hooks(handler)
        self.conditional = (
            parameters.require_starttls
            or parameters.auth_required
            or parameters.command_call_limit is not None
            or "STARTTLS" in self.hooks
        )
        self.limits = Limits(
            hostname=hostname,
            max_message_size=parameters.max_message_size,
            max_recipients=parameters.max_recipients,
            max_errors=parameters.max_errors,
            starttls=tls is not None,
            protocol=protocol,
            mechanisms=self._mechanisms(),
            auth_in_clear=not parameters.auth_require_tls,
            told=self._told(),
            counts=self.session_log.counts,
        )

    def _mechanisms(self) -> tuple[str, ...]:
        names = set(self.auth_hooks)
        if self.authenticate is not None or "AUTH" in self.hooks:
            names |= {"PLAIN", "LOGIN"}
        names -= {name.upper() for name in self.parameters.auth_exclude_mechanism or ()}
        return tuple(sorted(names))

    def _told(self) -> frozenset[str]:
        """Return the commands that the engine leaves to connections to answer."""
        parameters = self.parameters
        everything = parameters.require_starttls or parameters.command_call_limit is not None
        if everything or "STARTTLS" in self.hooks:
            return TELLABLE
        told = {"EHLO", "HELO", "LHLO"} | (TELLABLE & self.hooks.keys())
        return frozenset(told | {"VRFY"} if parameters.auth_required else told)

    def transcript(self, peer: Any, session: str) -> Transcript | None:
        """Return a function that logs a session's dialogue, None if it is not logged.

        For a listener of the configuration the option decides, in a program aiosmtpd's logger.
        """
        if self._logs_dialogue is None:
            return foreign_transcript(peer)
        if not self._logs_dialogue:
            return None
        host, port = peer[:2] if isinstance(peer, tuple) else ("", 0)
        return transcript(self.session_log.listener, host, port, session)

    @property
    def engine_kind(self) -> type[SmtpEngine]:
        """The class of engine that connections need."""
        wanted = self._logs_dialogue
        if wanted is None:
            wanted = foreign_transcript(None) is not None
        return DialogueEngine if wanted else SmtpEngine

    def eager_tasks(self, loop: asyncio.AbstractEventLoop) -> EagerTasks:
        """Return what runs hooks on the loop that serves; made at the first call."""
        if self._eager_tasks is None:
            self._eager_tasks = EagerTasks(loop)
        return self._eager_tasks

    def close(self) -> None:
        """Log what was omitted, and release the loop."""
        self.session_log.close()
        tasks, self._eager_tasks = self._eager_tasks, None
        if tasks is not None:
            tasks.close()

    @property
    def greeting(self) -> bytes:
        """The first line that a client gets."""
        ident = self.ident
        if self.protocol == "lmtp" and ident == IDENT:
            ident = ident.replace("ESMTP", "LMTP")
        return f"220 {self.hostname} {ident}".rstrip().encode() + b"\r\n"

    def ehlo_lines(self, usual: bytes) -> tuple[str, ...]:
        """Return the lines of the reply to EHLO in aiosmtpd's form, without CRLF.

        Args:
            usual: the engine's reply.
        """
        lines = self._ehlo_lines.get(usual)
        if lines is None:
            # There are two: before and after STARTTLS.
            lines = self._ehlo_lines[usual] = self._make_ehlo_lines(usual)
        return lines

    def _make_ehlo_lines(self, usual: bytes) -> tuple[str, ...]:
        parameters = self.parameters
        dropped = set(_NOT_OFFERED)
        if not parameters.enable_SMTPUTF8:
            dropped.add("SMTPUTF8")
        if parameters.decode_data:
            dropped.add("8BITMIME")
        head, *offered = [line[4:] for line in usual.decode().splitlines()]
        texts = [head, *(text for text in offered if text.partition(" ")[0] not in dropped)]
        return (*(f"250-{text}" for text in texts[:-1]), f"250 {texts[-1]}")


def _ehlo_form(hook: Callable[..., Any] | None) -> int:
    """Return the number of arguments to call handle_EHLO with, 0 without a hook.

    Raises:
        TypeError: the hook has neither of the two forms.
    """
    if hook is None:
        return 0
    number = len(inspect.signature(hook).parameters)
    if number == 4:
        warnings.warn(
            "use the 5-argument form of handle_EHLO, which gets the lines of the reply; "
            "aiosmtpd 2.0 will drop the 4-argument form",
            DeprecationWarning,
            stacklevel=3,
        )
    elif number != 5:
        raise TypeError(f"handle_EHLO must have 4 or 5 parameters besides self, not {number}")
    return number


def _auth_hooks(handler: Any) -> dict[str, Callable[..., Any]]:
    """Return the auth_* methods by the name of their mechanism in upper case.

    Raises:
        TypeError: a method's name is not that of a mechanism.
    """
    found = {}
    for name in dir(handler):
        if not name.startswith("auth_"):
            continue
        hook = getattr(handler, name)
        if not callable(hook):
            continue  # a setting: auth_url, auth_token
        written = name.removeprefix("auth_").replace("__", "-")
        mechanism = getattr(hook, "__auth_mechanism_name__", written).upper()
        if _MECHANISM.match(mechanism) is None:
            raise TypeError(f"{name}: {mechanism!r} is not a SASL mechanism name (RFC 4422 3.1)")
        found[mechanism] = hook
    return found


def _of_process_message(process: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return a handle_DATA hook that calls process_message(), as handlers of smtpd have it."""

    async def handle(server: Any, session: Any, envelope: Any) -> Any:
        arguments = (session.peer, envelope.mail_from, envelope.rcpt_tos, envelope.content)
        status = process(*arguments)
        if inspect.isawaitable(status):
            status = await status
        return MISSING if status is None else status

    return handle
