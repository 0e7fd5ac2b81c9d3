"""The difference between the configuration in use and a new one.

    old Config, new Config ─> Difference ─> what is opened, closed, made anew; the lines of the log

Rules of this file: it compares values and decides what a reload does with each (the rows say it);
nothing is opened, made or logged here. A change of a default is one change, with the listeners that
it concerns. Secrets are compared, but not shown.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fastlisten.config import Bind, Certificate, Config, ListenerSettings
from fastlisten.config.notation import dotted, quote
from fastlisten.config.rows.listener import LISTENER_OPTIONS
from fastlisten.config.secret_names import NOT_SHOWN
from fastlisten.config.values.kinds import write
from fastlisten.option import Option, Reload

__all__ = ["Change", "Difference", "difference"]

#: How many listeners to name if a change concerns more of them.
_MAX_NAMED = 3

#: Keys of listeners that are named like a key of the process, which is their default.
_OF_PROCESS = frozenset(("hostname", "greeting"))

#: What a reload does with the keys that every listener must have.
_ROWS = {row.key: row.reload for row in LISTENER_OPTIONS}


@dataclass(frozen=True, slots=True)
class Change:
    """One key with another value.

    Attributes:
        key: the key: of the process in full (``log.level``), else as it is written on a listener.
        before: the old value as TOML, or ``not set``.
        after: the new value.
        effect: what a reload does with it.
        listeners: the ids of the listeners concerned; empty for a key of the process.
    """

    key: str
    before: str
    after: str
    effect: Reload
    listeners: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The change in one line."""
        if self.before == self.after:  # a secret
            what = f"{self.key} has changed"
            if self.effect == "restart":
                what += ", which needs a stop and a start of the server"
        elif self.effect == "restart":
            what = f"{self.key} = {self.after} needs a stop and a start of the server; "
            what += f"still {self.before}"
        else:
            what = f"{self.key} = {self.after} (was {self.before})"
        if not self.listeners:
            return what
        names = ", ".join(quote(id) for id in self.listeners[:_MAX_NAMED])
        if len(self.listeners) > _MAX_NAMED:
            names += f" and {len(self.listeners) - _MAX_NAMED:,} more"
        return f"listener{'' if len(self.listeners) == 1 else 's'} {names}: {what}"


@dataclass(frozen=True, slots=True)
class Difference:
    """What a reload has to do.

    Attributes:
        config: the new configuration with the old values of everything that needs a restart: what
            is in use after the reload.
        added: ids of new listeners, in order.
        removed: ids of listeners that are gone.
        changed: ids of listeners with other values, those that need a restart not counted.
        changes: keys with other values, in order of listener and key.
    """

    config: Config
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def empty(self) -> bool:
        """Whether both configurations mean the same."""
        return not (self.added or self.removed or self.changes)


def difference(old: Config, new: Config) -> Difference:
    """Compare two configurations.

    Args:
        old: what is in use.
        new: what was loaded.
    """
    before = {settings.id: settings for settings in old.listeners}
    ids = {settings.id for settings in new.listeners}
    listeners: list[ListenerSettings] = []
    changed: list[str] = []
    found: dict[Change, list[str]] = {}
    process, changes = _process(old, new)
    changes += _certificates(old.certificates, new.certificates)
    for settings in new.listeners:
        former = before.get(settings.id)
        if former is not None and former != settings:
            kept: dict[str, tuple[Any, Any]] = {}
            lives = False
            for change, shared in _listener(former, settings):
                if change.effect == "restart":
                    kept[change.key] = (former[change.key], former.origin(change.key))
                else:
                    lives = True
                if not (shared and change.key in _OF_PROCESS):
                    found.setdefault(change, []).append(settings.id)
            if kept:
                settings = dataclasses.replace(settings, adjusted={**settings.adjusted, **kept})
            if lives:
                changed.append(settings.id)
        listeners.append(settings)
    changes += [
        dataclasses.replace(change, listeners=tuple(names)) for change, names in found.items()
    ]
    return Difference(
        config=dataclasses.replace(
            new, listeners=tuple(listeners), process=MappingProxyType(process)
        ),
        added=tuple(settings.id for settings in new.listeners if settings.id not in before),
        removed=tuple(id for id in before if id not in ids),
        changed=tuple(changed),
        changes=tuple(changes),
    )


def _process(old: Config, new: Config) -> tuple[dict[str, Any], list[Change]]:
    """Return the values in use after the reload, and the changes."""
    values = dict(new.process)
    changes = []
    for row in new.process_options:
        before, after = old.process[row.key], new.process[row.key]
        if row.key == "server.accounts" and new.origin(row.key) == "default":
            # It is in the data directory, which stays the same.
            directory = old.process["server.data-directory"]
            after = values[row.key] = os.path.join(directory, os.path.basename(after))
        if before == after:
            continue
        if row.reload == "restart":
            values[row.key] = before
            if {old.origin(row.key), new.origin(row.key)} == {"default"}:
                continue  # it depends on the environment, which `server.run-as` has changed
        changes.append(Change(row.key, _shown(row, before), _shown(row, after), row.reload))
    return values, changes


def _certificates(old: Mapping[str, Certificate], new: Mapping[str, Certificate]) -> list[Change]:
    """Return a change for each `[certificate."ID"]` that is new, gone or different."""
    changes = []
    for id in {**old, **new}:
        before, after = old.get(id), new.get(id)
        if before != after:
            changes.append(
                Change(dotted(("certificate", id)), _written(before), _written(after), "live")
            )
    return changes


def _written(certificate: Certificate | None) -> str:
    """Return where a certificate is; the PEM text of one in the configuration is not shown."""
    if certificate is None:
        return "not set"
    source = certificate.cert
    shown = quote(source) if source.startswith("file://") else quote(NOT_SHOWN)
    return shown + (", default" if certificate.default else "")


def _listener(old: ListenerSettings, new: ListenerSettings) -> Iterator[tuple[Change, bool]]:
    """Yield the changes of a listener, and whether each is one of a default."""
    if old.protocol != new.protocol:
        change = Change("protocol", quote(old.protocol), quote(new.protocol), _ROWS["protocol"])
        yield change, False
    if [bind.key for bind in old.bind] != [bind.key for bind in new.bind]:
        yield Change("bind", _binds(old.bind), _binds(new.bind), _ROWS["bind"]), False
    keys = set(old.keys())
    for row in new.options:
        if row.key not in keys:
            continue  # of another protocol
        before, after = old[row.key], new[row.key]
        if before == after:
            continue
        shared = "listener" not in (old.origin(row.key), new.origin(row.key))
        yield Change(row.key, _shown(row, before), _shown(row, after), row.reload), shared


def _binds(binds: Iterable[Bind]) -> str:
    texts = [
        f"{quote(bind.text)} (IPv6 only)" if bind.wildcard and bind.v6only else quote(bind.text)
        for bind in binds
    ]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _shown(row: Option, value: Any) -> str:
    return "not set" if value is None else write(row, value)
