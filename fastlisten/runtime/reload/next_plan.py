"""The first steps of a reload: load the file, compare, and make the next plan.

Rules of this file: nothing is bound, started or logged. It reads files, so it needs the privileges
of whoever reads the configuration at the start.
"""

from __future__ import annotations

import os
import stat

from fastlisten.config import Config, load
from fastlisten.errors import ConfigurationError, Problem
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.reload.difference import Difference, difference

__all__ = ["next_plan"]


def next_plan(former: Plan, config: Config | None) -> tuple[Plan, Difference, list[str]]:
    """Load and compare. Blocks.

    Args:
        former: the plan in use.
        config: the new configuration; None: the file of the present one is read again.

    Returns:
        The next plan, the difference, and the warnings that the former configuration did not have.

    Raises:
        ConfigurationError: with everything that cannot be used.
        OSError: the data directory cannot be created.
    """
    if config is None:
        config = _load(former.config)
    known = {(one.key, one.value, one.message) for one in former.config.warnings}
    warnings = [
        str(one) for one in config.warnings if (one.key, one.value, one.message) not in known
    ]
    found = difference(former.config, config)
    return Plan(found.config, former), found, warnings


def _load(config: Config) -> Config:
    """Read the file of a configuration again; without a file it stays as it is."""
    if not config.file:
        return config
    try:
        regular = stat.S_ISREG(os.stat(config.file).st_mode)
    except OSError:
        regular = True  # to be reported by whoever reads it
    if not regular:
        text = "only a file can be read again; what is not one needs a restart"
        raise ConfigurationError([Problem(text, file=config.file)])
    return load(config.file)
