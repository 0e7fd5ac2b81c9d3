"""Checks of smtp and lmtp listeners' settings that concern each other: role, relay, TLS, ports.

Rules of this file: a password that could be sent in plain text, or a submission service that nobody
could log in to, is an error; a setting that merely has no effect gets a warning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastlisten.addresses import is_loopback
from fastlisten.handlers.smtp.role import role_by_port

if TYPE_CHECKING:
    from fastlisten.handlers.check_interface import CheckedListener, CheckedProtocol

__all__ = ["check_lmtp", "check_smtp"]

# RFC 2033 5: LMTP must not be offered on the port of SMTP.
_SMTP_PORT = 25

#: Names of listeners for users: submission, smtp-submissions, msa.
_SUBMISSION_NAME = re.compile(r"submission|\bmsa\b", re.IGNORECASE)

#: The rows that say how to talk to the relay; they have no effect without one.
_RELAY_KEYS = ("relay-tls", "relay-user", "relay-password", "relay-ca", "relay-timeout")


def check_smtp(smtp: CheckedProtocol) -> None:
    """Check all smtp listeners, and the table `[smtp]`."""
    for listener in smtp.listeners:
        _check_aiosmtpd(smtp.name, listener)
        _check_role(smtp.name, listener)
        _check_relay(smtp.name, listener)
    for key in _RELAY_KEYS:
        _check_table(smtp, key, "relay")
    _check_table(smtp, "aiosmtpd-args", "aiosmtpd-handler")


def check_lmtp(lmtp: CheckedProtocol) -> None:
    """Check all lmtp listeners, and the table `[lmtp]`."""
    for listener in lmtp.listeners:
        for bind in listener.binds:
            if bind.port == _SMTP_PORT:
                bind.error("LMTP must not be on port 25 (RFC 2033)")
        _check_aiosmtpd(lmtp.name, listener)
    _check_table(lmtp, "aiosmtpd-args", "aiosmtpd-handler")


def _check_table(protocol: CheckedProtocol, key: str, needed: str) -> None:
    """Warn about a default that applies to no listener."""
    needed = f"{protocol.name}.{needed}"
    if protocol.table_sets(key) and all(each[needed] is None for each in protocol.listeners):
        protocol.table_warning(key, f"this has no effect: no listener has {needed}")


def _check_aiosmtpd(protocol: str, listener: CheckedListener) -> None:
    """Report arguments without a handler."""
    key = f"{protocol}.aiosmtpd-args"
    if listener.sets(key) and listener[f"{protocol}.aiosmtpd-handler"] is None:
        message = "this has no effect without aiosmtpd-handler, whose arguments they are"
        listener.error(key, message)


def _check_role(protocol: str, listener: CheckedListener) -> None:
    """Report a submission service without TLS: passwords are taken over TLS only."""
    role = listener[f"{protocol}.role"]
    if role is None:
        ports = [bind.port for bind in listener.binds if bind.port]
        role = role_by_port(ports[0] if ports else 0)
        own_code = ("handler", f"{protocol}.aiosmtpd-handler")
        if any(listener[key] is not None for key in own_code):
            pass  # whoever wrote the code decides who may send
        elif any(role_by_port(port) != role for port in ports):
            _warn_of_both_roles(protocol, listener, ports, role)
        elif role == "mx":
            _check_meant_for_users(protocol, listener)
    if role == "submission" and not (listener["tls.implicit"] or listener.starttls):
        key = f"{protocol}.role" if listener.is_set(f"{protocol}.role") else "tls.enable"
        message = "nobody could authenticate here: submission takes passwords over TLS only"
        listener.error(key, message)


def _check_meant_for_users(protocol: str, listener: CheckedListener) -> None:
    """Warn where a listener looks like submission, and its port makes it one for strangers."""
    if listener["tls.implicit"]:
        looks = "TLS from the first byte is for submission"
    elif _SUBMISSION_NAME.search(listener.id):
        looks = "its name is one for submission"
    else:
        return
    message = f"{looks}, but on this address it is an mx and takes mail from strangers; write "
    message += f'{protocol}.role = "submission", or "mx" if that is meant'
    listener.warning("", message)


def _warn_of_both_roles(
    protocol: str, listener: CheckedListener, ports: Sequence[int], role: str
) -> None:
    """Warn where ports of submission and others are together: a listener has one role."""
    other = next(port for port in ports if role_by_port(port) != role)
    does = "takes mail from strangers" if role == "mx" else "takes mail only after a login"
    message = f"the role of a listener comes from its first port, so this one is {role} and {does} "
    message += f"on port {other} too; make two listeners, or write {protocol}.role if that is meant"
    listener.warning("", message)


def _check_relay(protocol: str, listener: CheckedListener) -> None:
    keys = {key: f"{protocol}.{key}" for key in ("relay", *_RELAY_KEYS)}
    if any(listener.is_wrong(key) for key in keys.values()):
        return
    if listener[keys["relay"]] is None:
        for key in _RELAY_KEYS:
            if listener.sets(keys[key]):
                message = f"this has no effect without {keys['relay']}: there is no relay to use "
                listener.error(keys[key], message + key)
        return
    user, password = keys["relay-user"], keys["relay-password"]
    for one, other in ((user, password), (password, user)):
        if listener[one] is not None and listener[other] is None:
            listener.error(one, f"{one} goes with {other}, which is not set")
    login = listener[user] is not None and listener[password] is not None
    _check_relay_tls(keys, listener, login)


def _check_relay_tls(keys: dict[str, str], listener: CheckedListener, login: bool) -> None:
    relay, mode = listener[keys["relay"]], listener[keys["relay-tls"]]
    if relay.port == 0 and mode in ("verify", "implicit"):
        message = "a Unix socket has no name that a certificate could be checked against"
        listener.error(keys["relay-tls"], message)
    if login and mode in ("may", "none") and not _is_on_this_host(relay):
        message = "the password could be sent in plain text"
        listener.error(keys["relay-tls"], message, '"verify" or "implicit"')
    if listener[keys["relay-ca"]] is not None and (
        mode in ("may", "none") or (mode is None and not login) or relay.port == 0
    ):
        message = "the certificate is not checked unless relay-tls is verify or implicit"
        listener.error(keys["relay-ca"], message)


def _is_on_this_host(relay: Any) -> bool:
    """Tell whether what is sent to a relay (an address with `host` and `port`) stays here."""
    return relay.port == 0 or relay.host == "localhost" or is_loopback(relay.host)
