"""The plan: everything that is decided before any process serves or is forked.

    Config ─> Plan ─> Worker ─> Server        one process
                 └──> Worker, Worker, ...     forked by the process with the plan and the sockets

Rules of this file: it imports modules of this package only. Handlers and applications of others are
imported by the worker, after privileges are dropped. (The exception is the module that `handler`
names: the configuration has imported it for its class variables.) Nothing is bound until `bind`.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from fastlisten._arena import Arena, Places
from fastlisten._tls import TlsSettings
from fastlisten.config import Config
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError
from fastlisten.handlers.importing import HandlerNotFoundError, named_handler
from fastlisten.log_events import log
from fastlisten.runtime.file_permissions import permission_warnings
from fastlisten.runtime.privileges import check_files, identity_of, make_directory
from fastlisten.runtime.sockets.bound_socket import BoundSocket
from fastlisten.runtime.sockets.opening import open_all
from fastlisten.runtime.tls.certificates import Certificates, ReloadResult

__all__ = ["Plan", "log_certificates"]

logger = logging.getLogger("fastlisten")

#: Has the effective ids of a user while the block runs.
_Acting = Callable[[], AbstractContextManager[None]]

#: The package of our own handlers.
_OWN = "fastlisten.handlers."


@dataclass(slots=True)
class Rows:
    """The rows of a listener in the arena.

    Attributes:
        limit: that of its `max-connections`.
        reserve: that of its reserve; meaningless if there is no total.
    """

    limit: int
    reserve: int = 0


class Plan:
    """What the workers of a server have in common.

    Creating it reads the certificates, and creates the self-signed one if a listener needs it. TLS
    contexts are created here and not by the workers, so that all workers have the same keys for
    session tickets.

    A reload makes a new plan, the successor of the one in use, and `commit`s it once everything
    else has succeeded.

    Args:
        config: a loaded configuration.
        former: the plan that this one is to replace.

    Attributes:
        config: as given.
        identity: the user to change to once the sockets are bound; None if that is not needed.
        certificates: the TLS contexts of the listeners.
        tls: the TLS settings of each listener that has TLS, by id.
        rows: the listeners' rows in the arena, by id.
        shared: the row of what the listeners share of the total, None if there is no total.
        notes: what the administrator should know about certificates and sockets, a sentence each.
        reload_succeeded: false if the last reload read something that could not be used.

    Raises:
        ConfigurationError: something is not available in this version, a user does not exist, or
            a certificate cannot be used.
        PrivilegesError: this process cannot serve as the configured user.
        OSError: the data directory cannot be created.
    """

    certificates: Certificates

    def __init__(self, config: Config, former: Plan | None = None) -> None:
        if unavailable := find_unavailable(config):
            raise ConfigurationError(unavailable, config.warnings)
        self.config = config
        self.identity = identity_of(config)
        _import_own_handlers(config)
        about_files: list[str] = []
        before = None if former is None else former.certificates
        if self.identity is not None:
            make_directory(self.identity, config)
            about_files = check_files(self.identity, config)
        self.certificates = Certificates(config, former=before, owner=self._acting())
        self.tls: dict[str, TlsSettings] = {}
        for settings in config.listeners:
            context = self.certificates.context(settings.id)
            if context is not None:
                same = None if former is None else former.tls.get(settings.id)
                self.tls[settings.id] = _tls_settings(context, settings["tls.timeout"], same)
        # Those of a successor are added later (`add_rows`).
        count = len(config.listeners)
        self.rows = {
            settings.id: Rows(row, count + 1 + row) for row, settings in enumerate(config.listeners)
        }
        total = config.process["server.total-connections"]
        self.shared = None if total is None else count
        # Rows and reserves of listeners that are gone, while places of theirs are held.
        self._leaving: list[tuple[int, int]] = []
        self._manages_rows = True
        self.notes = [*self.certificates.notes, *permission_warnings(config), *about_files]
        self.reload_succeeded = True
        self._told = frozenset(() if former is None else former.notes)

    @property
    def news(self) -> list[str]:
        """The notes that the former plan did not have."""
        return [note for note in self.notes if note not in self._told]

    def bind(self, workers: int = 1) -> list[BoundSocket]:
        """Create and bind the sockets of all listeners; `listen_all` makes them listen.

        Args:
            workers: how many there are.

        Raises:
            StartError: with all failures; all sockets are closed.
        """
        return open_all(self.config.listeners, self.notes, self.owner, workers)

    @property
    def owner(self) -> tuple[int, int]:
        """User and group of Unix sockets' files by default; -1 (chown(2)): those of the process."""
        return (-1, -1) if self.identity is None else (self.identity.uid, self.identity.gid)

    def _acting(self) -> _Acting:
        """Return what gives this process the rights of the user, for files that the user owns.

        Root would follow a link that the user has put in their place.
        """
        return contextlib.nullcontext if self.identity is None else self.identity.acting

    def make_arena(self, members: int = 1) -> Arena:
        """Return the shared memory that counts the connections of all workers.

        It has a row for each listener, in the order of the configuration, with its
        `max-connections` as the limit. If there is a total, a row for what the listeners share of
        it follows, and then a row for the reserve of each of them. Reloads add rows and retire
        them.

        Args:
            members: how many processes may use it at a time.

        Raises:
            OSError: descriptors or memory ran out.
        """
        listeners = self.config.listeners
        limits = [settings["max-connections"] for settings in listeners]
        if self.shared is not None:
            limits += [self._unreserved(), *(settings["reserve"] for settings in listeners)]
        arena = Arena(max(1, len(limits)), members)
        for row, limit in enumerate(limits):
            arena.places(row, 0).limit = limit
        return arena

    def places(self, arena: Arena, member: int, listener: str) -> Places:
        """Return what a listener counts its connections with, in one process.

        Args:
            arena: made by `make_arena`.
            member: the number of the process in the arena.
            listener: the id.
        """
        rows = self.rows[listener]
        places = arena.places(rows.limit, member)
        if self.shared is not None:
            places.count_total(self.shared, rows.reserve)
        return places

    def _unreserved(self) -> int:
        """Return how much of the total the listeners share."""
        total: int = self.config.process["server.total-connections"]
        reserves: list[int] = [settings["reserve"] for settings in self.config.listeners]
        return total - sum(reserves) - sum(reserve for _, reserve in self._leaving)

    def _gone(self, former: Plan) -> list[tuple[Rows, int]]:
        """Return the rows and the reserves of listeners that only a former plan has."""
        here = {settings.id for settings in self.config.listeners}
        return [
            (former.rows[one.id], one["reserve"])
            for one in former.config.listeners
            if one.id not in here
        ]

    def _unreserved_at_first(self, former: Plan) -> int:
        """Return how much the listeners share while those that are gone hold all their reserves."""
        return self._unreserved() - sum(reserve for _, reserve in self._gone(former))

    # -- in an upgrade

    def rows_state(self) -> dict[str, object]:
        """Return the rows in the arena, and limits that the program may change, as a JSON value."""
        return {
            "rows": {id: [rows.limit, rows.reserve] for id, rows in self.rows.items()},
            "shared": self.shared,
            "leaving": self._leaving,
            "limits": {one.id: one["max-connections"] for one in self.config.listeners},
        }

    def take_rows(self, state: Mapping[str, Any], arena: Arena) -> None:
        """Use the rows that a former program has made, with the limits that they have.

        A limit whose key has changed in the file is set.

        Args:
            state: made by `rows_state`, for the same listeners.
            arena: of the former program.
        """
        self.rows = {id: Rows(*rows) for id, rows in state["rows"].items()}
        self.shared = state["shared"]
        self._leaving = [(row, reserve) for row, reserve in state["leaving"]]
        for settings in self.config.listeners:
            limit = settings["max-connections"]
            if state["limits"][settings.id] != limit:
                arena.places(self.rows[settings.id].limit, 0).limit = limit
        self.settle(arena)

    # -- in place of a former plan

    def add_rows(self, former: Plan, arena: Arena) -> None:
        """Take the rows of a former plan, and add some to the arena for each new listener.

        Raises:
            OSError: memory ran out; no row was added.
            ConfigurationError: the total, which cannot change, does not suffice.
        """
        self.rows, self.shared, self._leaving = {}, former.shared, list(former._leaving)
        if self.shared is not None and self._unreserved_at_first(former) < 1:
            path = ("server", "total-connections")
            text = "with the reserves of new listeners nothing is left of it; a larger one needs a "
            text += "stop and a start of the server"
            if self._unreserved() >= 1:
                text = "the reserves of removed listeners are still part of it; add new ones later"
            problem = self.config.problem(path, text)
            raise ConfigurationError([problem], self.config.warnings)
        try:
            for settings in self.config.listeners:
                rows = former.rows.get(settings.id)
                if rows is None:
                    rows = Rows(arena.add_row(settings["max-connections"]))
                    self.rows[settings.id] = rows
                    if self.shared is not None:
                        rows.reserve = arena.add_row(settings["reserve"])
                self.rows[settings.id] = rows
        except BaseException:
            self.drop_rows(former, arena)
            raise

    def share_rows(self, former: Plan, rows: Mapping[str, Sequence[int]]) -> None:
        """Use the rows that another process, which manages them, has added to the arena.

        Args:
            former: the plan that this one is to replace.
            rows: those of each listener, by id, as `row_numbers` returns them there.
        """
        self.rows = {id: Rows(limit, reserve) for id, (limit, reserve) in rows.items()}
        self.shared = former.shared
        self._manages_rows = False

    def row_numbers(self) -> dict[str, tuple[int, int]]:
        """Return the rows of each listener, by id, for `share_rows` in other processes."""
        return {id: (rows.limit, rows.reserve) for id, rows in self.rows.items()}

    def drop_rows(self, former: Plan, arena: Arena) -> None:
        """Undo `add_rows`."""
        for id in self.rows.keys() - former.rows.keys():
            rows = self.rows.pop(id)
            arena.retire_row(rows.limit)
            if rows.reserve:
                arena.retire_row(rows.reserve)

    @property
    def unsettled(self) -> bool:
        """Whether reserves of listeners that are gone are still held; see `settle`."""
        return bool(self._leaving)

    def lower(self, former: Plan, arena: Arena) -> None:
        """Make room under the total for the reserves of new listeners, before anybody accepts.

        What others hold beyond it is taken off the new reserves until it is given back. Listeners
        that are gone get no more of their reserves, even in a worker that does not know yet.
        """
        if self.shared is None:
            return
        for rows, _ in self._gone(former):
            arena.places(rows.reserve, 0).limit = 0
        shared = arena.places(self.shared, 0)
        shared.limit = min(shared.limit, self._unreserved_at_first(former))

    def commit(self, former: Plan, arena: Arena) -> None:
        """Use new limits and renewed certificates; retire the rows of listeners that are gone.

        No worker may accept for these listeners any more. A limit that was changed while the server
        runs stays as it is, unless its key has changed.
        """
        self.lower(former, arena)
        self.certificates.commit()
        before = {settings.id: settings for settings in former.config.listeners}
        for settings in self.config.listeners:
            limit = settings["max-connections"]
            known = before.get(settings.id)
            if known is not None and known["max-connections"] != limit:
                arena.places(self.rows[settings.id].limit, 0).limit = limit
        for rows, reserve in self._gone(former):
            arena.retire_row(rows.limit)
            if self.shared is not None:
                self._leaving.append((rows.reserve, reserve))
        self.settle(arena)

    def settle(self, arena: Arena) -> None:
        """Give the reserves of listeners that are gone to all others, once nobody holds them.

        With several workers this is done by the supervisor.
        """
        if self.shared is None or not self._manages_rows:
            return
        left = [one for one in self._leaving if arena.places(one[0], 0).count]
        for row in {row for row, _ in self._leaving} - {row for row, _ in left}:
            arena.retire_row(row)
        self._leaving = left
        arena.places(self.shared, 0).limit = self._unreserved()


def log_certificates(found: ReloadResult) -> None:
    """Log what a reload has found in the files with certificates."""
    for problem in found.problems:
        text = "%s; still using what was loaded before"
        log(logger, logging.ERROR, "certificate-error", text, problem, **problem.fields)
    for line in found.changed:
        log(logger, logging.INFO, "certificate-changed", "%s", line)
    for line in found.warnings:
        log(logger, logging.WARNING, "certificate-warning", "%s", line, error=line)


def _tls_settings(
    context: ssl.SSLContext, timeout: float, former: TlsSettings | None
) -> TlsSettings:
    """Return TLS settings, the former ones if they are the same: handlers hold them."""
    if former is not None and former.context is context and former.handshake_timeout == timeout:
        return former
    return TlsSettings(context, handshake_timeout=timeout)


def _import_own_handlers(config: Config) -> None:
    """Import our own handlers once, so that workers forked later share their code in memory."""
    for name in {settings.definition.handler for settings in config.listeners}:
        if name.startswith(_OWN):
            # If it lacks a library, the worker reports it with the line of its listener.
            with contextlib.suppress(HandlerNotFoundError):
                named_handler(name)
