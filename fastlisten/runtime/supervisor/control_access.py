"""The control socket of a server with several workers, and what its commands do.

Rules of this file: there may be no such socket. The protocol is in
`runtime.control_socket.protocol`, the connections are in control_clients.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastlisten.log_events import log
from fastlisten.runtime.control_socket.opening import open_control_socket
from fastlisten.runtime.control_socket.protocol import ServedProcess
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.supervisor.control_clients import ControlClients
from fastlisten.runtime.supervisor.pending import Pending
from fastlisten.runtime.supervisor.reloads import Reloads
from fastlisten.runtime.supervisor.restarting import Restarting
from fastlisten.runtime.supervisor.supervisor_control import SupervisorControl

__all__ = ["ControlAccess"]

logger = logging.getLogger("fastlisten")


class ControlAccess:
    """Lets clients of the control socket control the server.

    Args:
        plan: the server's plan, at its start.
        default: the path of the socket if none is configured; empty for none.
        workers: how many.
        control: of all workers.
        reloads: reload the configuration.
        restarting: replaces the workers.
        upgrade: upgrades the program for a client, whose description it gets.
    """

    def __init__(
        self,
        plan: Plan,
        default: str,
        workers: int,
        control: SupervisorControl,
        reloads: Reloads,
        restarting: Restarting,
        upgrade: Callable[[str], Awaitable[None]],
    ) -> None:
        self._plan = plan
        self._path: str = plan.config.process["server.control-socket"] or default
        # The working directory may change.
        self._file = os.path.realpath(plan.config.file) if plan.config.file else ""
        self._workers = workers
        self._control = control
        self._reloads = reloads
        self._restarting = restarting
        self._upgrade = upgrade
        self._clients: ControlClients | None = None

    def open(self) -> None:
        """Open the socket, if there is to be one.

        Raises:
            StartError: it cannot be opened.
        """
        identity = self._plan.identity
        owner = None if identity is None else (identity.uid, identity.gid)
        file = open_control_socket(self._plan.config, self._path, owner)
        if file is not None:
            self._clients = ControlClients(file, self._served())

    def close(self) -> None:
        """Close all connections, remove the socket."""
        if self._clients is not None:
            self._clients.close()

    def leave(self) -> None:
        """Close all descriptors in a forked process, and leave the file alone."""
        if self._clients is not None:
            self._clients.leave()

    # -- in the poll loop

    def polled(self) -> Mapping[int, int]:
        """Return the events to poll for, by descriptor."""
        return self._clients.polled() if self._clients is not None else {}

    def ready(self, fd: int) -> None:
        """Go on with a descriptor that `polled` has named and that is ready."""
        if self._clients is not None:
            self._clients.ready(fd)

    @property
    def deadline(self) -> float | None:
        """When to call `expire`, by the monotonic clock; None if there is nothing to wait for."""
        return self._clients.deadline if self._clients is not None else None

    def expire(self) -> None:
        """Do what is due."""
        if self._clients is not None:
            self._clients.expire()

    # -- an upgrade

    def state(self) -> dict[str, Any]:
        """Return what the new program of an upgrade needs to go on, as a JSON value."""
        assert self._clients is not None  # one of them has requested the upgrade
        return self._clients.state()

    def descriptors(self, state: Mapping[str, Any]) -> list[int]:
        """Return the descriptors in what `state` has returned."""
        return [state["fd"], *(one["fd"] for one in state["clients"])]

    def take_over(self, state: Mapping[str, Any], upgraded: Pending[bytes]) -> None:
        """Go on from what `state` has returned in a former program.

        Args:
            state: there.
            upgraded: the answer to the client that has requested the upgrade.

        Raises:
            UpgradeError: a descriptor is something else.
        """
        self._clients = ControlClients.taken_over(state, self._served(), upgraded)

    # -- commands

    def _served(self) -> ServedProcess:
        return ServedProcess(
            self._control, self._reload, os.getpid(), self._file, self._restart, self._upgrade
        )

    async def _reload(self, by: str) -> Mapping[str, object]:
        """Reload for a client; return the answer."""
        log(logger, logging.INFO, "reload-requested", "reload requested by %s", by, by=by)
        report = await self._reloads.request()
        return report.plain()

    async def _restart(self, by: str) -> Mapping[str, object]:
        """Replace all workers for a client; return the answer."""
        log(logger, logging.INFO, "restart-requested", "restart requested by %s", by, by=by)
        return {"succeeded": await self._restarting.begin(), "workers": self._workers}
