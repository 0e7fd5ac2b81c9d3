"""The table, as text for the screen and as Markdown for ``docs/performance.md``.

Rules of this file: it lays out what `run.py` collected and computes nothing else; both forms show
the same cells. In the document, only the part between the two markers is written by this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Samples, Spread, describe, pair_ratios, spread, verdict
from benchmarks.rows import ROWS, Row
from benchmarks.workloads import CONTROLS, WORKLOADS, Family

__all__ = ["markdown", "split_at_markers", "text", "write_between_markers"]

BEGIN = "<!-- benchmarks: begin (written by python -m benchmarks --markdown) -->"
END = "<!-- benchmarks: end -->"

#: The columns of other projects' candidates, by table.
OTHERS: Mapping[Family, tuple[str, ...]] = {
    "connections": ("C epoll", "uvloop", "asyncio"),
    "smtp": ("C SMTP", "smtp-sink", "aiosmtpd", "aiosmtpd on asyncio"),
    "delivery": ("Dovecot", "Postfix"),
    "sizes": ("C SMTP", "smtp-sink"),
    "imap": ("Dovecot IMAP",),
    "http": ("uvicorn httptools", "uvicorn h11", "granian"),
}

#: What each table is about, for its title.
ABOUT: Mapping[Family, str] = {
    "connections": "",
    "smtp": "SMTP and LMTP, messages of 1 KiB: ",
    "delivery": "Delivery, messages of 1 KiB, ten a session: ",
    "sizes": "SMTP, messages by size, ten a session: ",
    "imap": "IMAP: ",
    "http": "HTTP, 50 connections by wrk: ",
}

_UNITS = {
    "cpu": "µs",
    "once": "ms",
    "memory": "B",
    "lag": "ms",
    "latency": "ms",
    "count": "",
    "start": "s",
}
_KINDS = {workload.key: workload.kind for workload in WORKLOADS}
_FAMILIES = {workload.key: workload.family for workload in WORKLOADS}

Results = Mapping[str, Any]


def _number(value: float) -> str:
    if value == 0 or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _cell(samples: Samples | None, kind: str) -> str:
    """Return a candidate's median, with the part in user mode if it was measured."""
    if not samples:
        return ""
    median = _number(spread([sample["value"] for sample in samples]).median)
    if kind != "cpu":
        return f"{median} {_UNITS[kind]}".strip()
    user = spread([sample["user"] for sample in samples]).median
    return f"{median} µs ({_number(user)})"


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _cost_row(row: Row, found: Mapping[str, Samples]) -> list[str]:
    kind = _KINDS[row.workload]
    ours, theirs = found.get(row.ours), found.get(row.against)
    others = OTHERS[_FAMILIES[row.workload]]
    cells = [row.title, *(_cell(found.get(name), kind) for name in others), _cell(ours, kind)]
    if not ours or (row.against and not theirs):
        return [*cells, "not measured", "", ""]
    ratio = spread(pair_ratios(theirs or ours, ours))
    value = spread([sample["value"] for sample in ours])
    # For counts, and for memory that did not grow, a ratio means nothing.
    meaningless = not theirs or kind == "count" or ratio.median > 1e6
    cells.append("" if meaningless else _ratio(ratio))
    for bound in (row.goal, row.stretch):
        wanted = describe(row, bound, _UNITS[kind])
        cells.append(f"{wanted}: {verdict(bound, value, ratio)}" if bound is not None else "")
    return cells


def _rate_row(row: Row, found: Mapping[str, Samples]) -> list[str]:
    cells = [row.title]
    for name in (*OTHERS[_FAMILIES[row.workload]], row.ours):
        samples = found.get(name)
        if not samples:
            cells.append("")
            continue
        rate = spread([sample["rate"] for sample in samples]).median
        busy = spread([sample["busy"] for sample in samples]).median
        cells.append(f"{rate:,.0f} ({busy:.0%})")
    return cells


def _lag_row(row: Row, found: Mapping[str, Samples]) -> list[str]:
    cells = [row.title.removeprefix("p99 lag of a 10 ms timer, ")]
    for name in (*OTHERS["connections"], row.ours):
        samples = found.get(name)
        if not samples:
            cells.append("")
            continue
        middle = spread([sample["detail"]["p50"] for sample in samples]).median
        late = spread([sample["value"] for sample in samples]).median
        longest = max(sample["detail"]["max"] for sample in samples)
        cells.append(f"{_number(middle)} / {_number(late)} / {_number(longest)} ms")
    return cells


def _call_row(row: Row, found: Mapping[str, Samples]) -> list[str]:
    cells = ["accept, greeting, close"]
    for name in (*OTHERS["connections"], row.ours):
        samples = found.get(name)
        calls = samples[0]["detail"]["calls"] if samples else {}
        cells.append(", ".join(f"{call} {count:.2g}" for call, count in calls.items()))
    return cells


def _family_tables(
    family: Family,
    others: Sequence[str],
    rows: Sequence[Row],
    measured: Mapping[str, Mapping[str, Samples]],
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return the tables of costs and of rates for rows with the same columns."""
    rows = [row for row in rows if _FAMILIES[row.workload] == family]
    if not rows:
        return []
    costs = [_cost_row(row, measured[row.workload]) for row in rows]
    rates = [
        _rate_row(row, measured[row.workload]) for row in rows if _KINDS[row.workload] == "cpu"
    ]
    tables = [
        (
            f"{ABOUT[family]}Cost on the server, per operation or connection (in brackets: its "
            "part in user mode)",
            ["work", *others, "fastlisten", "times cheaper (quartiles)", "goal", "stretch"],
            costs,
        )
    ]
    if rates:
        tables.append(
            (
                f"{ABOUT[family]}Operations per second at the load generator (in brackets: how "
                "busy the server's core was; below 100 % the clients' core was the limit and the "
                "rate is a floor)",
                ["work", *others, "fastlisten"],
                rates,
            )
        )
    return tables


def _tables(results: Results) -> list[tuple[str, list[str], list[list[str]]]]:
    measured: Mapping[str, Mapping[str, Samples]] = results["workloads"]
    wanted = results.get("rows") or [row.key for row in ROWS]
    rows = [row for row in ROWS if row.workload in measured and row.key in wanted]
    tables: list[tuple[str, list[str], list[list[str]]]] = []
    for family, others in OTHERS.items():
        tables += _family_tables(family, others, rows, measured)
    others = OTHERS["connections"]
    lags = [_lag_row(row, measured[row.workload]) for row in rows if _KINDS[row.workload] == "lag"]
    if lags:
        tables.append(
            (
                "Lag of a 10 ms timer (p50 / p99 / longest; medians of the rounds, the longest of "
                "all rounds)",
                ["work", *others, "fastlisten"],
                lags,
            )
        )
    calls = [_call_row(row, measured[row.workload]) for row in rows if row.workload == "options"]
    if calls:
        tables.append(
            (
                "System calls per accepted connection (greeting, the client's end, close; under "
                "strace, where events come singly, so that waits are overstated)",
                ["work", *others, "fastlisten"],
                calls,
            )
        )
    controls = _controls(measured)
    if controls:
        tables.append(
            (
                "Control: the same against itself, which shows the noise",
                ["workload", "candidate", "ratio (quartiles)"],
                controls,
            )
        )
    return tables


def _controls(measured: Mapping[str, Mapping[str, Samples]]) -> list[list[str]]:
    rows = []
    for key, found in measured.items():
        name, double = CONTROLS[_FAMILIES[key]]
        if name in found and double in found:
            ratio = spread(pair_ratios(found[name], found[double]))
            rows.append([key, name, _ratio(ratio)])
    return rows


def _notes(results: Results) -> list[str]:
    machine = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    plan = results["plan"]
    notes = [
        f"Measured: {machine}.",
        f"{results['rounds']} rounds of {plan['seconds']:g} s after {plan['warm_up']:g} s of "
        f"warm-up; {plan['held']:,} connections held"
        + ("; clients polled and never slept" if plan.get("spin") else "")
        + ("; a quick run, too short for conclusions." if results["quick"] else "."),
    ]
    samples = [
        sample
        for found in results["workloads"].values()
        for taken in found.values()
        for sample in taken
    ]
    notes += _negotiated(results["workloads"])
    disturbed = sum(sample["disturbed"] for sample in samples)
    notes.append(
        f"Other processes used {results['busy_before']:.1%} of the machine just before; "
        f"in {disturbed} of {len(samples)} samples the server had to wait for its core."
    )
    return notes + [f"Left out: {reason}" for reason in results["left_out"]]


def _negotiated(measured: Mapping[str, Mapping[str, Samples]]) -> list[str]:
    """Return a line for each kind of TLS that was negotiated, with the candidates."""
    spoken: dict[str, list[str]] = {}
    libraries: set[str] = set()
    for key, found in measured.items():
        for name, samples in found.items():
            for sample in samples:
                detail = sample.get("detail") or {}
                if "tls" in detail:
                    spoken.setdefault(detail["tls"], []).append(f"{name} in {key}")
                    libraries.add(detail["tls library"])
    lines = []
    for words, who in sorted(spoken.items()):
        workloads = sorted({one.partition(" in ")[2] for one in who})
        candidates = sorted({one.partition(" in ")[0] for one in who})
        lines.append(
            f"Negotiated in {', '.join(workloads)}: {words}, no session resumed "
            f"({', '.join(candidates)}; clients: {', '.join(sorted(libraries))})."
        )
    return lines


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]


def text(results: Results) -> str:
    """Return the tables for the screen."""
    lines: list[str] = []
    for title, head, rows in _tables(results):
        lines += [title, "", *_aligned(head, rows), ""]
    return "\n".join([*lines, *_notes(results)])


def markdown(results: Results) -> str:
    """Return the tables as Markdown."""
    lines: list[str] = []
    for title, head, rows in _tables(results):
        lines += [f"{title}:", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    return "\n\n".join(["\n".join(lines).rstrip(), *_notes(results)])


def split_at_markers(path: Path) -> tuple[str, str]:
    """Return the parts of a document before and after the markers.

    Raises:
        ValueError: it does not have the two markers in order.
    """
    document = path.read_text()
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the markers of the table: {BEGIN} ... {END}")
    return before, after


def write_between_markers(path: Path, content: str) -> None:
    """Replace the part of a document between the markers.

    Raises:
        ValueError: it does not have the two markers in order.
    """
    before, after = split_at_markers(path)
    path.write_text(f"{before}{BEGIN}\n\n{content}\n\n{END}{after}")
