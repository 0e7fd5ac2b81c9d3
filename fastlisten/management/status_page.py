"""The status page: all listeners in one table, for a browser.

Rules of this file: plain HTML without scripts, forms or anything from another site. Ids, which are
free text in the configuration, are escaped; should that fail, the policy in `CSP` stops the rest.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence

from fastlisten.runtime.reports import ListenerReport

__all__ = ["CSP", "status_page"]

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid #ccc; padding: .3em .8em; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.bad { color: #a00; font-weight: bold; }
"""

#: Only the style above applies, and no other site may frame the page.
CSP = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src "
    f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)

_COLUMNS = (
    "listener",
    "protocol",
    "state",
    "addresses",
    "connections",
    "limit",
    "accepted",
    "refused",
    "accept errors",
    "failed TLS handshakes",
)


def status_page(hostname: str, ready: bool, reports: Sequence[ListenerReport]) -> str:
    """Return the page.

    Args:
        hostname: of the server.
        ready: whether every listener accepts.
        reports: one for each listener.
    """
    rows = "\n".join(_row(report) for report in reports)
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    verdict = "All listeners accept." if ready else "Not every listener accepts."
    if stale := sorted(set().union(*(report.stale for report in reports))):
        verdict += f" {_stale(stale)}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{_text(hostname)}: listeners</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_text(hostname)}</h1>\n<p>{verdict}</p>\n"
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n"
        '<p><a href="/api/listeners">JSON</a> <a href="/metrics">metrics</a> '
        '<a href="/openapi.json">OpenAPI</a></p>\n</body>\n</html>\n'
    )


def _stale(workers: Sequence[int]) -> str:
    names = ", ".join(str(number) for number in workers)
    if len(workers) == 1:
        return f"Worker {names} does not answer; its last known counters are shown."
    return f"Workers {names} do not answer; their last known counters are shown."


def _row(report: ListenerReport) -> str:
    state = '<td class="bad">' if not report.accepting else "<td>"
    total = report.total
    refused = ", ".join(f"{count} {reason}" for reason, count in total.refused.items() if count)
    numbers = (
        report.held,
        f"{report.limit}, then {report.limit_action}",
        total.accepted,
        refused or 0,
        sum(total.accept_errors.values()),
        total.handshake_failures,
    )
    return (
        f"<tr><td><bdi>{_text(report.id)}</bdi></td><td>{_text(report.protocol)}</td>"
        f"{state}{report.state.value}</td>"
        f"<td>{'<br>'.join(_text(one) for one in report.addresses)}</td>"
        + "".join(f'<td class="number">{number}</td>' for number in numbers)
        + "</tr>"
    )


def _text(value: str) -> str:
    """Return text escaped for HTML; characters that cannot be seen become U+FFFD."""
    return html.escape(
        "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in value)
    )
