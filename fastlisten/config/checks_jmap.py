"""What must hold between the values of a jmap listener: its TLS, and the URL that it names.

Rules of this file: as of checks.py.
"""

from __future__ import annotations

from fastlisten.config.document import Document
from fastlisten.config.drafts import Draft
from fastlisten.config.values.binds import is_loopback

__all__ = ["check_jmap"]

#: The port that a URL of https need not name (RFC 9110 4.2.2).
_HTTPS_PORT = 443


def check_jmap(document: Document, draft: Draft) -> None:
    """Check one listener, and find its URL; its addresses have been read."""
    if draft.base.protocol.name != "jmap":
        return
    _check_tls(document, draft)
    if draft["url"] is None:
        draft.adjusted["url"] = (_usual_url(draft), "default")
    elif draft["url"].startswith("http:"):
        path = draft.written_at("url")
        if not document.has_warning_at(path):
            message = "JMAP clients use https alone (RFC 8620 8.1)"
            document.warning(path, message, draft["url"])


def _check_tls(document: Document, draft: Draft) -> None:
    if draft["tls.implicit"] or draft["proxy.trusted-networks"]:
        return
    for bind, path in zip(draft.binds, draft.bind_paths, strict=True):
        if not is_loopback(bind):
            document.error(
                path,
                "JMAP needs TLS (RFC 8620)",
                bind.text,
                "tls.implicit = true, a loopback address, or proxy.trusted-networks",
            )


def _usual_url(draft: Draft) -> str:
    """Return the URL of a listener that writes none.

    Where somebody else ends TLS before it, its own port is not the one that clients connect to.
    """
    url = f"https://{draft['hostname']}"
    port = next((bind.port for bind in draft.binds if bind.port), _HTTPS_PORT)
    return f"{url}:{port}" if draft["tls.implicit"] and port != _HTTPS_PORT else url
