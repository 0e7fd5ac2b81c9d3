"""Figures that tests print, for the tables in the documentation.

Rules of this file: a figure is what a test has counted or measured, and is printed only when the
test has passed all of its assertions. pytest shows it with ``-rP``.
"""

from __future__ import annotations

__all__ = ["show"]


def show(*figures: str) -> None:
    """Print a line of figures.

    Args:
        figures: phrases, which are separated by semicolons.
    """
    print("figures:", "; ".join(figures))
