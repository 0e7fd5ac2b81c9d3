"""Reports as JSON, for the management API and the control socket.

Rules of this file: values only; management/schemas.py describes those of the API. Keys are written
as in the configuration, with hyphens.
"""

from __future__ import annotations

import errno
from typing import Any

from fastlisten.mail.counts import Counts
from fastlisten.runtime.reports import ListenerReport

__all__ = ["errno_name", "listener_json"]


def errno_name(number: int) -> str:
    """Return the name of an errno, ``EMFILE``; ``other`` for 0, which stands for all the rest."""
    return errno.errorcode.get(number, str(number)) if number else "other"


def listener_json(report: ListenerReport) -> dict[str, Any]:
    """Return a report as JSON, in the form of the schema ``Listener``."""
    total = report.total
    return {
        "id": report.id,
        "protocol": report.protocol,
        "state": report.state.value,
        "accepting": report.accepting,
        "addresses": list(report.addresses),
        "connections": report.held,
        "limit": report.limit,
        "limit-action": report.limit_action,
        "accepted": total.accepted,
        "refused": dict(total.refused),
        "accept-errors": {
            errno_name(number): count for number, count in total.accept_errors.items()
        },
        "tls-handshake-failures": total.handshake_failures,
        "timed-out": total.timed_out,
        "stale-workers": list(report.stale),
        "mail": _mail_json(total.mail or Counts()),
    }


def _mail_json(counts: Counts) -> dict[str, Any]:
    return {
        "messages": dict(counts.messages),
        "bytes": counts.octets,
        "rejections": _by_reason(counts, "5xx"),
        "deferrals": _by_reason(counts, "4xx"),
        "logins": dict(counts.logins),
        "sessions-ended": dict(counts.ends),
    }


def _by_reason(counts: Counts, reply_class: str) -> dict[str, int]:
    return {
        reason: count for (kind, reason), count in counts.rejections.items() if kind == reply_class
    }
