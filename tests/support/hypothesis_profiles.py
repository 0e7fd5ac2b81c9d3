"""Profiles of hypothesis, chosen by HYPOTHESIS_PROFILE.

    steady  (default) no deadline, because no test here depends on time; under CI the same
            examples in every run, so that only changes of the code make a difference
    long    new examples in every run, more of them where a test does not say how many

Rules of this file: imported once, by conftest.py, before any test is.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)

_CI = bool(os.environ.get("CI"))

settings.register_profile(
    "steady", deadline=None, derandomize=_CI, database=None if _CI else settings().database
)
settings.register_profile(
    "long", deadline=None, derandomize=False, max_examples=2000, suppress_health_check=_SLOW
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
