"""Checks of jmap listeners: TLS, and the URL that is announced to clients.

Rules of this file: JMAP over a network without TLS is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastlisten.handlers.check_interface import CheckedListener, CheckedProtocol

__all__ = ["check_jmap"]

#: The default port of https (RFC 9110 4.2.2).
_HTTPS_PORT = 443


def check_jmap(jmap: CheckedProtocol) -> None:
    """Check all jmap listeners, and set their URLs."""
    for listener in jmap.listeners:
        _check_tls(listener)
        if listener["url"] is None:
            listener.set_default("url", _usual_url(listener))
        elif listener["url"].startswith("http:"):
            listener.warning("url", "JMAP clients only use https (RFC 8620 8.1)")


def _check_tls(listener: CheckedListener) -> None:
    if listener["tls.implicit"] or listener["proxy.trusted-networks"]:
        return
    for bind in listener.binds:
        if not bind.is_loopback:
            bind.error(
                "JMAP needs TLS (RFC 8620)",
                "tls.implicit = true, a loopback address, or proxy.trusted-networks",
            )


def _usual_url(listener: CheckedListener) -> str:
    """Return the default URL of a listener.

    If a proxy in front of it terminates TLS, clients do not connect to the listener's own port.
    """
    url = f"https://{listener['hostname']}"
    port = next((bind.port for bind in listener.binds if bind.port), _HTTPS_PORT)
    return f"{url}:{port}" if listener["tls.implicit"] and port != _HTTPS_PORT else url
