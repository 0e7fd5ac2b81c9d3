"""`server.run-as`: the user that serves, and the files that must belong to it.

Rules of this file: what the configuration says, and its mistakes. fastlisten/privileges.py changes
the user.

    root: certificates are read, sockets are bound ─> drop() ─> handlers and applications are
                                                               imported, clients are served
"""

from __future__ import annotations

import os

from fastlisten import private_files
from fastlisten.config import Config
from fastlisten.config.notation import quote
from fastlisten.errors import ConfigurationError, Problem
from fastlisten.privileges import (
    Identity,
    PrivilegesError,
    UnknownUserError,
    find_identity,
    unreadable_file,
)

__all__ = ["check_files", "identity_of", "make_directory"]


def identity_of(config: Config) -> Identity | None:
    """Return the user to serve as; None if none is configured, or if it is this process's user.

    Raises:
        ConfigurationError: there is no such user or group.
        PrivilegesError: only root can change to it.
    """
    user, group = config.process["server.run-as.user"], config.process["server.run-as.group"]
    if user is None and group is None:
        return None
    if user is None:
        message = "this needs server.run-as.user, too: the server would stay root"
        raise ConfigurationError([_problem(config, "group", message, group)], config.warnings)
    try:
        found = find_identity(user, group)
    except UnknownUserError as error:
        values = {"user": user, "group": group}
        problems = [
            _problem(config, key, message, values[key]) for key, message in error.problems.items()
        ]
        problems.sort(key=lambda problem: problem.line)
        raise ConfigurationError(problems, config.warnings) from None
    if os.geteuid() != 0:
        ids = (os.getresuid(), os.getresgid())
        if ids == ((found.uid,) * 3, (found.gid,) * 3):
            return None
        raise PrivilegesError(
            f"only root can change to another user (server.run-as.user = {quote(user)}), and this "
            f"process runs as user id {os.geteuid()}: start it as root, or as that user"
        )
    return found


def make_directory(user: Identity, config: Config) -> None:
    """Create the data directory for the user if it is configured and does not exist.

    Raises:
        OSError: it cannot be created.
    """
    path = config.process["server.data-directory"]
    if config.origin("server.data-directory") == "default" or os.path.lexists(path):
        return
    private_files.make_directory(path, (user.uid, user.gid))


def check_files(user: Identity, config: Config) -> list[str]:
    """Check what the user must be able to read and write; call it before the change.

    Returns:
        What the administrator should know about it.

    Raises:
        PrivilegesError: the user cannot read Python itself.
    """
    path = config.process["server.data-directory"]
    if file := unreadable_file(user):
        raise PrivilegesError(f"user {user.name} (server.run-as.user) cannot read {file}")
    with user.acting():
        if os.access(path, os.W_OK | os.X_OK, effective_ids=True):
            return []
    if not os.path.lexists(path):
        return []
    return [
        f"user {user.name} (server.run-as.user) cannot write to the data directory {path}: "
        f"chown {user.name} {path}, and what is in it"
    ]


def _problem(config: Config, key: str, message: str, value: str) -> Problem:
    return config.problem(("server", "run-as", key), message, quote(value))
