"""The tables of `balance.py`, as docs/performance-workers.md has them.

Rules of this file: text only. A cell is a median of the rounds with its quartiles, unless its head
says otherwise. A ratio is that of two samples of the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, TypeAlias

from benchmarks.figures import spread

__all__ = ["markdown"]

#: The candidate that others are compared with.
OURS = "fastlisten"

Samples: TypeAlias = Sequence[Mapping[str, float]]
Cell: TypeAlias = Callable[[Samples, Samples], str]


def _shown(key: str, form: str, unit: str = "") -> Cell:
    """Return what shows a figure with its quartiles."""

    def cell(samples: Samples, ours: Samples) -> str:
        found = spread([sample[key] for sample in samples])
        low, high = format(found.low, form), format(found.high, form)
        return f"{format(found.median, form)}{unit} ({low} to {high})"

    return cell


def _compared(key: str, form: str, unit: str) -> Cell:
    """Return what shows a cost, and how many times ours it is."""

    def cell(samples: Samples, ours: Samples) -> str:
        text = f"{median(sample[key] for sample in samples):{form}}{unit}"
        if samples is ours or not ours:
            return text
        pairs = zip(samples, ours, strict=True)
        ratio = spread([their[key] / max(our[key], 1e-9) for their, our in pairs])
        return f"{text}, × {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"

    return cell


def _median(key: str, form: str, unit: str = "") -> Cell:
    def cell(samples: Samples, ours: Samples) -> str:
        return f"{median(sample[key] for sample in samples):{form}}{unit}"

    return cell


def _served(samples: Samples, ours: Samples) -> str:
    late = sum(int(sample["not greeted"]) for sample in samples)
    clients = sum(int(sample["clients"]) for sample in samples)
    return f"{late:,} of {clients:,}"


def _longest(samples: Samples, ours: Samples) -> str:
    return f"{max(sample['longest'] for sample in samples):,.0f} ms"


#: Title of a table, and its rows: what, the scenario, the cell. The plan's figures are put in.
TABLES: Sequence[tuple[str, Sequence[tuple[str, str, Cell]]]] = (
    (
        "Connections of the worker that has the most, as a multiple of its share",
        (
            ("{arriving:,} that stay, {arrival_rate} a second", "held", _shown("arrived", ".2f")),
            ("{burst:,} more at once", "held", _shown("burst", ".2f")),
            ("a storm of short ones", "storm", _shown("share", ".2f")),
            ("{steady_rate} short ones a second", "steady", _shown("share", ".2f")),
        ),
    ),
    (
        "Processor time of all workers per short connection, and how many times ours it is",
        (
            ("a storm", "storm", _compared("cpu", ".1f", " µs")),
            ("{steady_rate} a second", "steady", _compared("cpu", ".1f", " µs")),
        ),
    ),
    (
        "Wake-ups of all workers per short connection",
        (
            ("a storm", "storm", _median("wake-ups", ".2f")),
            ("{steady_rate} a second", "steady", _median("wake-ups", ".1f")),
        ),
    ),
    (
        "Short connections per second in the storm (the clients share the cores with the workers)",
        (("a storm", "storm", _median("rate", ",.0f")),),
    ),
    (
        "One worker is stopped (SIGSTOP), {steady_rate} clients come a second; all rounds together",
        (
            ("clients without a greeting within 1 s", "stop", _served),
            ("longest wait of those that were greeted", "stop", _longest),
        ),
    ),
    (
        "No clients at all, per second",
        (
            ("wake-ups of all workers", "idle", _median("wake-ups", ",.1f")),
            ("processor time of all workers", "idle", _median("cpu", ".2f", " ms")),
            ("wake-ups of their parent", "idle", _median("parent wake-ups", ".1f")),
        ),
    ),
    (
        'All places taken, clients wait (`limit-action = "wait"`)',
        (
            ("wake-ups per place given back", "ring", _shown("wake-ups", ".2f")),
            ("processor time per place given back", "ring", _median("cpu", ".0f", " µs")),
            ("time from one client's end to the next one's greeting", "ring",
             _median("took", ".2f", " ms")),
            ("wake-ups per second meanwhile without any", "ring", _median("alone", ",.0f")),
        ),
    ),
)  # fmt: skip


def _table(
    title: str,
    rows: Sequence[tuple[str, str, Cell]],
    found: Mapping[str, Mapping[str, Samples]],
    plan: Mapping[str, Any],
) -> list[str]:
    """Return the lines of a table; none if nothing of it was measured."""
    rows = [row for row in rows if row[1] in found]
    if not rows:
        return []
    candidates = [*found[rows[0][1]]]
    lines = [
        f"{title.format(**plan)}:",
        "",
        f"| | {' | '.join(candidates)} |",
        "|---" * (len(candidates) + 1) + "|",
    ]
    for what, scenario, cell in rows:
        measured = found[scenario]
        ours = measured.get(OURS, [])
        cells = [cell(measured[candidate], ours) for candidate in candidates]
        lines.append(f"| {what.format(**plan)} | {' | '.join(cells)} |")
    return [*lines, ""]


def markdown(results: Mapping[str, Any]) -> str:
    """Return all tables of a run."""
    lines = [f"With {results['workers']} workers:", ""]
    for title, rows in TABLES:
        lines += _table(title, rows, results["samples"], results["plan"])
    machine = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines += [f"Measured: {machine}.", ""]
    lines.append(
        f"{results['rounds']} rounds, samples of {results['plan']['seconds']:g} s. Others used "
        f"{results['busy_before']:.1%} of the machine just before."
    )
    return "\n".join(lines)
