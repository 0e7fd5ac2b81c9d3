"""Taking over what is in the directories of a folder: what was delivered, what others have done.

Rules of this file: blocking; it takes the lock, for `LARGEST_SLICE` messages at a time. `look` does
all of it. What it finds in new/ gets UIDs in the order of the numbers in the names, is inserted,
committed, and then renamed into cur/. A file in new/ that the index knows is one whose rename a
crash has prevented.

Other programs (Dovecot, mutt, mbsync, a restored backup) add, rename and remove files in cur/. A
message that they removed is gone if two settled listings (files.py) lack it. A listing is used for
several slices, so each of its names is looked at again under the lock.

Whether to list cur/ at all is decided by its time, which is noted after a look and after our own
changes (pending.py). It need not change twice within a tick of the kernel, so that a `thorough`
look, now and then, is needed all the same.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.maildir.spool import unique_name
from fastlisten.mail.store.arrivals import Arrivals
from fastlisten.mail.store.files import (
    INFO_ROOM,
    Files,
    Found,
    Listing,
    bits_in,
    in_new,
    inspect,
    names_in_new,
    path_of,
    rename,
    rename_into,
    times_of,
)
from fastlisten.mail.store.first_open import Messages, messages_of
from fastlisten.mail.store.index import LARGEST_SLICE, Index
from fastlisten.mail.store.letters import letters_of
from fastlisten.mail.store.pending import box_of
from fastlisten.mail.store.rows import NewMessage, insert_messages
from fastlisten.mail.store.schema import Op

__all__ = ["Looked", "look"]

logger = logging.getLogger("fastlisten.mail")

#: NAME_MAX of every filesystem that matters, in octets.
_NAME_MAX = 255

_Item = TypeVar("_Item")


@dataclass(slots=True)
class Looked:
    """What a look has found.

    Attributes:
        arrived: messages that are new in the index.
        changed: messages whose flags have changed.
        gone: messages that have been removed.
        moved: files that were moved from new/ into cur/.
        again: something may be missing, but a directory has changed too recently to tell.
    """

    arrived: int = 0
    changed: int = 0
    gone: int = 0
    moved: int = 0
    again: bool = False


def look(
    index: Index,
    folder: int,
    *,
    thorough: bool = False,
    first: bool = False,
    only_new: bool = False,
) -> Looked:
    """Bring the index up to date with a folder's directories.

    Args:
        index: the account's.
        folder: the folder's id; nothing is found in one that does not exist.
        thorough: compare cur/ even if it has not changed as far as its time says.
        first: compare it unless its time proves that it has not changed.
        only_new: do not compare cur/, even if it has changed.

    Raises:
        OSError: they cannot be read.
        sqlite3.Error: the index cannot be written.
    """
    looked = Looked()
    with index.locked():
        box = box_of(index, folder)
        if box is None or index.read_only:
            return looked
        ((seen,),) = index.query("SELECT seen_mtime FROM folder WHERE id = ?", (folder,))
        former = index.query("SELECT uidnext FROM former_uids WHERE folder = ?", (folder,))
        changed = not only_new and times_of(box)[1] != abs(seen)
        if thorough or former or changed or (first and seen >= 0):
            difference = _compare(index, folder, box)
            if difference.same:
                # Before anything is moved into cur/, which then is no reason to compare again.
                _note_time(index, folder, difference.time)
                difference.time = 0
        else:
            files_in_new = Files(box)
            difference = _Difference(Arrivals(files_in_new.found))
            for name, place in names_in_new(box):
                difference.arrived.add(name, place)
        arrived = difference.arrived.slices(LARGEST_SLICE)
        if not former:
            _absorb(index, folder, box, next(arrived, []), looked)
    if former:
        everything = [found for files in arrived for found in files]
        _import(index, folder, box, former[0][0], everything, looked)
    for files in arrived:
        with index.locked():
            _absorb(index, folder, box, files, looked)
    for flagged in _slices(difference.flagged):
        with index.locked():
            looked.changed += _take_flags(index, folder, flagged)
    second = None
    for names in _slices(difference.missing):
        with index.locked():
            if second is None or second.times != times_of(box):
                second = Listing(box)
            if not second.settled:
                difference.uncertain = True
                break
            gone = [name for name in names if name not in second.files]
            looked.gone += _take_removals(index, folder, gone)
    for pairs in _slices(difference.doubles):
        with index.locked():
            _separate(index, folder, box, pairs)
    looked.again = difference.uncertain or bool(difference.doubles)
    if difference.time and not looked.again:
        # If something was moved into cur/ its time is another one now, and the next look compares.
        with index.locked():
            _note_time(index, folder, difference.time)
    return looked


def _note_time(index: Index, folder: int, time: int) -> None:
    """Note the time of cur/ at which it was compared and settled, under the lock."""
    with index.transaction(quiet=True) as db:
        db.execute("UPDATE folder SET seen_mtime = ? WHERE id = ?", (-time, folder))


@dataclass(slots=True)
class _Difference:
    """How directories and index differ.

    Attributes:
        arrived: files in new/, and those in cur/ that the index does not know.
        flagged: files in cur/ with other flags than in the index.
        missing: names that the index has, and a settled listing has not.
        doubles: files of the same name.
        uncertain: some may be missing.
        time: of cur/, in ns, if it is certain to change with the next change of the directory.
        same: the index has all that is in cur/, at that time.
    """

    arrived: Arrivals
    flagged: list[Found] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    doubles: list[tuple[Found, Found]] = field(default_factory=list)
    uncertain: bool = False
    time: int = 0
    same: bool = False


def _compare(index: Index, folder: int, box: Maildir) -> _Difference:
    """List the directories and compare them with the index, under the lock."""
    listing = Listing(box)
    files = listing.files
    difference = _Difference(Arrivals(files.found), doubles=listing.doubles)
    missing = []
    same = True
    # What is left of the files afterwards has arrived.
    for rows in index.pieces("SELECT name, flags FROM message WHERE folder = ?", (folder,)):
        places = files.take_all([name for name, _ in rows])
        for (name, flags), place in zip(rows, places, strict=True):
            if place == f"/{name}:2,{letters_of(flags)}":  # as nearly all are
                continue
            if place is None:
                missing.append(name)
            elif in_new(place):
                difference.arrived.add(name, place)
            elif bits_in(place) != flags:
                difference.flagged.append(files.found(name, place))
    while (one := files.take_any()) is not None:
        difference.arrived.add(*one)
        same = same and in_new(one[1])
    if missing:
        # What could not be published or moved, for lack of space maybe, is not where it should be.
        stuck = index.query(
            "SELECT 1 FROM pending WHERE op IN (?, ?) LIMIT 1", (Op.PUBLISH, Op.MOVE)
        )
        if listing.settled and not stuck:
            difference.missing = missing
        else:
            difference.uncertain = True
    if listing.settled:
        difference.time = listing.times[1]
    if listing.cur_settled and same and not (missing or difference.flagged or difference.doubles):
        difference.time, difference.same = listing.times[1], True
    return difference


def _slices(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), LARGEST_SLICE):
        yield items[start : start + LARGEST_SLICE]


def _import(
    index: Index,
    folder: int,
    box: Maildir,
    uidnext: int,
    files: Sequence[Found],
    looked: Looked,
) -> None:
    """Insert messages with what another server knew about them."""
    messages = messages_of(box.path, uidnext, files)
    uids = messages.uids
    # The sort is stable: messages without a UID come after the others, in their own order.
    ordered = sorted(files, key=lambda found: uids.get(found.name, uidnext))
    expected = _count_below(index, folder, uidnext) + len(uids)
    for some in _slices(ordered):
        with index.locked():
            _absorb(index, folder, box, some, looked, messages)
    # If one was moved meanwhile, the next look finds it.
    if _count_below(index, folder, uidnext) >= expected:
        with index.locked(), index.transaction() as db:
            db.execute("DELETE FROM former_uids WHERE folder = ?", (folder,))


def _count_below(index: Index, folder: int, uid: int) -> int:
    ((count,),) = index.query(
        "SELECT count(*) FROM message WHERE folder = ? AND uid < ?", (folder, uid)
    )
    return int(count)


# --- under the lock, some messages at a time ------------------------------------------------------


def _absorb(
    index: Index,
    folder: int,
    box: Maildir,
    files: Sequence[Found],
    looked: Looked,
    former: Messages | None = None,
) -> None:
    """Insert messages, then move those in new/ into cur/."""
    fresh: list[NewMessage] = []
    move: list[tuple[Found, int]] = []
    names = json.dumps([found.name for found in files if _storable(found.name)])
    among = "folder = ? AND name IN (SELECT value FROM json_each(?))"
    # By itself, SQLite would go through all messages of the folder.
    known = dict(
        index.query(
            f"SELECT name, flags FROM message INDEXED BY message_name WHERE {among}",  # noqa: S608
            (folder, names),
        )
    )
    pending = dict(index.query(f"SELECT name, op FROM pending WHERE {among}", (folder, names)))  # noqa: S608
    expected = dict(
        index.query(
            "SELECT name, keywords FROM arrival WHERE name IN (SELECT value FROM json_each(?))",
            (names,),
        )
    )
    taken = _taken_uids(index, folder, former, files)
    for file in files:
        found = file
        if found.name in known:
            if found.new:
                move.append((found, known[found.name]))
            continue
        if found.name in pending:
            continue
        try:
            if not _storable(found.name):
                found = _renamed(box, found)
            inspected = inspect(found.path)
        except FileNotFoundError:
            continue  # somebody has moved it, so that the next look finds it elsewhere
        except OSError as error:
            logger.warning("cannot read %s: %s", found.path, error.strerror)
            continue
        if inspected is not None:
            words = expected.get(found.name, "")
            uid = 0
            if former is not None:
                words = f"{words} {former.keywords_of(found)}"
                uid = former.uids.get(file.name, 0)
            uid = 0 if uid in taken else uid
            taken.add(uid)
            fresh.append(NewMessage(found.name, found.bits, inspected, words, uid=uid))
            if found.new:
                move.append((found, found.bits))
    if fresh:
        sync = index.exhausts_sync(folder, len(fresh))
        with index.transaction(sync=sync) as db:
            insert_messages(index, db, folder, fresh, synced=sync)
            if expected:
                db.executemany(
                    "DELETE FROM arrival WHERE name = ?", [(message.name,) for message in fresh]
                )
    if move:
        before = times_of(box)[1]
        for found, bits in move:
            looked.moved += _take_over(box, found, bits)
        with index.transaction(quiet=True) as db:
            db.execute(
                "UPDATE folder SET seen_mtime = ? WHERE id = ? AND abs(seen_mtime) = ?",
                (times_of(box)[1], folder, before),
            )
    looked.arrived += len(fresh)


def _taken_uids(
    index: Index, folder: int, former: Messages | None, files: Sequence[Found]
) -> set[int]:
    """Return which UIDs of another server other messages have: its list may be wrong."""
    if former is None:
        return set()
    uids = json.dumps([former.uids[found.name] for found in files if found.name in former.uids])
    return {
        uid
        for (uid,) in index.query(
            "SELECT uid FROM message WHERE folder = ? AND uid IN (SELECT value FROM json_each(?))",
            (folder, uids),
        )
    }


def _flags_in_index(index: Index, folder: int, name: str) -> int | None:
    """Return the flags of a message that the index has; None if it has no such name."""
    if not _storable(name):
        return None
    rows = index.query("SELECT flags FROM message WHERE folder = ? AND name = ?", (folder, name))
    return int(rows[0][0]) if rows else None


def _storable(name: str) -> bool:
    """Return whether a name can be kept: it is UTF-8, and has room for flags."""
    try:
        return len(name.encode()) + INFO_ROOM <= _NAME_MAX
    except UnicodeEncodeError:
        return False


def _renamed(box: Maildir, found: Found) -> Found:
    """Give a file another name."""
    name = unique_name()
    path = f"{box.new}/{name}" if found.new else path_of(box, name, found.bits)
    rename(found.path, path)
    return Found(name, found.bits, path, found.new)


def _take_over(box: Maildir, found: Found, bits: int) -> bool:
    """Move a file from new/ to cur/; return whether it has been moved."""
    try:
        rename_into(box, found.path, path_of(box, found.name, bits))
        return True
    except FileNotFoundError:
        pass  # another program was faster
    except FileExistsError:
        logger.info("%s: its name is in use; the next comparison renames it", found.path)
    except OSError as error:
        # It is read where it is, and the next look tries again.
        level = logging.WARNING if error.errno != errno.EROFS else logging.DEBUG
        logger.log(level, "cannot move %s into cur/: %s", found.path, error.strerror)
    return False


def _take_flags(index: Index, folder: int, files: Sequence[Found]) -> int:
    """Take over the flags that others have given to files."""
    there = [found for found in files if os.path.lexists(found.path)]
    changed = 0
    if there:
        with index.transaction() as db:
            number = index.numbers(1)
            for found in there:
                changed += db.execute(
                    "UPDATE message SET flags = ?1, modseq = ?2"
                    " WHERE folder = ?3 AND name = ?4 AND flags != ?1",
                    (found.bits, number, folder, found.name),
                ).rowcount
    return changed


def _take_removals(index: Index, folder: int, names: Sequence[str]) -> int:
    """Remove messages from the index whose files others have removed."""
    with index.transaction() as db:
        index.numbers(1)
        return db.executemany(
            "DELETE FROM message WHERE folder = ? AND name = ?",
            [(folder, name) for name in names],
        ).rowcount


def _separate(
    index: Index, folder: int, box: Maildir, pairs: Sequence[tuple[Found, Found]]
) -> None:
    """Leave one file to a name: links of the same one are removed, others get another name."""
    for one, other in pairs:
        flags = _flags_in_index(index, folder, one.name)
        spare = one if not other.new and flags == other.bits else other
        try:
            if os.path.samestat(os.lstat(one.path), os.lstat(other.path)):
                os.unlink(spare.path)
            else:
                _renamed(box, spare)
        except FileNotFoundError:
            pass  # it was one file, which was moved while the directory was read
        except OSError as error:
            logger.warning("cannot rename %s: %s", spare.path, error.strerror)
