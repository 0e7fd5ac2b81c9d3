"""What must hold between the values of an http listener: settings of applications, and of ours.

Rules of this file: as of checks.py. Who lists hosts relies on others being refused, so that it is a
mistake where nobody would do it; what merely means nothing is a warning. Listeners that are served
by a handler of their own are left alone: what its settings mean is its business.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastlisten.config.document import Document
from fastlisten.config.drafts import Draft

__all__ = ["check_http", "check_http_table"]


def check_http(document: Document, draft: Draft) -> None:
    """Check one listener."""
    if not _is_ours(draft):
        return
    typed, app = draft.values.typed, draft["app"]
    key = "http.allowed-hosts"
    if key in typed and app is not None:
        message = f"the application {app} decides about the header Host, this is for the management"
        document.error(draft.at(key), message, list(typed[key]))
    key = "http.lifespan"
    if key in typed and app is None:
        message = "this means nothing without app, the management is always told"
        document.warning(draft.at(key), message, typed[key])


def check_http_table(document: Document, drafts: Sequence[Draft], table: dict[str, object]) -> None:
    """Warn of what `[http]` says to the management, or to applications, where there are none.

    Args:
        document: receives the reports.
        drafts: all listeners.
        table: the values of handlers' own tables, by full key.
    """
    served = [draft for draft in drafts if draft.base.protocol.name == "http"]
    if any(not _is_ours(draft) for draft in served):
        return
    rows = (
        ("allowed-hosts", "serves the management", any(each["app"] is None for each in served)),
        ("lifespan", "has http and app", any(each["app"] is not None for each in served)),
    )
    for key, what, found in rows:
        if f"http.{key}" in table and not found:
            document.warning(("http", key), f"this means nothing, no listener {what}")


def _is_ours(draft: Draft) -> bool:
    """Tell whether an application or the management serves a listener; not if it is not known."""
    if draft.base.protocol.name != "http" or "app" in draft.values.failed:
        return False
    return not any(key in draft.values.typed for key in ("handler", "forward"))
