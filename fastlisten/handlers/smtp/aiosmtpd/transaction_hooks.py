"""The hooks of a mail transaction: MAIL, RCPT, DATA.

Rules of this file: the engine decides the state. A hook that returns 5xx has refused, even if it
has filled the envelope; one that returns 250 to MAIL or RCPT without filling it has refused
silently, as in aiosmtpd.
"""

from __future__ import annotations

import time

from fastlisten.handlers.smtp.aiosmtpd.hook_calls import OK, HookCalls
from fastlisten.handlers.smtp.aiosmtpd.hook_replies import HookReply
from fastlisten.handlers.smtp.aiosmtpd.types import MISSING
from fastlisten.handlers.smtp.engine.smtp_events import Mail, Recipient
from fastlisten.mail.envelope import EnvelopeRecipient

__all__ = ["TransactionHooks"]

_NO_UTF8 = b"501 Error: SMTPUTF8 disabled\r\n"
_NO_BINARY = b"501 Error: BODY can only be one of 7BIT, 8BITMIME\r\n"
_NO_PARAMETER = b"555 Parameters not recognized or not implemented\r\n"
_NOT_ASCII = b"500 Error: strict ASCII mode\r\n"

_PARAMETER_REFUSED = HookReply.of(_NO_PARAMETER, accepted=False)
_RECIPIENT_OK = HookReply.of(OK, accepted=True)

#: Parameters whose values are case-sensitive.
_CASE_SENSITIVE = frozenset({"AUTH"})


def _options(words: tuple[str, ...]) -> list[str]:
    """Return the parameters of a command as aiosmtpd passes them to hooks: in upper case."""
    options = []
    for word in words:
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
        options.append(keyword + equals + (value if keyword in _CASE_SENSITIVE else value.upper()))
    return options


class TransactionHooks(HookCalls):
    """The hooks of MAIL, RCPT and DATA."""

    __slots__ = ()

    def _refuse_sender(self, event: Mail) -> bool:
        """Refuse MAIL with parameters that handlers do not know; return whether it had any."""
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
        """Begin a transaction without a hook."""
        if self._refuse_sender(event):
            return
        connection, transaction = self._connection, event.transaction
        envelope = connection.server.envelope
        envelope.mail_from = transaction.sender or "<>"
        envelope.mail_options.extend(_options(transaction.words))
        connection.engine.accept(OK)

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

    def take_recipient(self, recipient: EnvelopeRecipient) -> HookReply:
        """Answer for a recipient without a hook."""
        if recipient.notify or recipient.orcpt:
            return _PARAMETER_REFUSED
        envelope = self._connection.server.envelope
        envelope.rcpt_tos.append(recipient.mailbox.text)
        envelope.rcpt_options.extend(_options(_words(recipient)))
        return _RECIPIENT_OK

    async def _rcpt(self, recipient: EnvelopeRecipient) -> HookReply:
        if "RCPT" not in self._served.hooks or recipient.notify or recipient.orcpt:
            return self.take_recipient(recipient)
        status = await self._call("RCPT", recipient.mailbox.text, _options(_words(recipient)))
        if status is MISSING:
            return self.take_recipient(recipient)
        reply = self._reply(status)
        accepted = reply.startswith(b"2") and bool(self._connection.server.envelope.rcpt_tos)
        return HookReply.of(reply, accepted)

    async def _data(self, content: bytes) -> HookReply:
        parameters, connection = self._served.parameters, self._connection
        envelope = connection.server.envelope
        if parameters.decode_data:
            utf8 = parameters.enable_SMTPUTF8
            try:
                envelope.content = content.decode(
                    "utf-8" if utf8 else "ascii", "surrogateescape" if utf8 else "strict"
                )
            except UnicodeDecodeError:
                connection.forget()
                return HookReply.of(_NOT_ASCII, accepted=False)
        else:
            envelope.content = content
        envelope.original_content = content
        began = time.monotonic()
        status = await self._call("DATA")
        reply = OK if status is MISSING else self._reply(status)
        connection.forget()
        accepted = reply.startswith(b"2")
        if accepted:
            self._served.session_log.counts.delivery(time.monotonic() - began)
        return HookReply.of(reply, accepted)


def _words(recipient: EnvelopeRecipient) -> tuple[str, ...]:
    """Return the parameters of RCPT as the client wrote them."""
    return recipient.words if isinstance(recipient, Recipient) else ()
