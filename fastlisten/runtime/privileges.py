"""`server.run-as`: the user that serves, and the change to it.

Rules of this file: ids of users and groups, and the files that must belong to them. The change is
for good and for the whole process with all its threads (glibc and musl see to that). It is verified
afterwards, because a process that goes on as root would be worse than one that doesn't start.

    root: certificates are read, sockets are bound ─> drop() ─> handlers and applications are
                                                               imported, clients are served

What only root can do comes before, so it does not work again until the next start: reading a key
that others cannot read, binding a port below 1024. Messages about it say so (`given_up`).
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass

from fastlisten.config import Config
from fastlisten.config.notation import quote
from fastlisten.errors import ConfigurationError, FastlistenError, Problem
from fastlisten.runtime.sockets.unix_files import group_id, user_id

__all__ = ["Identity", "PrivilegesError", "given_up", "identity_of"]

#: The user that this process has changed to. There is one per process, as for the ids themselves.
_dropped: list[Identity] = []


class PrivilegesError(FastlistenError):
    """This process cannot serve as another user, or has not completely become that user."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to serve as.

    Attributes:
        name: its name; its number if it has no name.
        uid: its id.
        gid: the id of its group.
        groups: its supplementary groups, with `gid`.
        home: its home directory, empty if it has none.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = ""

    def drop(self) -> None:
        """Become this user, for good.

        Afterwards real, effective and saved ids are those of the user, the supplementary groups
        are its own, and no capability is left: the kernel takes them from a process whose ids
        change from root to others. `HOME`, `USER` and `LOGNAME` are set for applications.

        Raises:
            PrivilegesError: the process is something else now than this user.
        """
        try:
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            text = f"cannot become user {self.name}: {error.strerror}"
            raise PrivilegesError(text) from None
        self._verify()
        os.environ.update(USER=self.name, LOGNAME=self.name)
        if self.home:
            os.environ["HOME"] = self.home
        _dropped[:] = [self]

    def _verify(self) -> None:
        ids = (os.getresuid(), os.getresgid(), set(os.getgroups()))
        if ids != ((self.uid,) * 3, (self.gid,) * 3, set(self.groups)):
            raise PrivilegesError(f"cannot become user {self.name}: ids are {ids}")
        if self.uid == 0:
            return
        # It must fail. It would not if capabilities had been kept (prctl(2), PR_SET_SECUREBITS).
        with contextlib.suppress(PermissionError):
            os.setresuid(0, 0, 0)
            raise PrivilegesError(
                f"user {self.name} could become root again: this process keeps its capabilities "
                "when its user changes (securebits)"
            )

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Have the effective ids of this user while the block runs: for access to files."""
        groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
        os.setgroups(self.groups)
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(uid)
            os.setegid(gid)
            os.setgroups(groups)

    def make_directory(self, config: Config) -> None:
        """Create the data directory for this user if it is configured and does not exist.

        Raises:
            OSError: it cannot be created.
        """
        path = config.process["server.data-directory"]
        if config.origin("server.data-directory") == "default" or os.path.lexists(path):
            return
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        os.mkdir(path, 0o700)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(fd, self.uid, self.gid)
        finally:
            os.close(fd)

    def check_files(self, config: Config) -> list[str]:
        """Check what this user must be able to read and write; call it before `drop`.

        Returns:
            What the administrator should know about it.

        Raises:
            PrivilegesError: the user cannot read Python itself.
        """
        path = config.process["server.data-directory"]
        with self.acting():
            for file in (os.__file__, __file__):
                # Modules that are imported later would be missing.
                if not os.access(file, os.R_OK, effective_ids=True):
                    text = f"user {self.name} (server.run-as.user) cannot read {file}"
                    raise PrivilegesError(text)
            if os.access(path, os.W_OK | os.X_OK, effective_ids=True):
                return []
        if not os.path.lexists(path):
            return []
        return [
            f"user {self.name} (server.run-as.user) cannot write to the data directory {path}: "
            f"chown {self.name} {path}, and what is in it"
        ]


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
        key, message = "group", "this needs server.run-as.user, too: the server would stay root"
        raise ConfigurationError([_problem(config, key, message, group)], config.warnings)
    problems = []
    uid = gid = 0
    entry = None
    try:
        uid = user_id(user)
        entry = _entry(uid)
    except KeyError:
        problems.append(_problem(config, "user", "no such user on this system", user))
    if group is not None:
        try:
            gid = group_id(group)
        except KeyError:
            problems.append(_problem(config, "group", "no such group on this system", group))
    elif entry is not None:
        gid = entry.pw_gid
    elif not problems:
        message = "this id has no entry in the user database, so server.run-as.group is needed"
        problems.append(_problem(config, "user", message, user))
    if problems:
        problems.sort(key=lambda problem: problem.line)
        raise ConfigurationError(problems, config.warnings)
    if entry is None:
        found = Identity(str(uid), uid, gid, (gid,))
    else:
        groups = tuple(os.getgrouplist(entry.pw_name, gid))
        found = Identity(entry.pw_name, uid, gid, groups, entry.pw_dir)
    if os.geteuid() != 0:
        if (os.getresuid(), os.getresgid()) == ((uid,) * 3, (gid,) * 3):
            return None
        raise PrivilegesError(
            f"only root can change to another user (server.run-as.user = {quote(user)}), and this "
            f"process runs as user id {os.geteuid()}: start it as root, or as that user",
        )
    return found


def given_up() -> str:
    """Return what to add to a message about a missing permission; empty if nothing was given up."""
    if not _dropped:
        return ""
    return (
        f"; this process has changed to user {_dropped[0].name} (server.run-as.user), and what "
        "needs root has to wait for a restart"
    )


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _problem(config: Config, key: str, message: str, value: str) -> Problem:
    return config.problem(("server", "run-as", key), message, quote(value))
