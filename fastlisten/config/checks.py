"""Rules that concern several values: of one listener, or of several listeners.

Rules of this file: each function checks one rule. It reports mistakes to the document and may
adjust a listener's value, but never changes what is written. A value that failed to parse has been
reported, and is not checked further.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastlisten.config.document import Document
from fastlisten.config.known_protocols import KnownProtocols
from fastlisten.config.listener_reader import UnresolvedListener
from fastlisten.config.machine import Machine
from fastlisten.config.notation import KeyPath, quote, show_value
from fastlisten.config.settings import Bind, Certificate
from fastlisten.config.values.binds import (
    find_overlaps,
    looks_like_port,
    parse_bind,
    set_v6only,
)
from fastlisten.config.values.grammar import BadValueError
from fastlisten.config.values.tls import TLS13_SUITES

__all__ = [
    "check_binds",
    "check_default_certificate",
    "check_listener",
    "check_total",
    "check_unused_certificates",
    "check_values",
    "has_starttls",
    "read_binds",
    "server_speaks_first",
]

# The port of an address without one if the protocol is unknown, which has been reported.
_ANY_PORT = 25

_BINDS = '"address:port", "[address]:port", "address", "unix:/path", "fd:number" or "systemd:name"'


def check_values(
    document: Document,
    machine: Machine,
    values: Mapping[str, Any],
    at: Callable[[str], KeyPath],
    certificates: Mapping[str, Any],
) -> None:
    """Check the values of one table, `[server]` or a listener's.

    Args:
        document: receives the reports.
        machine: the machine.
        values: typed, by key.
        at: returns the path of a key in this table.
        certificates: by id.
    """
    if values.get("tls.implicit") and values.get("tls.enable") is False:
        document.error(
            at("tls.enable"), "this contradicts tls.implicit = true in the same table", False
        )
    if (tos := values.get("socket.tos")) and tos & 3:
        message = f"the kernel sets the low two bits itself; packets will carry {tos & ~3}"
        document.warning(at("socket.tos"), message, tos)
    if values.get("socket.linger") == 0:
        message = "every close resets the connection, and unsent data is lost"
        document.warning(at("socket.linger"), message, 0)
    if (backlog := values.get("socket.backlog", 0)) > (machine.somaxconn or backlog):
        message = f"the kernel clamps this to net.core.somaxconn = {machine.somaxconn}"
        document.warning(at("socket.backlog"), message, backlog)
    if not machine.tls13_choice:
        _check_tls13_suites(document, values.get("tls.ciphers", ()), at("tls.ciphers"))
    _check_certificates(document, values, at, certificates)


def _check_tls13_suites(document: Document, ciphers: tuple[str, ...], path: KeyPath) -> None:
    """Report a choice of TLS 1.3 suites that this Python's ssl module cannot make."""
    suites = tuple(name for name in ciphers if name in TLS13_SUITES)
    if suites and len(suites) < len(TLS13_SUITES):
        message = "this Python cannot choose between TLS 1.3 suites"
        allowed = "all three TLS 1.3 suites or none (Python 3.15 can choose)"
        document.error(path, message, list(ciphers), allowed)
    elif suites and suites != TLS13_SUITES:
        order = ", ".join(TLS13_SUITES)
        message = f"this Python cannot set the order of TLS 1.3 suites; it is {order}"
        document.warning(path, message, list(ciphers))


def _check_certificates(
    document: Document,
    values: Mapping[str, Any],
    at: Callable[[str], KeyPath],
    certificates: Mapping[str, Any],
) -> None:
    named = [("tls.certificate", values.get("tls.certificate"))]
    named += [("tls.sni", name.certificate) for name in values.get("tls.sni", ())]
    for key, certificate in named:
        if certificate is not None and certificate not in certificates:
            known = ", ".join(map(quote, certificates))
            message = f"there is no [certificate.{show_value(certificate)}]"
            document.error(at(key), message, certificate, known)


def check_listener(
    document: Document,
    listener: UnresolvedListener,
    certificates: Mapping[str, Certificate],
    protocols: KnownProtocols,
) -> None:
    """Resolve TLS, and check the handler and the values that the protocol does not allow."""
    _resolve_tls(listener, certificates)
    _check_handler(document, listener, protocols)
    _resolve_defer_accept(document, listener)
    if listener["tls.enable"] and listener["tls.ciphers"]:
        _check_suites_left(document, listener)
    protocol = listener.base.protocol
    plain = protocol.starttls is False and not listener["tls.implicit"]
    if plain and listener.values.typed.get("tls.enable"):
        message = f"{protocol.name} has no STARTTLS: this has no effect without tls.implicit"
        document.warning(listener.at("tls.enable"), message, True)


def _check_suites_left(document: Document, listener: UnresolvedListener) -> None:
    newer = set(listener["tls.ciphers"]) & set(TLS13_SUITES)
    older = set(listener["tls.ciphers"]) - newer
    spoken = {"TLSv1.2": older, "TLSv1.3": newer}
    silent = [version for version in listener["tls.protocols"] if not spoken[version]]
    if len(silent) == len(listener["tls.protocols"]):
        document.error(
            listener.at("tls.ciphers"), "none of these suites can be used with tls.protocols"
        )
    elif silent:
        written = listener.written_at("tls.ciphers")
        # Only once if several listeners inherit it.
        if not document.has_warning_at(written):
            message = f"none of these suites is for {silent[0]}, which is therefore disabled"
            document.warning(written, message, list(listener["tls.ciphers"]))


def has_starttls(listener: UnresolvedListener) -> bool:
    """Tell whether connections may go over to TLS, for which the listener needs a certificate.

    If the protocol does not say whether it can, it gets TLS if the listener sets `tls.enable` or
    has a certificate.
    """
    protocol = listener.base.protocol
    if not listener["tls.enable"] or listener["tls.implicit"] or protocol.starttls is False:
        return False
    if protocol.starttls or listener["tls.certificate"] is not None:
        return True
    return listener.is_written("tls.enable")


def _resolve_tls(listener: UnresolvedListener, certificates: Mapping[str, Certificate]) -> None:
    typed = listener.values.typed
    if typed.get("tls.implicit"):
        # It overrides an inherited tls.enable = false: never plain text by accident.
        if not listener["tls.enable"]:
            listener.adjusted["tls.enable"] = (True, "listener")
    elif typed.get("tls.enable") is False and listener["tls.implicit"]:
        listener.adjusted["tls.implicit"] = (False, "listener")
    id = find_default_certificate(certificates)
    if id is not None and listener["tls.enable"] and listener["tls.certificate"] is None:
        listener.adjusted["tls.certificate"] = (id, "default")


def find_default_certificate(certificates: Mapping[str, Certificate]) -> str | None:
    """Return the id of the certificate for listeners that name none, None if there is none.

    It is the one with `default = true`, else the one called "default", else the only one.
    """
    for certificate in certificates.values():
        if certificate.default:
            return certificate.id
    if "default" in certificates:
        return "default"
    return next(iter(certificates)) if len(certificates) == 1 else None


def check_default_certificate(document: Document, certificates: Mapping[str, Certificate]) -> None:
    """Report a second default certificate, and one that is only called "default"."""
    chosen = [certificate.id for certificate in certificates.values() if certificate.default]
    for id in chosen[1:]:
        message = f"the default certificate is already [certificate.{quote(chosen[0])}]"
        document.error(("certificate", id, "default"), message, True)
    if chosen and "default" in certificates and not certificates["default"].default:
        message = f"this is not the default, despite its name; [certificate.{quote(chosen[0])}] is"
        document.warning(("certificate", "default"), message)


def _check_handler(
    document: Document, listener: UnresolvedListener, protocols: KnownProtocols
) -> None:
    typed = listener.values.typed
    named = [key for key in ("handler", "forward", "app") if key in typed]
    for key in named[1:]:
        document.error(listener.at(key), f"only one of {named[0]} and {key} can be set")
    protocol = listener.base.protocol
    if "app" in named and protocol.name and not protocol.default_app:
        able = " and ".join(
            each.name for each in protocols.definitions.values() if each.default_app
        )
        message = f"only {able} listeners can have an app; this listener speaks {protocol.name}"
        document.error(listener.at("app"), message)


def check_unused_certificates(
    document: Document,
    listeners: Sequence[UnresolvedListener],
    certificates: Mapping[str, Certificate],
) -> None:
    """Warn about certificates that no client will see: names in them are not looked at."""
    used = set()
    for listener in listeners:
        if listener["tls.implicit"] or has_starttls(listener):
            used.add(listener["tls.certificate"])
            used.update(name.certificate for name in listener["tls.sni"])
    for id in certificates:
        if id not in used:
            message = "no listener uses this certificate: no tls.certificate or tls.sni names it"
            document.warning(("certificate", id), message)


def server_speaks_first(listener: UnresolvedListener) -> bool:
    """Tell whether clients wait for the server; with implicit TLS they never do."""
    return listener.base.protocol.server_speaks_first and not listener["tls.implicit"]


def _resolve_defer_accept(document: Document, listener: UnresolvedListener) -> None:
    if listener["socket.defer-accept"] is None or not server_speaks_first(listener):
        return
    if "socket.defer-accept" in listener.values.typed:
        document.error(
            listener.at("socket.defer-accept"),
            f"in {listener.base.protocol.name} the server speaks first; both sides would wait",
        )
    else:
        listener.adjusted["socket.defer-accept"] = (None, "server")


def check_total(
    document: Document, total: int | None, listeners: Sequence[UnresolvedListener]
) -> None:
    """Check the listeners' reserves against the total that they are part of.

    Args:
        document: receives the reports.
        total: `server.total-connections`, None if it is not set.
        listeners: all listeners.
    """
    for listener in listeners:
        reserve = listener["reserve"]
        if not reserve:
            continue
        if total is None:
            message = "this has no effect without server.total-connections"
            document.warning(listener.at("reserve"), message, reserve)
        elif reserve > listener["max-connections"]:
            most = listener["max-connections"]
            message = f"this is more than the listener can use: its max-connections is {most}"
            document.error(listener.at("reserve"), message, reserve, f"0 to {most}")
    kept = sum(listener["reserve"] for listener in listeners)
    if total is not None and kept >= total:
        message = f"the listeners' reserves add up to {kept}, which leaves nothing to share"
        document.error(("server", "total-connections"), message, total, f"more than {kept}")


def read_binds(document: Document, listener: UnresolvedListener) -> None:
    """Parse the addresses of a listener, with its protocol's standard port."""
    texts = listener.values.typed.get("bind")
    if texts is None:
        return
    protocol = listener.base.protocol
    port = protocol.standard_port(listener["tls.implicit"]) if protocol.name else _ANY_PORT
    path = listener.at("bind")
    single = isinstance(document.value_at(path), str)
    for index, text in enumerate(texts):
        here = path if single else (*path, index)
        try:
            bind = parse_bind(text, port)
        except BadValueError as error:
            listener.values.failed.add("bind")
            allowed = _BINDS if error.allowed is None else error.allowed
            document.error(here, error.message, text, allowed, error.suggestion)
            continue
        listener.binds.append(bind)
        listener.bind_paths.append(here)
        if tail := looks_like_port(bind):
            address = bind.text.strip().removesuffix(f":{tail}")
            document.warning(
                here,
                f"{tail} is taken as part of the address; the port is {bind.port}",
                text,
                quote(f"[{address}]:{tail}"),
            )
        if message := _mistaken_port(listener, bind):
            document.warning(here, message, text)
    _check_families(document, listener)


def _mistaken_port(listener: UnresolvedListener, bind: Bind) -> str:
    """Say what is wrong with a standard port, such as 993 without TLS; empty if nothing is."""
    protocol = listener.base.protocol
    implicit = listener["tls.implicit"]
    if not protocol.name or bind.family not in ("inet", "inet6"):
        return ""
    if bind.port == protocol.standard_port(implicit):
        return ""
    if bind.port != protocol.standard_port(not implicit):
        return ""
    if implicit:
        return f"clients do not begin with TLS on port {bind.port}: is tls.implicit meant?"
    if listener.values.typed.get("tls.enable") is False:
        return ""  # TLS ends elsewhere
    return f"clients begin with TLS on port {bind.port}: tls.implicit = true is missing"


def _check_families(document: Document, listener: UnresolvedListener) -> None:
    """Warn about keys that mean nothing for any of the listener's binds."""
    if "bind" in listener.values.failed:
        return
    families = {bind.family for bind in listener.binds}
    if listener.values.typed.get("socket.reuse-port") and not families & {"inet", "inet6"}:
        text = "this has no effect: no bind is an IP address"
        document.warning(listener.at("socket.reuse-port"), text)
    if "unix" in families:
        return
    for key in ("socket.mode", "socket.user", "socket.group"):
        if key in listener.values.typed:
            document.warning(listener.at(key), "this has no effect: no bind is a unix: socket")


def check_binds(document: Document, listeners: Sequence[UnresolvedListener]) -> None:
    """Report addresses that are used twice, and set IPV6_V6ONLY of all listeners."""
    claims = [(listener.id, bind) for listener in listeners for bind in listener.binds]
    paths = [path for listener in listeners for path in listener.bind_paths]
    for index, other in find_overlaps(claims):
        (id, bind), (other_id, other_bind) = claims[index], claims[other]
        user = "this listener" if id == other_id else f"listener {quote(other_id)}"
        message = f"address already used by {user}"
        if bind.address != other_bind.address:
            message += f": {quote(other_bind.text)} covers it"
        document.error(paths[index], message, bind.text)
    ipv4_wildcards = frozenset(
        bind.port for _, bind in claims if bind.family == "inet" and bind.wildcard and bind.port
    )
    for listener in listeners:
        listener.binds = list(set_v6only(listener.binds, ipv4_wildcards))
