"""What became of mutations in earlier runs.

Rules of this file: a result is kept by a hash of all that decides it as far as this program knows:
the changed file with the change, the tests and what they share, the interpreter. A change elsewhere
in the package does not count; `--again` tries everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tools.mutants.mutations import ROOT, Mutation, support_files

__all__ = ["Outcome", "Results", "default_file"]

#: What became of a mutation: a test failed, none did, or it could not be tried.
Verdict = Literal["killed", "survived", "broken"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one mutation.

    Attributes:
        verdict: the result.
        detail: the test that failed, or why nothing could be tried.
        seconds: how long it took.
    """

    verdict: Verdict
    detail: str
    seconds: float


def default_file() -> Path:
    """Return where results are kept: outside of the tree, for all copies of the repository."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fastlisten" / "mutants.json"


class Results:
    """Results of earlier runs, in a file."""

    def __init__(self, path: Path, root: Path = ROOT) -> None:
        self._path = path
        self._root = root
        self._known: dict[str, dict[str, object]] = {}
        if path.is_file():
            self._known = json.loads(path.read_text(encoding="utf-8"))

    def key(self, mutation: Mutation) -> str:
        """Return the hash of what decides a mutation's result."""
        digest = hashlib.sha256()
        source = (self._root / mutation.file).read_text(encoding="utf-8")
        needed = {
            path for test in mutation.tests for path in support_files(self._root / test, self._root)
        }
        parts = [sys.version, mutation.file, mutation.applied(source), *mutation.tests]
        parts += [path.read_text(encoding="utf-8") for path in sorted(needed)]
        for part in parts:
            digest.update(hashlib.sha256(part.encode()).digest())
        return digest.hexdigest()

    def get(self, key: str) -> Outcome | None:
        """Return a result that is known, None if there is none."""
        entry = self._known.get(key)
        return None if entry is None else Outcome(**entry)  # type: ignore[arg-type]

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep a result, on disk at once: a long run may be interrupted."""
        self._known[key] = asdict(outcome)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(self._known, indent=1), encoding="utf-8")
        temporary.replace(self._path)
