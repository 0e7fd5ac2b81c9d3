"""Runs the benchmarks: measures the candidates in turn, round after round, and reports.

Rules of this file: the order of candidates changes from round to round, so that none is always
measured after the same other one. A candidate that cannot be started is named in the report, and
the others are measured without it.

Usage: ``python -m benchmarks [--quick] [--rows KEY,...] [--json FILE] [--markdown [FILE]]``
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.build import ROOT, BuildError, build
from benchmarks.certificates import Certificate, CertificateError, make_certificates
from benchmarks.machine import busy_share, facts
from benchmarks.measure import Plan, cores, held_connections, measure
from benchmarks.measure_imap import measure_imap
from benchmarks.process import MeasurementError
from benchmarks.rows import ROWS
from benchmarks.workloads import CANDIDATES, CONTROLS, WORKLOADS, Workload

__all__ = ["main"]

DOCUMENT = ROOT / "docs" / "performance.md"

#: With fewer rounds, quartiles mean nothing.
ROUNDS = 5

#: If other processes use more than this share of the machine, a warning is printed.
QUIET_MACHINE = 0.05


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    keys = [workload.key for workload in WORKLOADS]
    rows = [row.key for row in ROWS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="short samples and little mail, to try things out"
    )
    parser.add_argument("--rounds", type=int, help=f"rounds ({ROUNDS}; quick: 2)")
    parser.add_argument("--seconds", type=float, help="length of a sample (2; quick: 0.4)")
    parser.add_argument("--rows", default="", help=f"only these rows, of {', '.join(rows)}")
    parser.add_argument("--only", default="", help=f"only these workloads, of {', '.join(keys)}")
    parser.add_argument("--candidates", default="", help="only these, by name, comma between")
    parser.add_argument("--spin", action="store_true", help="clients poll instead of sleeping")
    parser.add_argument(
        "--control", action="store_true", help="uvloop (of SMTP: aiosmtpd) against itself"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write samples; - prints them")
    parser.add_argument(
        "--markdown",
        type=Path,
        nargs="?",
        const=DOCUMENT,
        metavar="FILE",
        help="write the table between the markers of FILE (docs/performance.md)",
    )
    parser.add_argument(
        "--samples", type=Path, metavar="FILE", help="measure nothing, report what --json wrote"
    )
    given = parser.parse_args(words)
    for what, known in (("rows", rows), ("only", keys), ("candidates", [*CANDIDATES])):
        listed = [word.strip() for word in getattr(given, what).split(",") if word.strip()]
        setattr(given, what, listed)
        unknown = sorted(set(listed) - set(known))
        if unknown:
            parser.error(f"--{what}: no such name: {', '.join(unknown)}; known: {', '.join(known)}")
    if given.rounds is not None and given.rounds < 1:
        parser.error("at least one round")
    if given.seconds is not None and not 0.1 <= given.seconds <= 600:
        parser.error("a sample takes 0.1 to 600 seconds")
    return given


def _why_not_importable() -> str:
    """Return why the package cannot be measured, or an empty string."""
    result = subprocess.run(
        [sys.executable, "-c", "import fastlisten; fastlisten.create_server"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    return "" if result.returncode == 0 else result.stderr.strip().splitlines()[-1]


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _measure_all(
    workloads: Sequence[Workload],
    skip: set[str],
    plan: Plan,
    rounds: int,
    certificates: Mapping[str, Certificate],
    left_out: list[str],
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return samples by workload and candidate."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for workload in workloads:
        names = [name for name in workload.candidates if name not in skip]
        samples: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        wanted = min(rounds, workload.rounds)
        for number in range(wanted):
            turn = number % len(samples) if samples else 0
            order = [*samples][turn:] + [*samples][:turn]
            if number % 2:
                order.reverse()
            for name in order:
                try:
                    do = measure_imap if workload.mode == "imap" else measure
                    sample = do(workload, name, plan, certificates)
                except MeasurementError as error:
                    # Pairs need both samples of a round, so one failure excludes a candidate.
                    left_out.append(f"{name} in {workload.key}: {error}")
                    _say(f"  {name} failed: {error}")
                    del samples[name]
                    continue
                samples[name].append(sample.as_json())
                _say(
                    f"  {workload.key} {number + 1}/{wanted} {name}: {sample.value:.2f}"
                    + (f", {sample.rate:,.0f}/s" if sample.rate else "")
                    + (", disturbed" if sample.disturbed else "")
                )
        found[workload.key] = samples
    return found


def _workloads(given: argparse.Namespace) -> list[Workload]:
    """Return the workloads that the command line selects."""
    rows = [row for row in ROWS if not given.rows or row.key in given.rows]
    compared = {(row.workload, name) for row in rows for name in (row.ours, row.against)}
    workloads = [
        # Of our own candidates, only those in the selected rows; the others are always shown.
        replace(
            workload,
            candidates=tuple(
                name
                for name in workload.candidates
                if not name.startswith("fastlisten") or (workload.key, name) in compared
            ),
        )
        for workload in WORKLOADS
        if any(workload.key == row.workload for row in rows)
        and (not given.only or workload.key in given.only)
    ]
    if given.control:
        workloads = [
            replace(workload, candidates=(*workload.candidates, CONTROLS[workload.family][1]))
            for workload in workloads
        ]
    return workloads


def _collect(given: argparse.Namespace, directory: Path) -> dict[str, Any]:
    no_tls = build()
    server_core, client_core = cores()
    plan = Plan(
        seconds=given.seconds or (0.4 if given.quick else 2.0),
        warm_up=0.1 if given.quick else 0.5,
        held=held_connections(3_000 if given.quick else held_connections()),
        server_core=server_core,
        client_core=client_core,
        spin=given.spin,
        mail=0.01 if given.quick else 1.0,
    )
    rounds = given.rounds or (2 if given.quick else ROUNDS)
    workloads = _workloads(given)
    left_out = []
    certificates: Mapping[str, Certificate] = {}
    if any(workload.tls for workload in workloads) and not no_tls:
        try:
            certificates = make_certificates(directory)
        except CertificateError as error:
            no_tls = str(error)
    if no_tls:
        without = [workload for workload in workloads if not workload.tls]
        if len(without) < len(workloads):
            left_out.append(f"TLS, because {no_tls}")
            _say(f"TLS is left out: {no_tls}")
        workloads = without
    names = {name for workload in workloads for name in workload.candidates}
    wanted = set(given.candidates) or names
    if given.control:
        wanted = wanted | {double for _, double in CONTROLS.values()}
    skip = names - wanted
    ours = {name for name in names & wanted if name.startswith("fastlisten")}
    reason = _why_not_importable() if ours else ""
    if reason:
        skip |= ours
        left_out.append(f"fastlisten, which cannot be imported ({reason})")
        _say(f"fastlisten cannot be imported and is left out: {reason}")
    busy = busy_share()
    if busy > QUIET_MACHINE:
        _say(f"warning: other processes use {busy:.0%} of this machine; figures will be inaccurate")
    machine = facts()
    measured = _measure_all(workloads, skip, plan, rounds, certificates, left_out)
    return {
        "format": 1,
        "machine": machine,
        "plan": asdict(plan),
        "rounds": rounds,
        "rows": given.rows,
        "quick": given.quick,
        "busy_before": busy,
        "left_out": left_out,
        "workloads": measured,
    }


def main(words: Sequence[str] | None = None) -> int:
    """Measure, report; return the exit status: 0, or 1 when something failed."""
    given = _arguments(words)
    keep = given.json is not None and given.json != Path("-")
    try:
        if given.markdown is not None:
            # Checked before half an hour is spent measuring.
            report.split_at_markers(given.markdown)
        if given.samples:
            results = json.loads(given.samples.read_text())
        else:
            with tempfile.TemporaryDirectory(prefix="fastlisten-benchmarks-") as directory:
                results = _collect(given, Path(directory))
        if keep:
            given.json.write_text(json.dumps(results, indent=1) + "\n")
        if given.markdown is not None:
            report.write_between_markers(given.markdown, report.markdown(results))
    except (BuildError, MeasurementError, OSError, ValueError) as error:
        _say(str(error))
        return 1
    if given.json == Path("-"):
        print(json.dumps(results))
        return 0
    print(report.text(results))
    return 0
