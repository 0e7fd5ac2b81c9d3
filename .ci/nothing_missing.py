"""A pytest plugin: tests that would be skipped because something is not installed fail instead.

Rules of this file: it applies only to tests marked `external` (they need another project's program)
and, for root, `netns`. All other skips remain skips. Used as ``-p nothing_missing``.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the report of such a skip into a failure."""
    report = yield
    needed = item.get_closest_marker("external") or (
        os.geteuid() == 0 and item.get_closest_marker("netns")
    )
    if needed and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"must not be skipped here: {reason}"
    return report
