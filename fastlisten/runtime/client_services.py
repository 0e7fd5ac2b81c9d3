"""Which services a configuration offers to users' mail programs.

Rules of this file: decided by the configuration alone. A listener that only this host can reach, or
whose port is not known (port 0, an inherited socket, a Unix socket), is offered to nobody; neither
is one without TLS, because passwords are taken over TLS only. If a firewall gives clients other
ports, the administrator has to say so elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastlisten.config import Bind, Config, ListenerSettings
from fastlisten.handlers.smtp.role import role_by_port
from fastlisten.mail.client_setup.services import ClientService

__all__ = ["client_services", "documents_at", "receives_mail"]


def _public(listener: ListenerSettings) -> Iterator[Bind]:
    for bind in listener.bind:
        loopback = bind.address.startswith("127.") or bind.address == "::1"
        if bind.family in ("inet", "inet6") and bind.port and not loopback:
            yield bind


def _role(listener: ListenerSettings) -> str:
    first = next((bind.port for bind in listener.bind if bind.port), 0)
    return listener["smtp.role"] or role_by_port(first)


def client_services(config: Config) -> tuple[ClientService, ...]:
    """Return the services for users' mail programs, sorted."""
    found: set[ClientService] = set()
    for listener in config.listeners:
        implicit = listener["tls.implicit"]
        if not (implicit or listener.starttls):
            continue
        for bind in _public(listener):
            host, port = listener["hostname"], bind.port
            if listener.protocol == "imap":
                found.add(ClientService("imap", implicit, host, port))
            elif listener.protocol == "smtp" and _role(listener) == "submission":
                found.add(ClientService("submission", implicit, host, port))
    return tuple(sorted(found))


def receives_mail(config: Config) -> str:
    """Return the name of the server that takes mail from other servers; empty if none does."""
    for listener in config.listeners:
        if listener.protocol == "smtp" and any(bind.port == 25 for bind in _public(listener)):
            return str(listener["hostname"])
    return ""


def documents_at(config: Config) -> tuple[str, int] | None:
    """Return name and port of the https server with documents for mail programs, None if none."""
    for listener in config.listeners:
        if listener.protocol == "http" and listener["http.autoconfig"] != "off":
            for bind in _public(listener):
                if listener["tls.implicit"]:
                    return listener["hostname"], bind.port
    return None
