"""The report on a reload: data for programs, lines for people.

Rules of this file: what happened was decided elsewhere. A report can be sent to other processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastlisten.runtime.reload.difference import Difference
from fastlisten.runtime.tls.certificates import ReloadResult

__all__ = ["ReloadReport"]


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What a reload has done.

    Attributes:
        applied: the configuration was used. If not, nothing has changed.
        file: its file; empty if only certificates were read again.
        problems: what cannot be used. If the configuration was used all the same, these are
            certificates and client CAs; what was loaded before stays in use.
        added: ids of new listeners.
        removed: ids of listeners that are gone, and drain.
        changed: other values that are in use now, a line each.
        restart: values that need a restart; the old ones stay in use.
        new_code: modules of handlers and applications whose files have changed, a line each; they
            stay what they are until a restart.
        certificates: files that have changed, a line each.
        warnings: what the administrator should know, a sentence each.
        files: how many files with certificates and client CAs were read.
    """

    applied: bool
    file: str = ""
    problems: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    new_code: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    files: int = 0

    @property
    def succeeded(self) -> bool:
        """Whether everything that was read could be used."""
        return self.applied and not self.problems

    @property
    def summary(self) -> str:
        """The report in one line."""
        name = self.file or "certificates"
        if not self.applied:
            count = _count(len(self.problems), "problem")
            return f"reload of {name} failed with {count}; nothing has changed"
        counts = (
            (self.added, "listener", "added"),
            (self.removed, "listener", "removed"),
            (self.changed, "setting", "changed"),
            (self.certificates, "file", "renewed"),
            (self.restart, "setting", "waiting for a stop and a start"),
            (self.new_code, "module", "waiting for a restart"),
            (self.problems, "problem", "with certificates"),
        )
        parts = (f"{_count(len(lines), noun)} {what}" for lines, noun, what in counts if lines)
        found = ", ".join(parts)
        if not found:
            files = f"{_count(self.files, 'file')} with certificates"
            names = (self.file, files if self.files or not self.file else "")
            return f"no changes in {' and '.join(filter(None, names))}"
        return f"reloaded {name}: {found}"

    def plain(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return dataclasses.asdict(self) | {"succeeded": self.succeeded, "summary": self.summary}

    @classmethod
    def of(
        cls,
        file: str,
        found: Difference,
        certificates: ReloadResult,
        warnings: Sequence[str],
        new_code: Sequence[str] = (),
    ) -> ReloadReport:
        """Return the report on a reload that was applied."""
        live = [change.text for change in found.changes if change.effect != "restart"]
        return cls(
            applied=True,
            file=file,
            problems=tuple(map(str, certificates.problems)),
            added=found.added,
            removed=found.removed,
            changed=tuple(live),
            restart=tuple(change.text for change in found.changes if change.effect == "restart"),
            new_code=tuple(
                f"the file of {name} has changed; a restart loads it" for name in new_code
            ),
            certificates=tuple(certificates.changed),
            warnings=(*certificates.warnings, *warnings),
            files=certificates.files,
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
