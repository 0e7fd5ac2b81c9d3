"""File work that committed transactions imply, done once they are committed.

Rules of this file: under the lock. A change is committed together with rows of `pending`, then the
files follow, then the rows are cleared. After a crash in between, whoever takes the lock does the
rest, so each piece of work may be found half done, or done, and must then come to the same end.
Other programs may have moved a file meanwhile: it is looked for, and what its name says about
flags counts. A name with a row here is never absorbed: it would come back with another UID. If cur/
had the time of the last comparison before the work, it is noted to have its time after it, so that
our own changes are no reason to compare.

    REMOVE         name; target: its flags         unlink
    FLAGS          name; target: flags,add,remove  rename within cur/, or from new/
    PUBLISH        name; target: its flags         rename from tmp/ into cur/
    MOVE           name; target: flags,folder,name rename into the other folder
    RENAME_FOLDER  name; target: names of directories
    TRASH_FOLDER   name; target: names of directories; folders.py empties the trash
    PURGE_FOLDER   folder: whose messages go from the index
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import unique_name
from fastlisten.mail.store.files import Found, locate, path_of, rename, rename_into, times_of
from fastlisten.mail.store.index import LARGEST_SLICE, Index, cannot_write
from fastlisten.mail.store.schema import Op

__all__ = ["TRASH", "add", "box_of", "finish"]

logger = logging.getLogger("fastlisten.mail")

#: The directory of folders that were deleted and whose files are still being removed.
TRASH = "index.trash"

#: How often a file is looked for that others keep moving.
_TRIES = 8

#: Something to be changed in the index when the work has been done.
_Settle = Callable[[Index, sqlite3.Connection], None]


@dataclass(slots=True)
class _Done:
    """What has become of a piece of work.

    Attributes:
        clear: it need not be done again.
        settle: changes of the index that follow from what was found.
        error: why it could not be done.
    """

    clear: bool = True
    settle: list[_Settle] = field(default_factory=list)
    error: OSError | None = None


def add(db: sqlite3.Connection, folder: int, name: str, op: int, target: str = "") -> None:
    """Note some work, in the transaction that implies it."""
    db.execute(
        "INSERT INTO pending (folder, name, op, target) VALUES (?, ?, ?, ?)",
        (folder, name, op, target),
    )


def box_of(index: Index, folder: int) -> Maildir | None:
    """Return the Maildir of a folder, None if there is no such folder."""
    rows = index.query("SELECT name FROM folder WHERE id = ?", (folder,))
    if not rows:
        return None
    return Maildir(f"{index.maildir.path}/{rows[0][0]}") if rows[0][0] else index.maildir


def finish(index: Index) -> dict[tuple[int, str], OSError]:
    """Do all the work there is, under the lock.

    Returns:
        Why some of it could not be done, by folder and name.
    """
    errors: dict[tuple[int, str], OSError] = {}
    last = 0
    boxes: dict[int, Maildir | None] = {}
    while True:
        rows = index.query(
            "SELECT id, folder, name, op, target FROM pending WHERE id > ? ORDER BY id LIMIT ?",
            (last, LARGEST_SLICE),
        )
        if not rows:
            return errors
        last = rows[-1][0]
        results = []
        times: dict[int, int] = {}
        for number, folder, name, op, target in rows:
            if op in _FOLDER_WORK:
                done = _FOLDER_WORK[op](index, folder, name, target)
                boxes.clear()
            else:
                if folder not in boxes:
                    boxes[folder] = box_of(index, folder)
                box = boxes[folder]
                for touched in (folder, int(target.split(",")[1])) if op == Op.MOVE else (folder,):
                    if touched not in times and (at := boxes.get(touched, box_of(index, touched))):
                        boxes[touched], times[touched] = at, times_of(at)[1]
                # Without its folder, its files are in the trash.
                done = _MESSAGE_WORK[op](index, folder, box, name, target) if box else _Done()
            if done.error is not None:
                errors[folder, name] = done.error
                logger.warning("%s: %s", index.maildir.path, done.error)
            results.append((number, done))
        if any(done.clear or done.settle for _, done in results):
            try:
                _clear(index, results, times, boxes)
            except sqlite3.Error as error:
                if not cannot_write(error):
                    raise
                # The files have what was committed; whoever has the lock next finds that, and
                # tries again. To say that something went wrong would be wrong.
                logger.warning("%s: pending work cannot be cleared: %s", index.maildir.path, error)


def _clear(
    index: Index,
    results: list[tuple[int, _Done]],
    times: dict[int, int],
    boxes: dict[int, Maildir | None],
) -> None:
    with index.transaction() as db:
        db.executemany(
            "DELETE FROM pending WHERE id = ?",
            [(number,) for number, done in results if done.clear],
        )
        for _, done in results:
            for settle in done.settle:
                settle(index, db)
        for folder, before in times.items():
            if touched_box := boxes.get(folder):
                db.execute(
                    "UPDATE folder SET seen_mtime = ? WHERE id = ? AND abs(seen_mtime) = ?",
                    (times_of(touched_box)[1], folder, before),
                )


# --- messages -------------------------------------------------------------------------------------


def _remove(index: Index, folder: int, box: Maildir, name: str, target: str) -> _Done:
    certain = False
    for _ in range(_TRIES):
        found, certain = locate(box, name, int(target))
        if found is None:
            # If it may have been missed it is looked for the next time: it must not come back.
            return _Done(clear=certain)
        try:
            os.unlink(found.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            return _Done(clear=False, error=error)
        return _Done()
    return _Done(clear=False)


def _flag(index: Index, folder: int, box: Maildir, name: str, target: str) -> _Done:
    bits, more, less = map(int, target.split(","))
    wanted = bits & ~less | more
    found: Found | None = Found(name, bits, path_of(box, name, bits), new=False)
    for _ in range(_TRIES):
        if found is None:
            return _Done()  # it is gone, and whoever compares the directory will notice
        now = found.bits & ~less | more
        try:
            if now != found.bits or found.new:
                rename_into(box, found.path, path_of(box, name, now))
            else:
                os.lstat(found.path)
        except FileNotFoundError:
            found, _ = locate(box, name, wanted)
        except OSError as error:
            return _Done(settle=[_has_flags(folder, name, found.bits)], error=error)
        else:
            return _Done(settle=[_has_flags(folder, name, now)] if now != wanted else [])
    return _Done(clear=False)


def _has_flags(folder: int, name: str, bits: int) -> _Settle:
    def settle(index: Index, db: sqlite3.Connection) -> None:
        db.execute(
            "UPDATE message SET flags = ?1, modseq = ?2"
            " WHERE folder = ?3 AND name = ?4 AND flags != ?1",
            (bits, index.numbers(1), folder, name),
        )

    return settle


def _publish(index: Index, folder: int, box: Maildir, name: str, target: str) -> _Done:
    try:
        rename_into(box, f"{box.tmp}/{name}", path_of(box, name, int(target)))
    except FileNotFoundError:
        return _Done()  # it has been done, or tmp/ has been cleaned
    except OSError as error:
        return _Done(clear=False, error=error)
    return _Done()


def _move(index: Index, folder: int, box: Maildir, name: str, target: str) -> _Done:
    text, place, new_name = target.split(",", 2)
    bits, other = int(text), int(place)
    there = box_of(index, other)
    if there is None:
        # The folder was deleted before this could be done, and the message with it.
        return _remove(index, folder, box, name, text)
    settle: list[_Settle] = []
    found: Found | None = Found(name, bits, path_of(box, name, bits), new=False)
    for _ in range(_TRIES):
        if found is None:
            return _Done(clear=False)
        try:
            rename_into(there, found.path, path_of(there, new_name, found.bits))
        except FileExistsError:
            # Somebody else's file has this name.
            settle.append(_has_name(other, new_name, fresh := unique_name()))
            new_name = fresh
        except FileNotFoundError:
            found, certain = locate(box, name, bits)
            if found is None and (certain or locate(there, new_name, bits)[0] is not None):
                return _Done(settle=settle)
        except OSError as error:
            return _Done(clear=False, error=error)
        else:
            if found.bits != bits:
                settle.append(_has_flags(other, new_name, found.bits))
            return _Done(settle=settle)
    return _Done(clear=False)


def _has_name(folder: int, name: str, new_name: str) -> _Settle:
    def settle(_: Index, db: sqlite3.Connection) -> None:
        db.execute(
            "UPDATE message SET name = ? WHERE folder = ? AND name = ?", (new_name, folder, name)
        )

    return settle


# --- folders --------------------------------------------------------------------------------------


def _rename_folder(index: Index, folder: int, name: str, target: str) -> _Done:
    root = index.maildir.path
    try:
        rename(f"{root}/{name}", f"{root}/{target}")
    except FileNotFoundError:
        return _Done()  # it has been done, or somebody has removed the folder
    except OSError as error:

        def back(_: Index, db: sqlite3.Connection) -> None:
            db.execute("UPDATE OR IGNORE folder SET name = ? WHERE id = ?", (name, folder))

        return _Done(settle=[back], error=error)
    return _Done()


def _trash_folder(index: Index, folder: int, name: str, target: str) -> _Done:
    root = index.maildir.path
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{root}/{TRASH}", 0o700)
        os.rename(f"{root}/{name}", f"{root}/{TRASH}/{target}")
    except FileNotFoundError:
        return _Done()
    except OSError as error:
        return _Done(clear=False, error=error)
    return _Done()


def _purge_folder(index: Index, folder: int, name: str, target: str) -> _Done:
    with index.transaction() as db:
        index.numbers(1)
        gone = db.execute(
            "DELETE FROM message WHERE folder = ?1 AND uid IN"
            " (SELECT uid FROM message WHERE folder = ?1 LIMIT ?2)",
            (folder, LARGEST_SLICE),
        ).rowcount
    return _Done(clear=gone < LARGEST_SLICE)


_MESSAGE_WORK = {
    Op.REMOVE: _remove,
    Op.FLAGS: _flag,
    Op.PUBLISH: _publish,
    Op.MOVE: _move,
}
_FOLDER_WORK = {
    Op.RENAME_FOLDER: _rename_folder,
    Op.TRASH_FOLDER: _trash_folder,
    Op.PURGE_FOLDER: _purge_folder,
}
