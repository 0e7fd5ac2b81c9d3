"""Reading messages: their octets as they are served, and what never changes about them.

Rules of this file: blocking. A message of LFs is served with CRLFs; offsets and sizes are those of
the served form. A file is never written to. Its inode, size and time are compared with the index's
before anything that was kept about its content is used.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Mapping, Sequence

from fastlisten.mail.mime.sections import with_crlf
from fastlisten.mail.store.files import Inspected, inspect, locate, mtime_of, path_of
from fastlisten.mail.store.folder_state import SLICE
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import FactColumns, Facts, MessageGoneError
from fastlisten.mail.store.known_files import KnownFile
from fastlisten.mail.store.pending import box_of
from fastlisten.mail.store.selection import slices

__all__ = ["OpenMessage", "fact_columns", "facts", "keep_structures", "known_files", "open_message"]

_PIECE = 1 << 16

#: How often a file is looked for that others keep moving.
_TRIES = 8


class OpenMessage:
    """The file of a message.

    Args:
        fd: its descriptor, which `close` closes.
        size: octets of the served form.
        lf: whether its lines end with LF.

    Attributes:
        size: octets of the served form.
        plain: the descriptor, if the served form is the file's; else -1.
    """

    __slots__ = ("_buffer", "_fd", "_last", "_position", "_start", "plain", "size")

    def __init__(self, fd: int, size: int, *, lf: bool) -> None:
        self._fd = fd
        self.size = size
        self.plain = -1 if lf else fd
        self._rewind()

    def _rewind(self) -> None:
        self._buffer = b""  # served octets
        self._start = 0  # the offset of the first of them
        self._position = 0  # in the file, of what comes after them
        self._last = b""  # the octet of the file before that

    def read(self, offset: int, size: int) -> bytes:
        """Return octets of the served form; fewer only at the end.

        Raises:
            OSError: they cannot be read.
        """
        if self.plain >= 0:
            return _pread(self.plain, offset, size)
        if offset < self._start:
            self._rewind()
        while self._start + len(self._buffer) < offset + size:
            piece = os.pread(self._fd, _PIECE, self._position)
            if not piece:
                break
            self._position += len(piece)
            served = with_crlf(self._last + piece)[len(self._last) :]
            self._last = b"\r" if piece.endswith(b"\r") else b""
            skip = min(len(self._buffer), max(0, offset - self._start))
            self._buffer = self._buffer[skip:] + served
            self._start += skip
        at = offset - self._start
        return self._buffer[at : at + size]

    def read_at_once(self, offset: int, size: int) -> bytes | None:
        """Return octets as `read` does, if they are in memory; None if not."""
        if not size:
            return b""
        lf = self.plain < 0
        if lf and self._position:
            return self.read(offset, size) if len(self._buffer) == self.size else None
        if lf and self.size > _PIECE:
            return None
        # Of a message of LFs, the whole file, which has fewer octets.
        buffer = bytearray(self.size if lf else size)
        try:
            got = os.preadv(self._fd, [buffer], 0 if lf else offset, os.RWF_NOWAIT)
        except OSError:
            return None  # not in memory, or a filesystem that cannot say
        if not lf:
            return bytes(buffer) if got == size else None
        served = with_crlf(bytes(memoryview(buffer)[:got]))
        if len(served) != self.size:
            return None
        self._buffer, self._position = served, got
        return served[offset : offset + size]

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            fd, self._fd, self.plain = self._fd, -1, -1
            os.close(fd)


def _pread(fd: int, offset: int, size: int) -> bytes:
    pieces = []
    while size:
        piece = os.pread(fd, size, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return b"".join(pieces)


def open_message(index: Index, folder: int, uid: int) -> tuple[OpenMessage, KnownFile | None]:
    """Open the file of a message, wherever other programs have moved it.

    Returns:
        The file, and what `open_known` takes, if it is where the index says.

    Raises:
        MessageGoneError: there is no such message.
        OSError: it cannot be read.
    """
    for attempt in range(_TRIES):
        rows = index.query(
            "SELECT name, flags, email, date, structure, email.size, eol, octets, mtime, inode"
            " FROM message JOIN email ON email.id = message.email WHERE folder = ? AND uid = ?",
            (folder, uid),
        )
        box = box_of(index, folder)
        if not rows or box is None:
            break
        name, bits, email, date, structure, *known = rows[0]
        path = path_of(box, name, bits)
        if attempt:
            with index.locked():
                pass  # which finishes what a crash has left
            found, certain = locate(box, name, bits)
            if found is None:
                if certain:
                    break
                continue
            path = found.path
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            status = os.fstat(fd)
            it = Inspected(*known)
            now = (status.st_size, mtime_of(status), status.st_ino)
            if now != (it.octets, it.mtime, it.inode):
                it, structure = _corrected(index, email, path) or it, None
        except BaseException:
            os.close(fd)
            raise
        there = None
        if not attempt:
            there = KnownFile(path, it, Facts(uid, it.size, date, f"E{email}", structure))
        return OpenMessage(fd, it.size, lf=bool(it.eol)), there
    raise MessageGoneError(f"Message {uid} has been expunged")


def _corrected(index: Index, email: int, path: str) -> Inspected | None:
    """Take over what a file is like now, and forget what was kept about its content."""
    try:
        it = inspect(path)
    except FileNotFoundError:
        return None
    if it is not None:
        with index.locked(), index.transaction() as db:
            # It may have been expunged meanwhile, or the index made again.
            if not db.execute("SELECT 1 FROM email WHERE id = ?", (email,)).fetchone():
                return it
            db.execute(
                "UPDATE folder SET size = size + (?2 - (SELECT size FROM email WHERE id = ?1))"
                " * (SELECT count(*) FROM message WHERE email = ?1 AND message.folder = folder.id)",
                (email, it.size),
            )
            db.execute(
                "UPDATE email SET size = ?, eol = ?, octets = ?, mtime = ?, inode = ?,"
                " structure = NULL WHERE id = ?",
                (it.size, it.eol, it.octets, it.mtime, it.inode, email),
            )
    return it


def facts(index: Index, folder: int, uids: Sequence[int]) -> list[Facts]:
    """Return what never changes about messages; those that are gone are left out."""
    found: list[Facts] = []
    for piece in slices(uids):
        rows = index.query(
            "SELECT uid, size, date, email, structure"
            " FROM message JOIN email ON email.id = message.email"
            " WHERE folder = ? AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid",
            (folder, json.dumps(list(piece))),
        )
        found += [
            Facts(uid, size, date, f"E{email}", structure)
            for uid, size, date, email, structure in rows
        ]
    return found


def fact_columns(
    index: Index, folder: int, known: FactColumns | None, most: int
) -> FactColumns | None:
    """Return sizes and dates of the messages of a folder; None if there are too many.

    Args:
        index: the account's.
        folder: the folder's id.
        known: what is known; what has come since is read.
        most: how many messages there may be.
    """
    found = FactColumns(array("I"), array("Q"), array("q"))
    if known is not None:
        found = FactColumns(known.uids[:], known.sizes[:], known.dates[:])
    last = found.uids[-1] if found.uids else 0
    while len(found.uids) <= most:
        # A text for each column costs less than objects for each message.
        (texts,) = index.query(
            "SELECT group_concat(uid), group_concat(size), group_concat(date) FROM"
            " (SELECT uid, size, date FROM message JOIN email ON email.id = message.email"
            " WHERE folder = ? AND uid > ? ORDER BY uid LIMIT ?)",
            (folder, last, SLICE),
        )
        if texts[0] is None:
            return found
        columns = found.uids, found.sizes, found.dates
        for column, text in zip(columns, texts, strict=True):
            column.extend(json.loads(f"[{text}]"))
        last = found.uids[-1]
    return None


def known_files(index: Index, folder: int, uids: Sequence[int]) -> list[KnownFile]:
    """Return the same with what is known of the files."""
    box = box_of(index, folder)
    if box is None:
        return []
    found: list[KnownFile] = []
    for piece in slices(uids):
        rows = index.query(
            "SELECT uid, email.size, date, email, structure, name, flags, eol, octets, mtime, inode"
            " FROM message JOIN email ON email.id = message.email"
            " WHERE folder = ? AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid",
            (folder, json.dumps(list(piece))),
        )
        found += [
            KnownFile(
                path_of(box, name, bits),
                Inspected(size, eol, octets, mtime, inode),
                Facts(uid, size, date, f"E{email}", structure),
            )
            for uid, size, date, email, structure, name, bits, eol, octets, mtime, inode in rows
        ]
    return found


def keep_structures(index: Index, folder: int, structures: Mapping[int, bytes]) -> None:
    """Keep the structures of messages with them, by UID."""
    with index.locked(), index.transaction(quiet=True) as db:
        db.executemany(
            "UPDATE email SET structure = ?"
            " WHERE id = (SELECT email FROM message WHERE folder = ? AND uid = ?)",
            [(structure, folder, uid) for uid, structure in structures.items()],
        )
