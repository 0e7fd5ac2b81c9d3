"""Begins a session with a relay: connect, EHLO, STARTTLS, EHLO, AUTH.

Rules of this file: it does what `smtp.relay-tls` and `smtp.relay-user` ask for, and knows nothing
about messages.
"""

from __future__ import annotations

from collections.abc import Callable

from fastlisten.mail.relay.client import SmtpClient, UnexpectedReplyError
from fastlisten.mail.relay.relay import Relay
from fastlisten.mail.relay.relay_error import quoted
from fastlisten.mail.relay.relay_log import log_relay

__all__ = ["begin_session"]


async def begin_session(smtp: SmtpClient, relay: Relay, check: Callable[[], None]) -> None:
    """Connect to a relay, up to the point where MAIL may follow.

    Args:
        smtp: not connected yet.
        relay: the relay.
        check: called between the steps; raises an exception if the session has been aborted.

    Raises:
        UnexpectedReplyError: the relay refuses.
        ValueError: it offers no TLS, or no mechanism that we know.
        RemoteClosedError, OutOfSyncError, MalformedReplyError, OSError (and TimeoutError)
    """
    settings = relay.settings
    implicit = relay.context if settings.tls == "implicit" else None
    await smtp.connect(settings.host, settings.port, implicit, settings.hostname)
    check()
    if settings.tls in ("verify", "may"):
        await _start_tls(smtp, relay)
    if settings.user:
        if not (smtp.encrypted or settings.is_on_this_host):
            raise ValueError("it offers no TLS, so the password is not sent")
        await smtp.login(settings.user, settings.password)
    check()


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
