"""The files of a folder: finding one, listing all, reading what the index needs to know of one.

Rules of this file: blocking system calls; nothing of the index. Other programs rename files at any
time, so that a file that is not where it should be may be elsewhere, and a listing that is made
meanwhile may miss names that were there all the time (1,948 of 1,965 did). Only a listing of a
directory that has not changed for 20 ms is *settled*, and proves that something is missing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store.letters import bits_of, letters_of

__all__ = [
    "INFO_ROOM",
    "Files",
    "Found",
    "Inspected",
    "Listing",
    "bits_in",
    "found_in_new",
    "in_new",
    "inspect",
    "locate",
    "mtime_of",
    "names_in_new",
    "path_of",
    "rename",
    "rename_into",
    "times_of",
]

#: Octets that have to be free in a name for ``:2,`` and every letter that the index knows.
INFO_ROOM = 3 + 52

#: Nanoseconds for which a directory's mtime may hide another change: the kernel's tick of at most
#: 10 ms, with a margin.
_TICK = 20_000_000

#: The latest time that the index can hold, in the year 2262. Filesystems have later ones.
_LATEST = (1 << 63) - 1

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)

#: Names that are freed at once.
_FREED = 2_000

#: Tables that the names of a directory are in: a million take 4 ms to free each.
_TABLES = 64

#: Octets at the beginning of a message in which its first line most likely ends.
_HEAD = 8192

_PIECE = 1 << 18


class Found(NamedTuple):
    """A file of a message.

    Attributes:
        name: without flags.
        bits: its flags (letters.py).
        path: where it was found.
        new: in new/, not in cur/.
    """

    name: str
    bits: int
    path: str
    new: bool


class Inspected(NamedTuple):
    """What the index keeps of a file; the columns of `email`."""

    size: int
    eol: int
    octets: int
    mtime: int
    inode: int

    @property
    def date(self) -> int:
        """The seconds of `mtime`."""
        return self.mtime // 1_000_000_000


def path_of(box: Maildir, name: str, bits: int) -> str:
    """Return where a message's file is, if nobody else has moved it."""
    return f"{box.cur}/{name}:2,{letters_of(bits)}"


def rename(source: str, target: str) -> None:
    """Rename a file or a directory, never onto another one.

    Raises:
        FileExistsError: there is a file of that name.
        OSError: it could not be renamed.
    """
    if _renameat2 is not None:
        if not _renameat2(
            _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
        ):
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), source, None, target)
    # A filesystem, or a libc, that cannot do that.
    if os.path.isdir(source):
        os.rename(source, target)  # onto an empty directory at most
        return
    # A kill in between leaves one file of two names, of which a look removes one.
    os.link(source, target)
    os.unlink(source)


def rename_into(box: Maildir, source: str, target: str) -> None:
    """Rename a file into cur/, which is made if it is missing: backups skip empty directories.

    Raises:
        FileNotFoundError: there is no such file.
        FileExistsError: there is a file of that name.
        OSError: it could not be renamed.
    """
    try:
        rename(source, target)
    except FileNotFoundError:
        if os.path.isdir(box.cur) or not os.path.lexists(source):
            raise
        box.prepare()
        rename(source, target)


class Files(Mapping[str, Found]):
    """Files by name; an object is made of one only when it is asked for.

    A million objects would be gone through by the collector of garbage again and again, while all
    other threads wait, and so would a table of a million names when it grows or is freed. So there
    are many tables of strings.
    """

    __slots__ = ("_box", "_emptied", "_tables")

    def __init__(self, box: Maildir) -> None:
        self._box = box
        self._tables: tuple[dict[str, str], ...] = tuple({} for _ in range(_TABLES))
        self._emptied = 0  # how many, by `take_any`

    def put_all(
        self, files: Iterable[tuple[str, str]], *, new: bool
    ) -> Iterator[tuple[str, str, str]]:
        """Put files where they are.

        A place is ``/`` and the file's name in cur/, or its name in new/.

        Args:
            files: names of messages, and those of their files.
            new: they are in new/.

        Yields:
            Names that were there already, with both places.
        """
        tables, mark = self._tables, "" if new else "/"
        for name, text in files:
            place = mark + text
            other = tables[hash(name) % _TABLES].setdefault(name, place)
            if other is not place:
                tables[hash(name) % _TABLES][name] = place
                yield name, place, other

    def found(self, name: str, place: str) -> Found:
        """Return a file by its place."""
        if in_new(place):
            return Found(name, bits_in(place), f"{self._box.new}/{place}", new=True)
        return Found(name, bits_in(place), f"{self._box.cur}{place}", new=False)

    def places(self) -> Iterator[tuple[str, str]]:
        """Yield names and places."""
        for table in self._tables:
            yield from table.items()

    def take_all(self, names: Sequence[str]) -> list[str | None]:
        """Take files out; return their places, None for names that none has."""
        tables = self._tables
        return [tables[hash(name) % _TABLES].pop(name, None) for name in names]

    def take_any(self) -> tuple[str, str] | None:
        """Take any file out; return its name and its place, None if there is none left."""
        while not self._tables[self._emptied]:
            if self._emptied == _TABLES - 1:
                return None
            self._emptied += 1
        return self._tables[self._emptied].popitem()

    def __getitem__(self, name: str) -> Found:
        return self.found(name, self._tables[hash(name) % _TABLES][name])

    def __contains__(self, name: object) -> bool:
        return name in self._tables[hash(name) % _TABLES]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.places())

    def __len__(self) -> int:
        return sum(map(len, self._tables))


def in_new(place: str) -> bool:
    """Return whether a place is one in new/."""
    return place[0] != "/"


def bits_in(place: str) -> int:
    """Return the flags in a file's name; anything but "2," is experimental, and has none."""
    _, _, info = place.partition(":")
    return bits_of(info[2:]) if info.startswith("2,") else 0


class Listing:
    """The files of a folder at one moment.

    Attributes:
        files: by name; of a name that was seen twice, the file that was seen last.
        doubles: files of one name, of which one may have become the other meanwhile.
        times: when new/ and cur/ last changed, in ns.
        settled: nothing changed meanwhile or shortly before: a name that is missing does not exist.
        cur_settled: that is so for cur/.
    """

    __slots__ = ("cur_settled", "doubles", "files", "settled", "times")

    def __init__(self, box: Maildir) -> None:
        self.files = Files(box)
        self.doubles: list[tuple[Found, Found]] = []
        before = times_of(box)
        for directory, new in ((box.new, True), (box.cur, False)):
            for name, place, other in self.files.put_all(_scan(directory), new=new):
                found = self.files.found
                self.doubles.append((found(name, place), found(name, other)))
        # A directory that is missing (a backup that is being restored, say) proves nothing either.
        self.settled = (
            before[1] > 0 and time.time_ns() - max(before) > _TICK and times_of(box) == before
        )
        self.cur_settled = self.settled or (
            0 < before[1] < time.time_ns() - _TICK and times_of(box)[1] == before[1]
        )
        self.times = before


def times_of(box: Maildir) -> tuple[int, int]:
    """Return when new/ and cur/ last changed, in ns; 0 for one that is missing."""
    times = []
    for directory in (box.new, box.cur):
        try:
            times.append(mtime_of(os.stat(directory)))
        except FileNotFoundError:
            times.append(0)
    return times[0], times[1]


def found_in_new(box: Maildir) -> Iterator[Found]:
    """Yield the files in new/."""
    files = Files(box)
    return (files.found(name, place) for name, place in names_in_new(box))


def names_in_new(box: Maildir) -> Iterator[tuple[str, str]]:
    """Yield the names of messages in new/, and their places."""
    return _scan(box.new)


def _scan(directory: str) -> Iterator[tuple[str, str]]:
    """Yield the names of messages, and those of their files."""
    try:
        texts = os.listdir(directory)
    except FileNotFoundError:
        return
    while texts:
        some = texts[-_FREED:]
        del texts[-_FREED:]
        for text in some:
            if not text.startswith("."):
                name = text.partition(":")[0]
                if name:
                    yield name, text


def locate(box: Maildir, name: str, bits: int) -> tuple[Found | None, bool]:
    """Find the file of a message.

    Args:
        box: the folder.
        name: the message's.
        bits: the flags that the index has.

    Returns:
        The file, None if it was not seen, and whether that is certain.
    """
    for found in (
        Found(name, bits, path_of(box, name, bits), new=False),
        Found(name, 0, f"{box.new}/{name}", new=True),
    ):
        if os.path.lexists(found.path):
            return found, True
    listing = Listing(box)
    found_now = listing.files.get(name)
    return found_now, found_now is not None or listing.settled


def inspect(path: str) -> Inspected | None:
    """Return what the index keeps of a file, None for what is no regular file.

    How the first line ends says how all do. A message of CRLFs is served octet by octet, whatever
    else it holds; in a message of LFs, every LF without a CR gets one.

    Raises:
        OSError: it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, a socket
            return None
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        bare = _bare_lines(fd)
    finally:
        os.close(fd)
    return Inspected(
        status.st_size + bare, int(bare > 0), status.st_size, mtime_of(status), status.st_ino
    )


def mtime_of(status: os.stat_result) -> int:
    """Return when a file was last written, in ns, as the index can hold it."""
    return max(-_LATEST, min(status.st_mtime_ns, _LATEST))


def _bare_lines(fd: int) -> int:
    """Return how many LFs have no CR before them; 0 if the first one has."""
    count, last, piece = 0, b"", os.read(fd, _HEAD)
    first = True
    while piece:
        if first:
            at = piece.find(b"\n")
            if at >= 0:
                if (last + piece)[at + len(last) - 1 : at + len(last)] == b"\r":
                    return 0
                first = False
        count += piece.count(b"\n") - piece.count(b"\r\n")
        if last == b"\r" and piece.startswith(b"\n"):
            count -= 1
        last = piece[-1:]
        piece = os.read(fd, _PIECE)
    return count
