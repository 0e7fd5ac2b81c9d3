"""The plan: everything that is decided before any process serves or is forked.

    Config ─> Plan ─> Worker ─> Server        one process
                 └──> Worker, Worker, ...     forked by the process with the plan and the sockets

Rules of this file: it imports modules of this package only. Handlers and applications of others are
imported by the worker, after privileges are dropped. (The exception is the module that `handler`
names: the configuration has imported it for its class variables.) Nothing is bound until `bind`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping

from fastlisten._arena import Arena, Places
from fastlisten._tls import TlsSettings
from fastlisten.config import Config
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError
from fastlisten.handlers.importing import HandlerNotFoundError, named_handler
from fastlisten.log_events import log
from fastlisten.runtime.file_permissions import permission_warnings
from fastlisten.runtime.privileges import identity_of
from fastlisten.runtime.sockets.opening import BoundSocket, open_all
from fastlisten.runtime.tls.certificates import Certificates, ReloadResult
from fastlisten.runtime.tls.pem import FileRead, recorded, replayed

__all__ = ["Plan"]

logger = logging.getLogger("fastlisten")

#: The package of our own handlers.
_OWN = "fastlisten.handlers."


class Plan:
    """What the workers of a server have in common.

    Creating it reads the certificates, and creates the self-signed one if a listener needs it. TLS
    contexts are created here and not by the workers, so that all workers have the same keys for
    session tickets.

    Args:
        config: a loaded configuration.

    Attributes:
        config: as given.
        identity: the user to change to once the sockets are bound; None if that is not needed.
        certificates: the TLS contexts of the listeners.
        tls: the TLS settings of each listener that has TLS, by id.
        notes: what the administrator should know about certificates and sockets, a sentence each.
        reload_succeeded: false if the last reload read something that could not be used.

    Raises:
        ConfigurationError: something is not available in this version, a user does not exist, or
            a certificate cannot be used.
        PrivilegesError: this process cannot serve as the configured user.
        OSError: the data directory cannot be created.
    """

    def __init__(self, config: Config) -> None:
        if unavailable := find_unavailable(config):
            raise ConfigurationError(unavailable, config.warnings)
        self.config = config
        self.identity = identity_of(config)
        _import_own_handlers(config)
        about_files: list[str] = []
        if self.identity is None:
            self.certificates = Certificates(config)
        else:
            self.identity.make_directory(config)
            about_files = self.identity.check_files(config)
            self.certificates = Certificates(config, owner=self.identity.acting)
        self.tls: dict[str, TlsSettings] = {}
        for settings in config.listeners:
            context = self.certificates.context(settings.id)
            if context is not None:
                self.tls[settings.id] = TlsSettings(
                    context, handshake_timeout=settings["tls.timeout"]
                )
        self._permission_warnings = permission_warnings(config)
        self.notes = [*self.certificates.notes, *self._permission_warnings, *about_files]
        self.reload_succeeded = True

    def bind(self) -> list[BoundSocket]:
        """Create and bind the sockets of all listeners; `listen_all` makes them listen.

        Raises:
            StartError: with all failures; all sockets are closed.
        """
        owner = (-1, -1) if self.identity is None else (self.identity.uid, self.identity.gid)
        return open_all(self.config.listeners, self.notes, owner)

    def make_arena(self, members: int = 1) -> Arena:
        """Return the shared memory that counts the connections of all workers.

        It has a row for each listener, in the order of the configuration, with its
        `max-connections` as the limit. If there is a total, a row for what the listeners share of
        it follows, and then a row for the reserve of each of them.

        Args:
            members: how many processes may use it at a time.

        Raises:
            OSError: descriptors or memory ran out.
        """
        listeners = self.config.listeners
        limits = [settings["max-connections"] for settings in listeners]
        total = self.config.process["server.total-connections"]
        if total is not None:
            reserves = [settings["reserve"] for settings in listeners]
            limits += [total - sum(reserves), *reserves]
        arena = Arena(max(1, len(limits)), members)
        for row, limit in enumerate(limits):
            arena.places(row, 0).limit = limit
        return arena

    def places(self, arena: Arena, member: int) -> list[Places]:
        """Return what each listener counts its connections with, in one process.

        Args:
            arena: made by `make_arena`.
            member: the number of the process in the arena.
        """
        count = len(self.config.listeners)
        found = [arena.places(row, member) for row in range(count)]
        if self.config.process["server.total-connections"] is not None:
            for row, places in enumerate(found):
                places.count_total(count, count + 1 + row)
        return found

    def reload(self) -> ReloadResult:
        """Read certificates and client CAs again, and log the result.

        If something cannot be used, what was loaded before stays in use. Each process that was
        forked from the plan's has to call this itself.
        """
        found = self.certificates.reload()
        self.reload_succeeded = not found.problems
        for problem in found.problems:
            text = "%s; still using what was loaded before"
            log(logger, logging.ERROR, "certificate-error", text, problem, **problem.fields)
        for line in found.changed:
            log(logger, logging.INFO, "certificate-changed", "%s", line)
        for line in found.warnings:
            log(logger, logging.WARNING, "certificate-warning", "%s", line, error=line)
        before, self._permission_warnings = (
            self._permission_warnings,
            permission_warnings(self.config),
        )
        for line in self._permission_warnings:
            if line not in before:  # such as a renewed key with another mode
                logger.warning("%s", line)
        if not (found.changed or found.problems):
            files = "1 file" if found.files == 1 else f"{found.files} files"
            logger.info("no changes in %s with certificates", files)
        return found

    def reload_files(self) -> dict[str, dict[str, str]]:
        """Reload, and return the files that were read, for `reload_from` in other processes."""
        with recorded() as files:
            self.reload()
        return {path: dataclasses.asdict(read) for path, read in files.items()}

    def reload_from(self, files: Mapping[str, Mapping[str, str]]) -> None:
        """Reload with the files that another process has read. It has logged the result.

        They may be readable only with privileges that this process does not have.
        """
        with replayed({path: FileRead(**read) for path, read in files.items()}):
            self.reload_succeeded = not self.certificates.reload().problems


def _import_own_handlers(config: Config) -> None:
    """Import our own handlers once, so that workers forked later share their code in memory."""
    for name in {settings.definition.handler for settings in config.listeners}:
        if name.startswith(_OWN):
            # If it lacks a library, the worker reports it with the line of its listener.
            with contextlib.suppress(HandlerNotFoundError):
                named_handler(name)
