"""Files of Dovecot and Courier that hold what a Maildir cannot: UIDs, keywords, subscriptions.

Rules of this file: blocking reads; text in, values out; nothing of the index. A file is taken as a
whole or, if anything in it is not as it should be, not at all: half a list of UIDs would give other
messages the UIDs of those that are missing.

    dovecot-uidlist        3 V<uidvalidity> N<uidnext> ...     <uid> [field ...] :<file name>
                           1 <uidvalidity> <uidnext>           <uid> <file name>
    courierimapuiddb       1 <uidvalidity> <uidnext> ...       <uid> <file name>
    dovecot-keywords       <number> <keyword>; number 0 is the letter a in names of files
    subscriptions          names, one a line; levels separated by tabs if the first line is V<tab>2
    courierimapsubscribed  names such as INBOX.Work, one a line

The UIDNEXT of Dovecot's third version may be too small: lines have been appended since.

Formats: https://doc.dovecot.org/admin_manual/mailbox_formats/maildir/; Courier's imapscanclient.c.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from fastlisten.mail.maildir.folder_names import FolderNameError, directory_of, folder_of

__all__ = [
    "DamagedFileError",
    "UidList",
    "keywords_of",
    "subscriptions_of",
    "uid_list_of",
    "uids_of",
]

_UID_LISTS = ("dovecot-uidlist", "courierimapuiddb")
_KEYWORDS = "dovecot-keywords"
_SUBSCRIPTIONS = ("subscriptions", "courierimapsubscribed")

#: The longest line: the name of a file has at most 255 octets, and the fields before it are few.
_LONGEST_LINE = 4096

#: 100,000 subscriptions have some 3 MB.
_LARGEST_FILE = 16 << 20

#: UIDs and UIDVALIDITY are below this (RFC 3501 9).
_UID_LIMIT = 1 << 32

#: A folder that is made again needs a larger UIDVALIDITY; so many are left above an imported one.
_UIDVALIDITY_ROOM = 1 << 16

#: So many UIDs are left above imported ones: a folder that has none left takes no mail. A restored
#: backup skips a million of them.
_UID_ROOM = 1 << 28

#: RFC 3501 9, flag-keyword: an atom, of printable ASCII but for what lists and strings are made of.
_KEYWORD = re.compile(r'[^\s\x00-\x20\x7f-\uffff(){%*"\\\]]+')

_HEAD = re.compile(rb"3 (?=.*\bV([0-9]{1,10})\b)(?=.*\bN([0-9]{1,10})\b)|1 ([0-9]{1,10}) ([0-9]+)")


class DamagedFileError(Exception):
    """A file is not what it should be; says which and why."""


@dataclass(frozen=True, slots=True)
class UidList:
    """A whole and sound list of UIDs.

    Attributes:
        uidvalidity: for which the UIDs hold.
        uidnext: larger than every UID that has been given to a message.
    """

    uidvalidity: int
    uidnext: int


def uid_list_of(directory: str) -> UidList | None:
    """Return the list of UIDs of a folder, None if there is none.

    Raises:
        DamagedFileError: there is one that cannot be used.
        OSError: it cannot be read.
    """
    file = _uid_list(directory)
    if file is None:
        return None
    with file:
        uidvalidity, uidnext, _ = _head(file)
        file.seek(0)
        last = max((uid for _, uid in _entries(file)), default=0)
    uidnext = max(uidnext, last + 1)
    if not (0 < uidvalidity < _UID_LIMIT - _UIDVALIDITY_ROOM and uidnext < _UID_LIMIT - _UID_ROOM):
        raise DamagedFileError(f"{file.name}: numbers are out of range")
    return UidList(uidvalidity, uidnext)


def uids_of(directory: str, names: Container[str]) -> dict[str, int]:
    """Return the UIDs of some files of a folder, by their names without flags.

    Raises:
        DamagedFileError: the list of UIDs cannot be used.
        OSError: it cannot be read.
    """
    file = _uid_list(directory)
    if file is None:
        return {}
    with file:
        # A name that is there twice has its last UID.
        return {name: uid for name, uid in _entries(file) if name in names}


def _uid_list(directory: str) -> BinaryIO | None:
    for name in _UID_LISTS:
        try:
            return _opened(f"{directory}/{name}")
        except FileNotFoundError:
            continue
    return None


def _opened(path: str) -> BinaryIO:
    """Open a regular file.

    Raises:
        DamagedFileError: it is something else.
        OSError: it cannot be opened.
    """
    try:
        file = open(path, "rb", opener=_open)  # noqa: SIM115
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a socket
            raise DamagedFileError(f"{path} is no regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DamagedFileError(f"{path} is no regular file")
    return file


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)


def _head(file: BinaryIO) -> tuple[int, int, bytes]:
    """Read the first line; return UIDVALIDITY, UIDNEXT and what precedes names in other lines.

    Raises:
        DamagedFileError: it is something else.
    """
    match = _HEAD.match(file.readline(_LONGEST_LINE))
    if match is None:
        raise DamagedFileError(f"{file.name} begins with no UIDVALIDITY")
    if match[1]:
        return int(match[1]), int(match[2]), b" :"
    return int(match[3]), int(match[4]), b" "


def _entries(file: BinaryIO) -> Iterator[tuple[str, int]]:
    """Yield the names and UIDs of all lines.

    Raises:
        DamagedFileError: a line is something else, or UIDs do not grow.
    """
    _, _, before_name = _head(file)
    number, last = 1, 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        head, found, name = line.partition(before_name)
        uid = head.partition(b" ")[0]
        if not (found and uid.isdigit() and len(uid) <= 10 and line.endswith(b"\n")):
            raise DamagedFileError(f"{file.name}, line {number}: not a UID and the name of a file")
        if int(uid) <= last:
            raise DamagedFileError(f"{file.name}, line {number}: UIDs do not grow")
        last = int(uid)
        yield os.fsdecode(name[:-1].partition(b":")[0]), last


def keywords_of(directory: str) -> dict[str, str]:
    """Return the keywords that letters in names of files stand for.

    Raises:
        DamagedFileError: the file cannot be used.
        OSError: it cannot be read.
    """
    path = f"{directory}/{_KEYWORDS}"
    try:
        lines = _text(path).split("\n")
    except FileNotFoundError:
        return {}
    found = {}
    for line in filter(None, lines):
        number, _, keyword = line.partition(" ")
        if not (number.isdecimal() and number.isascii() and keyword):
            raise DamagedFileError(f"{path}: {line!r} is not a number and a keyword")
        # More than 26 are in Dovecot's index only; others no client can ask for.
        if len(number) < 3 and int(number) < 26 and _KEYWORD.fullmatch(keyword):
            found[chr(ord("a") + int(number))] = keyword
    return found


def subscriptions_of(directory: str) -> list[str]:
    """Return the subscribed names, as clients are told them; those that are none are left out.

    Raises:
        DamagedFileError: the file cannot be used.
        OSError: it cannot be read.
    """
    for file in _SUBSCRIPTIONS:
        path = f"{directory}/{file}"
        try:
            text = _text(path)
        except FileNotFoundError:
            continue
        version, _, rest = text.partition("\n")
        lines = (rest.replace("\t", ".") if version == "V\t2" else text).split("\n")
        if file == "courierimapsubscribed":
            lines = [line.removeprefix("INBOX.") for line in lines]
        return [name for line in lines if (name := _folder_name(line))]
    return []


def _folder_name(text: str) -> str | None:
    """Return the name of the folder that a line of subscriptions names."""
    if not text.isprintable():
        return None
    if text.upper() == "INBOX":
        return "INBOX"
    name = folder_of(f".{text}")
    if name is None:  # in UTF-8, as Dovecot may be told to write names
        name = text.replace(".", "/")
        try:
            directory_of(name)
        except FolderNameError:
            return None
    return name


def _text(path: str) -> str:
    """Return a small file.

    Raises:
        DamagedFileError: it is too large, or not UTF-8.
        OSError: it cannot be read.
    """
    with _opened(path) as file:
        data = file.read(_LARGEST_FILE + 1)
    if len(data) > _LARGEST_FILE:
        raise DamagedFileError(f"{path} is too large")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DamagedFileError(f"{path} is not UTF-8") from None
