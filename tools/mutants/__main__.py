"""The program: try the mutations that have changed, say what survived."""

from __future__ import annotations

import argparse
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path

from tools.mutants.copies import Copy
from tools.mutants.mutations import Mutation, mistakes, read_mutations
from tools.mutants.results import Outcome, Results, default_file


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit status: 1 if a mutation survived or the list is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only mutations whose name contains one of these")
    parser.add_argument("--again", action="store_true", help="also those that have not changed")
    parser.add_argument("--jobs", type=int, default=2, help="how many are tried at a time")
    parser.add_argument(
        "--results", type=Path, default=default_file(), help="where results are kept"
    )
    given = parser.parse_args(arguments)
    mutations = read_mutations()
    if wrong := mistakes(mutations):
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    if given.names:
        mutations = [one for one in mutations if any(text in one.name for text in given.names)]
    results = Results(given.results)
    keys = {one.name: results.key(one) for one in mutations}
    known = {} if given.again else {one.name: results.get(keys[one.name]) for one in mutations}
    outcomes = {name: outcome for name, outcome in known.items() if outcome is not None}
    changed = [one for one in mutations if one.name not in outcomes]
    if changed:
        with tempfile.TemporaryDirectory(prefix="fastlisten-mutants.") as work:
            _try_all(changed, Path(work), given.jobs, results, keys, outcomes)
    return report(mutations, outcomes, len(changed))


def _try_all(
    mutations: list[Mutation],
    work: Path,
    jobs: int,
    results: Results,
    keys: dict[str, str],
    outcomes: dict[str, Outcome],
) -> None:
    """Try mutations in several copies at a time."""
    copies = [Copy(work / f"copy-{number}") for number in range(max(1, min(jobs, len(mutations))))]
    copies[0].make()
    for copy in copies[1:]:
        copy.copy_of(copies[0])
    waiting: queue.SimpleQueue[Mutation] = queue.SimpleQueue()
    # Those that are built come first: they take longest.
    for one in sorted(mutations, key=lambda one: not one.is_native):
        waiting.put(one)
    lock = threading.Lock()

    def work_on(copy: Copy) -> None:
        while True:
            try:
                mutation = waiting.get_nowait()
            except queue.Empty:
                return
            outcome = copy.try_mutation(mutation)
            with lock:
                outcomes[mutation.name] = outcome
                if outcome.verdict != "broken":
                    results.put(keys[mutation.name], outcome)
                took = f"({outcome.seconds:.0f} s)"
                print(f"{outcome.verdict:9}{mutation.name}", took, outcome.detail, flush=True)

    threads = [threading.Thread(target=work_on, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def report(mutations: list[Mutation], outcomes: dict[str, Outcome], tried: int) -> int:
    """Print the result; return the exit status."""
    wrong = []
    listed = []
    killed = 0
    for one in mutations:
        outcome = outcomes.get(one.name)
        if outcome is None:
            wrong.append(f"not tried: {one.name}")
        elif outcome.verdict == "broken":
            wrong.append(f"broken: {one.name}: {outcome.detail}")
        elif outcome.verdict == "killed" and one.survives:
            wrong.append(f"noticed although it is listed: {one.name}: {outcome.detail}")
        elif outcome.verdict == "killed":
            killed += 1
        elif one.survives:
            listed.append(f"{one.name}: {one.survives}")
        else:
            wrong.append(f"survived: {one.name} ({one.file})")
    what = "1 mutation" if len(mutations) == 1 else f"{len(mutations)} mutations"
    print(f"\n{what}, {tried} tried now: {killed} killed, {len(listed)} listed")
    for line in listed:
        print("  listed:", line)
    for line in wrong:
        print("  WRONG:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    start = time.monotonic()
    status = main()
    print(f"{time.monotonic() - start:.0f} s")
    sys.exit(status)
