"""Users: finding them, and changing to one for good.

Rules of this file: ids of users and groups. The change is for the whole process with all its
threads (glibc and musl see to that). It is verified afterwards, because a process that goes on as
root would be worse than one that doesn't start.

What only root can do, such as reading a key that others cannot read or binding a port below 1024,
does not work again until the next start. Messages about it say so (`given_up`).
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass

from fastlisten.errors import FastlistenError

__all__ = [
    "Identity",
    "PrivilegesError",
    "UnknownUserError",
    "find_identity",
    "given_up",
    "group_id",
    "unreadable_file",
    "user_id",
]

#: The user that this process has changed to. There is one per process, as for the ids themselves.
_dropped: list[Identity] = []


class UnknownUserError(FastlistenError):
    """A user or group does not exist.

    Attributes:
        problems: what is wrong with ``user`` and ``group``.
    """

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems.values()))


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
            raise self._refused(error) from None
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
        """Have the effective ids of this user while the block runs: for access to files.

        Raises:
            PrivilegesError: this process may not; its ids are what they were.
        """
        groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
        with contextlib.ExitStack() as back:
            try:
                os.setgroups(self.groups)
                back.callback(os.setgroups, groups)
                os.setegid(self.gid)
                back.callback(os.setegid, gid)
                os.seteuid(self.uid)
                back.callback(os.seteuid, uid)
            except OSError as error:
                raise self._refused(error) from None
            yield

    def _refused(self, error: OSError) -> PrivilegesError:
        return PrivilegesError(f"cannot become user {self.name}: {error.strerror}")


def find_identity(user: str, group: str | None) -> Identity:
    """Return a user.

    Args:
        user: its name or id.
        group: the name or id of a group; None for the user's own.

    Raises:
        UnknownUserError: there is no such user or group.
    """
    problems: dict[str, str] = {}
    uid = gid = 0
    entry = None
    try:
        uid = user_id(user)
        entry = _entry(uid)
    except KeyError:
        problems["user"] = "no such user on this system"
    if group is not None:
        try:
            gid = group_id(group)
        except KeyError:
            problems["group"] = "no such group on this system"
    elif entry is not None:
        gid = entry.pw_gid
    elif not problems:
        problems["user"] = (
            "this id has no entry in the user database, so server.run-as.group is needed"
        )
    if problems:
        raise UnknownUserError(problems)
    if entry is None:
        return Identity(str(uid), uid, gid, (gid,))
    groups = tuple(os.getgrouplist(entry.pw_name, gid))
    return Identity(entry.pw_name, uid, gid, groups, entry.pw_dir)


def unreadable_file(user: Identity) -> str:
    """Return a file of Python or of this package that a user cannot read; empty if there is none.

    Modules that are imported after the change would be missing.

    Raises:
        PrivilegesError: this process may not act as the user.
    """
    with user.acting():
        for file in (os.__file__, __file__):
            if not os.access(file, os.R_OK, effective_ids=True):
                return file
    return ""


def given_up() -> str:
    """Return what to add to a message about a missing permission; empty if nothing was given up."""
    if not _dropped:
        return ""
    return (
        f"; this process has changed to user {_dropped[0].name} (server.run-as.user), and what "
        "needs root has to wait for a stop and a start of the server"
    )


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def user_id(name: str) -> int:
    """Return the id of a user given by name or number; raise KeyError for an unknown one."""
    number = _number(name)
    return pwd.getpwnam(name).pw_uid if number is None else number


def group_id(name: str) -> int:
    """Return the id of a group given by name or number; raise KeyError for an unknown one."""
    number = _number(name)
    return grp.getgrnam(name).gr_gid if number is None else number


def _number(name: str) -> int | None:
    """Return the number that a name consists of, None if it is not a number.

    Raises KeyError for a number that is too large; the largest 32-bit number means "no change" to
    chown(2).
    """
    if not (name.isascii() and name.isdigit()):
        return None
    if len(name) > 10 or int(name) >= 2**32 - 1:
        raise KeyError(name)
    return int(name)
