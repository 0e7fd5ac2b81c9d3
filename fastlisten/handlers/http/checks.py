"""Checks of http listeners' settings: which of them apply to applications, which to management.

Rules of this file: `allowed-hosts` on a listener that ignores it is an error, because whoever lists
hosts relies on others being refused. A setting that merely has no effect gets a warning. Listeners
with a `handler` of their own are not checked, because only that handler knows what its settings
mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastlisten.handlers.check_interface import CheckedListener, CheckedProtocol

__all__ = ["check_http"]


def check_http(http: CheckedProtocol) -> None:
    """Check all http listeners, and the table `[http]`."""
    hosts, lifespan = f"{http.name}.allowed-hosts", f"{http.name}.lifespan"
    ours = [listener for listener in http.listeners if _is_ours(listener)]
    for listener in ours:
        app = listener["app"]
        if app is not None and listener[f"{http.name}.autoconfig"] == "only":
            listener.error(f"{http.name}.autoconfig", f"{app} would get no request", "on, off")
        if app is not None and listener.sets(hosts):
            message = f"the application {app} must check the Host header itself; "
            listener.error(hosts, message + "this is for the management application")
        if app is None and listener.sets(lifespan):
            message = "this has no effect without app: the management application always has it on"
            listener.warning(lifespan, message)
    if len(ours) < len(http.listeners):
        return
    rows = (
        ("allowed-hosts", "serves the management", any(each["app"] is None for each in ours)),
        ("lifespan", "has http and app", any(each["app"] is not None for each in ours)),
    )
    for key, what, found in rows:
        if http.table_sets(key) and not found:
            http.table_warning(key, f"this has no effect: no listener {what}")


def _is_ours(listener: CheckedListener) -> bool:
    """Tell whether an application or the management serves a listener; not if it is not known."""
    return (
        not listener.is_wrong("app")
        and not listener.sets("handler")
        and not listener.sets("forward")
    )
