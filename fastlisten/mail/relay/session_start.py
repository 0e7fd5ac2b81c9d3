"""The start of a session with a relay: connect, EHLO, STARTTLS, EHLO, AUTH.

Rules of this file: what `smtp.relay-tls` and `smtp.relay-user` ask for, and nothing of a message.
"""

from __future__ import annotations

from collections.abc import Callable

from fastlisten.mail.relay.client import SmtpClient, UnexpectedReplyError
from fastlisten.mail.relay.relay import Relay
from fastlisten.mail.relay.relay_error import quoted
from fastlisten.mail.relay.relay_log import log_relay

__all__ = ["begin_session"]


async def begin_session(smtp: SmtpClient, relay: Relay, go_on: Callable[[], None]) -> None:
    """Connect to a relay, and get as far as MAIL.

    Args:
        smtp: not connected yet.
        relay: where to.
        go_on: called between the steps; raises an exception if the session is not wanted any more.

    Raises:
        UnexpectedReplyError: the relay refuses.
        ValueError: it does not offer TLS, or no way to log in.
        RemoteClosedError, OutOfSyncError, MalformedReplyError, OSError (and TimeoutError)
    """
    settings = relay.settings
    implicit = relay.context if settings.tls == "implicit" else None
    await smtp.connect(settings.host, settings.port, implicit, settings.hostname)
    go_on()
    if settings.tls in ("verify", "may"):
        await _start_tls(smtp, relay)
    if settings.user:
        if not (smtp.encrypted or settings.near):
            raise ValueError("it offers no TLS, so the password is not sent")
        await smtp.login(settings.user, settings.password)
    go_on()


async def _start_tls(smtp: SmtpClient, relay: Relay) -> None:
    settings = relay.settings
    needed = settings.tls == "verify"
    if "STARTTLS" not in smtp.extensions:
        if needed:
            raise ValueError("it does not offer STARTTLS")
        return
    assert relay.context is not None
    try:
        await smtp.start_tls(relay.context, settings.host if settings.port else "")
    except UnexpectedReplyError as error:
        if needed or error.reply.code < 400:
            raise
        reply = f"{error.reply.code} {quoted(error.reply.text)}"
        log_relay(settings, "relay-without-tls", "no TLS", reply=reply)
        return
    await smtp.hello(settings.hostname)
