"""Becomes the owner of the data directory, for commands that read and change mail.

Rules of this file: the change is for good, and comes before any file of an account is touched.
Files that root made would be closed to the server, and links in a directory that belongs to
somebody else must not lead root anywhere.
"""

from __future__ import annotations

import os

from fastlisten.privileges import (
    Identity,
    PrivilegesError,
    UnknownUserError,
    find_identity,
    unreadable_file,
)

__all__ = ["owner_of", "work_as_owner"]


def owner_of(directory: str) -> Identity | None:
    """Return the owner of a directory if this process is root and the owner is not.

    Raises:
        OSError: there is no such directory.
        PrivilegesError: the owner cannot be found.
    """
    status = os.stat(directory)
    if os.geteuid() != 0 or status.st_uid == 0:
        return None
    try:
        return find_identity(str(status.st_uid), None)
    except UnknownUserError:
        # It has no entry in the user database.
        return Identity(str(status.st_uid), status.st_uid, status.st_gid, (status.st_gid,))


def work_as_owner(directory: str) -> None:
    """Become the owner of a directory, if this process is root.

    Raises:
        OSError: there is no such directory.
        PrivilegesError: it cannot be done.
    """
    owner = owner_of(directory)
    if owner is not None:
        if file := unreadable_file(owner):
            message = (
                f"{directory} belongs to user {owner.name}, who cannot read {file}: Python and "
                "fastlisten have to be where every user can read them"
            )
            raise PrivilegesError(message)
        owner.drop()
    elif os.geteuid() not in (0, os.stat(directory).st_uid):
        name = os.stat(directory).st_uid
        message = f"{directory} belongs to user id {name}: run this as root, or as that user"
        raise PrivilegesError(message)
