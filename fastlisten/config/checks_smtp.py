"""What must hold between the values of an smtp listener: its role, its relay, its TLS.

Rules of this file: as of checks.py. A password that could travel in plain text, or a submission
service that nobody could log in to, is a mistake; what merely means nothing is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastlisten.addresses import is_loopback
from fastlisten.config.checks import has_starttls
from fastlisten.config.document import NOTHING, Document
from fastlisten.config.drafts import Draft
from fastlisten.config.values.network import Endpoint
from fastlisten.handlers.smtp.settings import role_by_port

__all__ = ["check_relays", "check_smtp"]

#: Names of listeners for users: submission, smtp-submissions, msa.
_SUBMISSION_NAME = re.compile(r"submission|\bmsa\b", re.IGNORECASE)

#: The rows that say how the relay is spoken to; they mean nothing without one.
_OF_RELAY = ("relay-tls", "relay-user", "relay-password", "relay-ca", "relay-timeout")


def check_smtp(document: Document, draft: Draft) -> None:
    """Check one listener; its addresses have been read."""
    protocol = draft.base.protocol.name
    if protocol in ("smtp", "lmtp"):
        _check_aiosmtpd(document, draft, protocol)
    if protocol != "smtp":
        return
    _check_role(document, draft)
    # What failed to parse, here or in [smtp], has been reported.
    paths = [(draft.at(f"smtp.{key}"), ("smtp", key)) for key in ("relay", *_OF_RELAY)]
    if any(document.has_errors_at(*places) for places in paths):
        return
    relay = draft["smtp.relay"]
    if relay is None:
        for key in _OF_RELAY:
            if f"smtp.{key}" in draft.values.typed:
                message = f"this means nothing without smtp.relay: there is no relay to use {key}"
                document.error(draft.at(f"smtp.{key}"), message)
        return
    user, password = draft["smtp.relay-user"], draft["smtp.relay-password"]
    for one, other in (("user", "password"), ("password", "user")):
        key = f"smtp.relay-{one}"
        if draft[key] is not None and draft[f"smtp.relay-{other}"] is None:
            _error(document, draft, key, f"relay-{one} goes with relay-{other}, which is not set")
    _check_relay_tls(document, draft, relay, user is not None and password is not None)


def _check_aiosmtpd(document: Document, draft: Draft, protocol: str) -> None:
    """Report arguments for a handler that is not there."""
    key = f"{protocol}.aiosmtpd-args"
    if key in draft.values.typed and draft[f"{protocol}.aiosmtpd-handler"] is None:
        message = "this means nothing without aiosmtpd-handler, whose arguments they are"
        document.error(draft.at(key), message, draft[key])


def _check_role(document: Document, draft: Draft) -> None:
    """Report a submission service without TLS: passwords are taken over TLS only."""
    role = draft["smtp.role"]
    if role is None:
        ports = [bind.port for bind in draft.binds if bind.port]
        role = role_by_port(ports[0] if ports else 0)
        if draft["handler"] is not None or draft["smtp.aiosmtpd-handler"] is not None:
            pass  # whoever wrote the code decides who may send
        elif any(role_by_port(port) != role for port in ports):
            _warn_of_both_roles(document, draft, ports, role)
        elif role == "mx":
            _check_meant_for_users(document, draft)
    if role == "submission" and not (draft["tls.implicit"] or has_starttls(draft)):
        key = "smtp.role" if draft.is_written("smtp.role") else "tls.enable"
        message = "nobody could authenticate here: submission takes passwords over TLS only"
        _error(document, draft, key, message, draft[key])


def _check_meant_for_users(document: Document, draft: Draft) -> None:
    """Warn where a listener looks like submission, and its port makes it one for strangers."""
    if draft["tls.implicit"]:
        looks = "TLS from the first byte is for submission"
    elif _SUBMISSION_NAME.search(draft.id):
        looks = "its name is one for submission"
    else:
        return
    message = f"{looks}, but on this address it is an mx and takes mail from strangers; write "
    message += 'smtp.role = "submission", or "mx" if that is meant'
    document.warning(draft.path, message)


def _warn_of_both_roles(document: Document, draft: Draft, ports: Sequence[int], role: str) -> None:
    """Warn where ports of submission and others are together: a listener has one role."""
    other = next(port for port in ports if role_by_port(port) != role)
    does = "takes mail from strangers" if role == "mx" else "takes mail only after a login"
    message = f"the role of a listener comes from its first port, so this one is {role} and {does} "
    message += f"on port {other} too; make two listeners, or write smtp.role if that is meant"
    document.warning(draft.path, message)


def _check_relay_tls(document: Document, draft: Draft, relay: Endpoint, login: bool) -> None:
    mode = draft["smtp.relay-tls"]
    if relay.port == 0 and mode in ("verify", "implicit"):
        message = "a Unix socket has no name that a certificate could be checked against"
        _error(document, draft, "smtp.relay-tls", message, mode)
    if login and mode in ("may", "none") and not is_near(relay):
        message = "the password could be sent in plain text"
        _error(document, draft, "smtp.relay-tls", message, mode, '"verify" or "implicit"')
    if draft["smtp.relay-ca"] is not None and (
        mode in ("may", "none") or (mode is None and not login) or relay.port == 0
    ):
        message = "the certificate is not checked unless relay-tls is verify or implicit"
        _error(document, draft, "smtp.relay-ca", message, draft["smtp.relay-ca"])


def is_near(relay: Endpoint) -> bool:
    """Tell whether what is sent to a relay stays on this host."""
    return relay.port == 0 or relay.host == "localhost" or is_loopback(relay.host)


def _error(
    document: Document,
    draft: Draft,
    key: str,
    message: str,
    value: Any = NOTHING,
    allowed: str = "",
) -> None:
    """Report a mistake where the value is written, once for all listeners that inherit it."""
    path = draft.written_at(key)
    if not document.has_errors_at(path):
        document.error(path, message, value, allowed)


def check_relays(document: Document, drafts: Sequence[Draft], table: dict[str, Any]) -> None:
    """Warn of what `[smtp]` says of a relay that no listener has, or of a handler likewise.

    Args:
        document: receives the reports.
        drafts: all listeners.
        table: the values of handlers' own tables, by full key.
    """
    rows = [("smtp", key, "relay") for key in _OF_RELAY]
    rows += [(name, "aiosmtpd-args", "aiosmtpd-handler") for name in ("smtp", "lmtp")]
    for name, key, needed in rows:
        if f"{name}.{key}" in table and not any(
            draft[f"{name}.{needed}"] is not None
            for draft in drafts
            if draft.base.protocol.name == name
        ):
            message = f"this means nothing, no listener has {name}.{needed}"
            document.warning((name, key), message)
