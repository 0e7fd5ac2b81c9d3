"""From samples to figures: medians, pair ratios, verdicts.

Rules of this file: pure functions. A ratio is taken within a round, between samples that were
measured one after the other, and the median is taken of the ratios: what slows the machine for a
while slows both. The spread is the interquartile range; no average, nothing is thrown away.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    """Return per round how many times cheaper ours is than theirs.

    A figure of 0 (memory that did not grow) is taken as next to nothing instead of dividing by it.
    """
    return [
        max(their["value"], 1e-9) / max(our["value"], 1e-9)
        for their, our in zip(theirs, ours, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a bound was reached.

    Attributes:
        reached: by the medians.
        clear: no quartile lies on the other side of the bound.
    """

    reached: bool
    clear: bool

    def __str__(self) -> str:
        """Return it in a word or two."""
        return ("yes" if self.reached else "no") + ("" if self.clear else ", within the spread")


def verdict(bound: Bound, value: Spread, ratio: Spread) -> Verdict:
    """Compare figures with a bound."""
    reached, clear = True, True
    if bound.ratio is not None:
        part = ratio.median >= bound.ratio
        reached = reached and part
        clear = clear and (ratio.low >= bound.ratio if part else ratio.high < bound.ratio)
    if bound.value is not None:
        part = value.median <= bound.value
        reached = reached and part
        clear = clear and (value.high <= bound.value if part else value.low > bound.value)
    return Verdict(reached, clear)


def describe(row: Row, bound: Bound | None, unit: str) -> str:
    """Return a bound in words: ``uvloop / 1.15``, ``256 B``."""
    if bound is None:
        return ""
    parts = []
    if bound.value is not None:
        parts.append(f"{bound.value:g} {unit}")
    if bound.ratio is not None:
        parts.append(f"{row.against} / {bound.ratio:.2f}")
    return ", ".join(parts)
