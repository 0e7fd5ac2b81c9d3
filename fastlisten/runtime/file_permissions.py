"""Warnings about files with secrets that other users on this host can read or change.

Rules of this file: it changes no modes, and files that are missing or cannot be read are reported
elsewhere. There is a warning about group write permission, but not about group read permission,
which is normal for accounts (root:mail 0640) and keys (root:ssl-cert 0640). The management token is
not checked here, because the management application refuses one that others can read.
"""

from __future__ import annotations

import os
import stat

from fastlisten.config import Config
from fastlisten.runtime.tls.self_signed import FILE_NAME as SELF_SIGNED_FILE

__all__ = ["permission_warnings"]

# The permissions that cause a warning, and those that the suggested chmod removes.
_EXPOSED = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP
_TOO_MUCH = stat.S_IRWXO | stat.S_IWGRP


def permission_warnings(config: Config) -> list[str]:
    """Return a warning for each file with secrets that others can read or change."""
    directory = config.process["server.data-directory"]
    secrets = config.secret_places()
    held = {
        config.process["server.accounts"]: "password hashes",
        os.path.join(directory, SELF_SIGNED_FILE): "the self-signed certificate's key",
    }
    for path, key in secrets.files.items():
        held.setdefault(path, key)
    if config.file and secrets.inline:
        held.setdefault(config.file, secrets.inline)
    warnings = []
    for path, what in held.items():
        mode = _mode(path)
        if mode is not None and stat.S_ISREG(mode) and mode & _EXPOSED:
            warnings.append(_warning(path, stat.S_IMODE(mode), what))
    above = [os.path.dirname(name) for path in held for name in _names(path)]
    for place in dict.fromkeys((*above, directory)):
        mode = _mode(place)
        if mode is not None and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            shown = stat.S_IMODE(mode)
            warnings.append(
                f"{place} has mode {shown:04o}: any user on this host can replace files in it; "
                f"chmod {shown & ~stat.S_IWOTH:04o}"
            )
    return warnings


def _names(path: str) -> tuple[str, ...]:
    """Return the path of an existing file, and that of the file that it links to."""
    return (path, os.path.realpath(path)) if _mode(path) is not None else ()


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return None


def _warning(path: str, mode: int, what: str) -> str:
    bits = ((stat.S_IROTH, "read"), (stat.S_IWOTH, "change"))
    does = " and ".join(verb for bit, verb in bits if mode & bit)
    who = "any user on this host" if does else "its group"
    does = does or "change"
    return (
        f"{path} has mode {mode:04o}: {who} can {does} it, and it contains {what}; "
        f"chmod {mode & ~_TOO_MUCH:04o}"
    )
