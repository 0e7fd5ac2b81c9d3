"""Several workers on one port, who gets the connections, at what cost: ``-m benchmarks.balance``.

Rules of this file: candidates alternate, and each sample has a fresh server. A candidate that fails
ends the run: there is no table without it. Figures are medians of the rounds with their quartiles;
costs are compared within a round. A round of all takes about two minutes with 4 workers.

Usage: ``python -m benchmarks.balance [--workers N] [--rounds N] [--only NAME,...] [--json]``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from benchmarks import balance_report
from benchmarks.balance_scenarios import RING_PLACES, SCENARIOS, Plan, Sample, ring
from benchmarks.build import BuildError, build
from benchmarks.machine import busy_share, facts
from benchmarks.process import MeasurementError, end_when_told
from benchmarks.worker_group import WorkerGroup

__all__ = ["CANDIDATES", "main", "measure"]

WORKERS, ROUNDS = 4, 5

_OURS = (sys.executable, "-m", "benchmarks.candidates.workers_fastlisten")
_SHARED = (sys.executable, "-m", "benchmarks.candidates.workers_shared")

#: The candidates' commands, but for the number of workers.
CANDIDATES: Mapping[str, tuple[str, ...]] = {
    "fastlisten": _OURS,
    "fastlisten, reuse-port": (*_OURS, "--reuse-port"),
    "our core, shared socket": (*_SHARED, "--core", "fastlisten"),
    "uvloop, shared socket": _SHARED,
    "uvloop, reuse-port": (*_SHARED, "--reuse-port"),
}

#: The server whose clients wait for places.
_RING = (*_OURS, "--lazy", "--wait", "--limit", str(RING_PLACES))

QUICK = Plan(arriving=100, arrival_rate=500, burst=100, seconds=0.5, ring=40)

#: Samples by scenario and candidate, one for each round.
Samples: TypeAlias = dict[str, dict[str, list[Sample]]]


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    names = [*SCENARIOS, "ring"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balance", description=__doc__)
    parser.add_argument("--workers", type=int, default=WORKERS, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(%(default)s)")
    parser.add_argument("--only", default="", help=f"only these, of {', '.join(names)}")
    parser.add_argument(
        "--candidates",
        default="",
        help=f"only these, semicolon between, of {'; '.join(CANDIDATES)}",
    )
    parser.add_argument("--quick", action="store_true", help="small, to try things out")
    parser.add_argument("--json", action="store_true", help="print every sample instead of tables")
    given = parser.parse_args(words)
    for what, separator, known in (("only", ",", names), ("candidates", ";", [*CANDIDATES])):
        listed = [one.strip() for one in getattr(given, what).split(separator) if one.strip()]
        setattr(given, what, listed or known)
        unknown = sorted(set(listed) - set(known))
        if unknown:
            parser.error(f"--{what}: no such name: {', '.join(unknown)}; known: {', '.join(known)}")
    if not 2 <= given.workers <= 85:
        parser.error("2 to 85 workers")
    if given.rounds < 1:
        parser.error("at least one round")
    return given


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def measure(
    workers: int,
    rounds: int,
    names: Sequence[str],
    candidates: Sequence[str],
    plan: Plan,
) -> Samples:
    """Return the samples of all rounds.

    Args:
        workers: of each server.
        rounds: how often each candidate is measured.
        names: what is measured: keys of `SCENARIOS`, and ``ring``.
        candidates: keys of `CANDIDATES`; ``ring`` is measured for fastlisten alone.
        plan: how much is done.

    Raises:
        MeasurementError: a server failed.
    """
    scenarios = [name for name in SCENARIOS if name in names]
    found: Samples = {name: {one: [] for one in candidates} for name in scenarios}
    for number in range(rounds):
        turn = number % len(candidates)
        order = [*candidates[turn:], *candidates[:turn]]
        if number % 2:
            order.reverse()
        for candidate in order if scenarios else []:
            with WorkerGroup(CANDIDATES[candidate], workers) as group:
                for name in scenarios:
                    sample = SCENARIOS[name](group, plan)
                    found[name][candidate].append(sample)
                    figures = ", ".join(f"{key} {value:,.2f}" for key, value in sample.items())
                    _say(f"{number + 1}/{rounds} {candidate}: {name}: {figures}")
        if "ring" in names:
            with WorkerGroup(_RING, workers) as group:
                sample = ring(group, plan)
            found.setdefault("ring", {"fastlisten": []})["fastlisten"].append(sample)
            figures = ", ".join(f"{key} {value:,.2f}" for key, value in sample.items())
            _say(f"{number + 1}/{rounds} fastlisten: ring: {figures}")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Measure and report; return the exit status: 0, or 1 if a server failed."""
    given = _arguments(words)
    plan = QUICK if given.quick else Plan()
    try:
        build()
        busy = busy_share()
        samples = measure(given.workers, given.rounds, given.only, given.candidates, plan)
    except (BuildError, MeasurementError, OSError) as error:
        _say(str(error))
        return 1
    results: dict[str, Any] = {
        "workers": given.workers,
        "rounds": given.rounds,
        "plan": asdict(plan),
        "busy_before": busy,
        "machine": facts(),
        "samples": samples,
    }
    print(json.dumps(results) if given.json else balance_report.markdown(results))
    return 0


if __name__ == "__main__":
    end_when_told()
    sys.exit(main())
