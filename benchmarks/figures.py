"""Turns samples into figures: medians, ratios of pairs, verdicts.

Rules of this file: pure functions. A ratio compares two samples of the same round, measured one
right after the other, so that anything that slows the machine slows both; the figure is the median
of these ratios. The spread is the interquartile range. Nothing is averaged, no sample is discarded.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from benchmarks.rows import Bound, Row

__all__ = ["Samples", "Spread", "Verdict", "describe", "pair_ratios", "spread", "verdict"]

#: One candidate's samples by round, as `Sample.as_json` made them.
Samples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles.

    Args:
        values: at least one.
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def pair_ratios(theirs: Samples, ours: Samples) -> list[float]:
    """Return, for each round, how many times cheaper ours is than theirs.

    A figure of 0 (memory that did not grow) is replaced by a tiny one, to avoid division by zero.
    """
    return [
        max(their["value"], 1e-9) / max(our["value"], 1e-9)
        for their, our in zip(theirs, ours, strict=True)
    ]


Verdict: TypeAlias = Literal["reached", "within spread", "missed"]


def verdict(bound: Bound, value: Spread, ratio: Spread) -> Verdict:
    """Compare figures with a bound; every part of the bound that is set must hold.

    Returns:
        ``within spread`` if the bound lies between the median and a quartile.
    """
    # Tuples of (better quartile, median, worse quartile, bound); less is better.
    parts = []
    if bound.ratio is not None:
        parts.append((-ratio.high, -ratio.median, -ratio.low, -bound.ratio))
    if bound.value is not None:
        parts.append((value.low, value.median, value.high, bound.value))
    found: Verdict = "reached"
    for best, median, worst, limit in parts:
        if min(best, median) > limit:
            return "missed"
        if max(median, worst) > limit:
            found = "within spread"
    return found


def describe(row: Row, bound: Bound | None, unit: str) -> str:
    """Return a bound in words: ``uvloop / 1.15``, ``256 B``."""
    if bound is None:
        return ""
    parts = []
    if bound.value is not None:
        parts.append(f"{bound.value:,g} {unit}".strip())
    if bound.ratio is not None:
        parts.append(f"{row.against} / {bound.ratio:.2f}")
    return ", ".join(parts)
