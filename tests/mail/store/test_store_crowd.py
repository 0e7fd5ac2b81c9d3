"""Four processes change an account at random and are killed at random, beside a foreign program.

Rules of this file: what they do and what must be true then is in support/store_crowd.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.store_crowd import run_crowd


@pytest.mark.parametrize("foreign", [False, True])
def test_killed_workers(tmp_path: Path, foreign: bool) -> None:
    assert "'moved'" in run_crowd(tmp_path, 1, 12, foreign=foreign)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("seed", range(2, 6))
def test_killed_workers_for_minutes(tmp_path: Path, seed: int, foreign: bool) -> None:
    run_crowd(tmp_path, seed, 400, foreign=foreign)
