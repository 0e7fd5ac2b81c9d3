"""Names of folders, and the names of their Maildir++ directories.

Rules of this file: text in, text out. A folder's name is Unicode with ``/`` between levels, such as
``Work/Ändern``. On the disk it is one directory beside new/ and cur/, ``.Work.&AMQ-ndern``: a dot
before every level, in the modified UTF-7 of IMAP (RFC 3501 5.1.3), as Courier (where Maildir++
comes from) and Dovecot write it. A dot within a level is encoded too: ``v1.2`` is ``.v1&AC4-2``.
"""

from __future__ import annotations

import binascii
import re
import unicodedata

__all__ = ["FolderNameError", "directory_of", "folder_of"]

#: NAME_MAX of every filesystem that matters, in octets.
_NAME_MAX = 255

#: What is encoded, and the ampersand: what modified UTF-7 encodes, and dots.
_NOT_DIRECT = re.compile(r"[^ -%'-\-/-~]+|&")
_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")


class FolderNameError(ValueError):
    """A folder cannot have this name; says why."""


def directory_of(name: str) -> str:
    """Return the directory name of a folder.

    Raises:
        FolderNameError: no folder can have this name.
    """
    name = unicodedata.normalize("NFC", name)
    levels = name.split("/")
    if not all(levels):
        raise FolderNameError(f"{name!r} has a level without a name")
    try:
        directory = "".join("." + _encode(level) for level in levels)
    except UnicodeEncodeError as error:
        raise FolderNameError(f"{name!r} is no Unicode text") from error
    if len(directory) > _NAME_MAX:
        raise FolderNameError(f"{name!r} is too long for the name of a directory")
    return directory


def folder_of(directory: str) -> str | None:
    """Return the name of the folder in a directory, None if it is not a folder's directory."""
    try:
        name = "/".join(_decode(level) for level in directory[1:].split("."))
        return name if directory_of(name) == directory else None
    except ValueError:
        return None


def _encode(text: str) -> str:
    """Return the modified UTF-7 of a text."""
    return _NOT_DIRECT.sub(_shift, text)


def _shift(match: re.Match[str]) -> str:
    text = match[0]
    if text == "&":
        return "&-"
    coded = binascii.b2a_base64(text.encode("utf-16-be"), newline=False).decode()
    return "&" + coded.rstrip("=").replace("/", ",") + "-"


def _decode(text: str) -> str:
    """Return what modified UTF-7 stands for, the rest as it is: `folder_of` compares.

    Raises:
        ValueError: it is not well-formed.
    """
    return _SHIFTED.sub(_unshift, text)


def _unshift(match: re.Match[str]) -> str:
    coded = match[1].replace(",", "/")
    if not coded:
        return "&"
    return binascii.a2b_base64(coded + "=" * (-len(coded) % 4)).decode("utf-16-be")
