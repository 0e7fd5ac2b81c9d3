"""What is killed at every system call, with what must be true of the account then.

Rules of this file: scenarios of support/killed_calls.py. Each begins with messages in INBOX and in
new/, tells what it would tell a client, and checks with a second process's eyes: what was told is
so, no message is missing or there twice, no UID has two meanings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

from fastlisten.mail.accounts.quota import Quota
from fastlisten.mail.delivery.delivery_queue import sync_directories
from fastlisten.mail.delivery.mailbox_room import MailboxRoom, QuotaExceededError
from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store import absorb, files, folders, special_folders
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.append import Appending
from fastlisten.mail.store.backup import back_up
from fastlisten.mail.store.backup_forms import DirectorySink, DirectorySource
from fastlisten.mail.store.copying import copy, move
from fastlisten.mail.store.expunge import expunge
from fastlisten.mail.store.files import Listing
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import Flag, FolderNotFoundError, StoreMode
from fastlisten.mail.store.kept_indexes import KeptIndexes
from fastlisten.mail.store.pending import box_of
from fastlisten.mail.store.rebuild import rebuild
from fastlisten.mail.store.restore import restore
from fastlisten.mail.store.special_folders import ROLES
from support.mail_store import (
    check_account,
    deliver,
    inbox,
    index_of,
    rows_of,
    settled_look,
    uids_of,
)

Tell = Callable[[str], None]


def told_of(told: list[str]) -> list[Any]:
    """Return what was told; a kill may have cut nothing, because a line is one write."""
    return [json.loads(line) for line in told]


class Absorb:
    """New messages get UIDs; some were there before."""

    def prepare(self, place: str) -> None:
        with index_of(place) as index:
            deliver(index.maildir, b"one", "1.M1")
            look(index, inbox(index).id)
            for number in (10, 9, 8):
                deliver(index.maildir, b"more", f"1.M{number}")

    def work(self, place: str, tell: Tell) -> None:
        with index_of(place) as index:
            look(index, inbox(index).id)
            tell(json.dumps(uids_of(index, inbox(index).id)))

    def check(self, place: str, told: list[str], finished: bool) -> None:
        expected = {"1.M1": 1, "1.M8": 2, "1.M9": 3, "1.M10": 4}
        for uids in told_of(told):
            assert uids == expected
        assert bool(told) or not finished
        with index_of(place) as index:
            found = uids_of(index, inbox(index).id)
            assert found.items() <= expected.items()
            settle(index)
            assert uids_of(index, inbox(index).id) == expected


class First(Absorb):
    """The index is made, and everything gets UIDs."""

    def prepare(self, place: str) -> None:
        box = Maildir(place)
        for number in (10, 9, 1, 8):
            deliver(box, b"x", f"1.M{number}")


# --- changes of messages --------------------------------------------------------------------------

SEEN, FLAGGED, DELETED = Flag.SEEN, Flag.FLAGGED, Flag.DELETED


def contents_of(index: Index, folder: int) -> dict[int, tuple[bytes, int, str]]:
    """Return content, flags and keywords of all messages, by UID."""
    box = box_of(index, folder)
    assert box is not None
    names = Listing(box).files
    found = {}
    for uid, name, flags, keywords in rows_of(index, folder):
        with open(names[name].path, "rb") as file:
            found[uid] = (file.read(), flags, keywords)
    return found


def settle(index: Index) -> None:
    """Look at all folders, until nothing is open; at once, as nobody else is there."""
    with mock.patch.object(files, "_TICK", 0):
        folders.discover(index)
        for (folder,) in index.query("SELECT id FROM folder"):
            settled_look(index, folder, thorough=True)
    check_account(index)


class Changes:
    """Four messages in INBOX, of which two have flags and a keyword, and one in Work."""

    def prepare(self, place: str) -> None:
        with index_of(place) as index:
            box = inbox(index).id
            for number in (1, 2, 3, 4):
                deliver(index.maildir, b"m%d" % number, f"{number}.a")
            look(index, box)
            store(index, box, [1, 3], StoreMode.ADD, FLAGGED | DELETED, ["Word"])
            work = folders.create(index, "Work").id
            deliver(f"{place}/.Work", b"w1", "1.w")
            look(index, work)

    def work(self, place: str, tell: Tell) -> None:
        with index_of(place) as index:
            self.change(index, inbox(index).id, folders.find(index, "Work").id, tell)

    def change(self, index: Index, box: int, work: int, tell: Tell) -> None:
        raise NotImplementedError

    def check(self, place: str, told: list[str], finished: bool) -> None:
        with index_of(place) as index:
            box, work = inbox(index).id, folders.find(index, "Work").id
            settle(index)
            heard = told_of(told)
            self.judge(contents_of(index, box), contents_of(index, work), heard, finished)

    def judge(self, box: Contents, work: Contents, told: list[Any], finished: bool) -> None:
        raise NotImplementedError


Contents = dict[int, tuple[bytes, int, str]]

BOX: Contents = {
    1: (b"m1", int(FLAGGED | DELETED), "Word"),
    2: (b"m2", 0, ""),
    3: (b"m3", int(FLAGGED | DELETED), "Word"),
    4: (b"m4", 0, ""),
}
WORK: Contents = {1: (b"w1", 0, "")}


class Store(Changes):
    """Flags and keywords are added and taken away; flags that were told stay."""

    def change(self, index: Index, box: int, work: int, tell: Tell) -> None:
        for mode, flags, words in (
            (StoreMode.ADD, SEEN, ["Other"]),
            (StoreMode.REMOVE, FLAGGED, ["word"]),
        ):
            found = store(index, box, [1, 2], mode, flags, words)
            tell(json.dumps([[one.uid, int(one.flags), one.keywords] for one in found.changed]))

    def judge(self, box: Contents, work: Contents, told: list[Any], finished: bool) -> None:
        one = [
            BOX[1][1:],
            (int(SEEN | FLAGGED | DELETED), "Other Word"),
            (int(SEEN | DELETED), "Other"),
        ]
        two = [BOX[2][1:], (int(SEEN), "Other")]
        assert (
            told
            == [
                [[1, one[1][0], ["Other", "Word"]], [2, two[1][0], ["Other"]]],
                [[1, one[2][0], ["Other"]], [2, two[1][0], ["Other"]]][:1],
            ][: len(told)]
        )
        assert (len(told) == 2) or not finished
        assert one.index(box[1][1:]) in (len(told), min(len(told) + 1, 2))
        assert two.index(box[2][1:]) in (min(len(told), 1), 1)
        assert (box[3], box[4], work) == (BOX[3], BOX[4], WORK)
        assert box[1][0] == b"m1"


class Expunge(Changes):
    """Messages go, and none comes back."""

    def change(self, index: Index, box: int, work: int, tell: Tell) -> None:
        tell(json.dumps(expunge(index, box)))

    def judge(self, box: Contents, work: Contents, told: list[Any], finished: bool) -> None:
        left = {uid: BOX[uid] for uid in (2, 4)}
        assert told in ([], [[1, 3]])
        assert told or not finished
        assert box == left if told else box in (BOX, left)
        assert work == WORK


class Append(Changes):
    """Two messages come in, or none."""

    def change(self, index: Index, box: int, work: int, tell: Tell) -> None:
        appending = Appending(index, work)
        appending.begin(SEEN, ["New"], 1_000_000_000)
        appending.add(b"first ")
        appending.add(b"message")
        appending.begin()
        appending.add(b"second")
        tell(json.dumps(list(appending.commit().uids)))

    def judge(self, box: Contents, work: Contents, told: list[Any], finished: bool) -> None:
        new: Contents = {2: (b"first message", int(SEEN), "New"), 3: (b"second", 0, "")}
        assert told in ([], [[2, 3]])
        assert told or not finished
        assert work == {**WORK, **new} if told else work in (WORK, {**WORK, **new})
        assert box == BOX


class Copy(Changes):
    """Three messages are copied, or none."""

    def change(self, index: Index, box: int, work: int, tell: Tell) -> None:
        tell(json.dumps(list(copy(index, box, [1, 2, 4], work).targets)))

    def judge(self, box: Contents, work: Contents, told: list[Any], finished: bool) -> None:
        both = {**WORK, 2: BOX[1], 3: BOX[2], 4: BOX[4]}
        assert told in ([], [[2, 3, 4]])
        assert told or not finished
        assert work == both if told else work in (WORK, both)
        assert box == BOX


class Move(Changes):
    """Messages are in one folder or in the other."""

    def change(self, index: Index, box: int, work: int, tell: Tell) -> None:
        tell(json.dumps(list(move(index, box, [1, 2, 4], work).targets)))

    def judge(self, box: Contents, work: Contents, told: list[Any], finished: bool) -> None:
        moved = ({3: BOX[3]}, {**WORK, 2: BOX[1], 3: BOX[2], 4: BOX[4]})
        assert told in ([], [[2, 3, 4]])
        assert told or not finished
        assert (box, work) == moved if told else (box, work) in (moved, (BOX, WORK))


# --- changes of folders ---------------------------------------------------------------------------


class Create(Changes):
    """A folder is made, with a role."""

    def change(self, index: Index, box: int, work: int, tell: Tell) -> None:
        folders.create(index, "Sent/ä", "Sent")
        tell("true")

    def check(self, place: str, told: list[str], finished: bool) -> None:
        assert told or not finished
        with index_of(place) as index:
            settle(index)
            names = {one.name: one for one in folders.folders(index) if one.exists}
            assert names.keys() - {"Sent/ä"} == {"INBOX", "Work"}
            if told:
                assert (names["Sent/ä"].role, names["Sent/ä"].subscribed) == ("Sent", True)
            if "Sent/ä" not in names:
                folders.create(index, "Sent/ä", "Sent")


class Delete(Changes):
    """A folder is there with all its messages, or not at all."""

    def change(self, index: Index, box: int, work: int, tell: Tell) -> None:
        folders.delete(index, "Work")
        tell("true")

    def check(self, place: str, told: list[str], finished: bool) -> None:
        assert told or not finished
        with index_of(place) as index:
            settle(index)
            assert contents_of(index, inbox(index).id) == BOX
            try:
                found = contents_of(index, folders.find(index, "Work").id)
            except FolderNotFoundError:
                assert not os.path.exists(f"{place}/.Work")
                assert index.query("SELECT count(*) FROM message") == [(4,)]
                folders.create(index, "Work")
            else:
                assert not told
                assert found == WORK


class Rename(Changes):
    """A folder and the one below it have the old names or the new ones."""

    def prepare(self, place: str) -> None:
        super().prepare(place)
        with index_of(place) as index:
            below = folders.create(index, "Work/Deep").id
            deliver(f"{place}/.Work.Deep", b"d1", "1.d")
            look(index, below)

    def change(self, index: Index, box: int, work: int, tell: Tell) -> None:
        folders.rename(index, "Work", "New/Work")
        tell("true")

    def check(self, place: str, told: list[str], finished: bool) -> None:
        assert told or not finished
        with index_of(place) as index:
            settle(index)
            names = {one.name for one in folders.folders(index) if one.exists}
            old, new = {"Work", "Work/Deep"}, {"New/Work", "New/Work/Deep"}
            assert names - {"INBOX"} == new if told else names - {"INBOX"} in (old, new)
            top = min(names - {"INBOX"}, key=len)
            assert contents_of(index, folders.find(index, top).id) == WORK
            deep = folders.find(index, f"{top}/Deep")
            assert contents_of(index, deep.id) == {1: (b"d1", 0, "")}


class Lost(Changes):
    """The index is lost, and made again with what its snapshot knows."""

    def prepare(self, place: str) -> None:
        super().prepare(place)
        os.unlink(f"{place}/index.snapshot")
        with index_of(place):
            pass
        os.unlink(f"{place}/index.db")

    def change(self, index: Index, box: int, work: int, tell: Tell) -> None:
        look(index, box)
        tell(json.dumps(rows_of(index, box)))

    def judge(self, box: Contents, work: Contents, told: list[Any], finished: bool) -> None:
        assert (box, work) == (BOX, WORK)
        assert told or not finished
        for rows in told:
            assert [row[2:] for row in rows] == [list(BOX[uid][1:]) for uid in sorted(BOX)]


# --- first opens ----------------------------------------------------------------------------------

SPECIAL = {role: role for role in ROLES}


class NewAccount:
    """An account gets its folders, all of them."""

    def prepare(self, place: str) -> None:
        deliver(place, b"x", "1.a")

    def work(self, place: str, tell: Tell) -> None:
        with index_of(place) as index:
            special_folders.prepare(index, SPECIAL)
            tell(json.dumps(self.seen(index)))

    def seen(self, index: Index) -> list[list[object]]:
        return [[one.name, one.role, one.subscribed] for one in folders.folders(index)]

    def check(self, place: str, told: list[str], finished: bool) -> None:
        expected = [["INBOX", "", False], *([role, role, True] for role in ROLES)]
        for seen in told_of(told):
            assert seen == sorted(expected)
        assert told or not finished
        with index_of(place) as index:
            special_folders.prepare(index, SPECIAL)
            assert self.seen(index) == sorted(expected)
            settle(index)


class Import:
    """An account of Dovecot's: UIDs, keywords, subscriptions, uses."""

    def prepare(self, place: str) -> None:
        for directory in (place, f"{place}/.Spam"):
            box = Maildir(directory)
            for name in ("1.a", "2.a", "3.a"):
                deliver(box, b"m", name)
                os.rename(f"{box.new}/{name}", f"{box.cur}/{name}:2,Sa")
            with open(f"{directory}/dovecot-uidlist", "w") as file:
                file.write("3 V1500000000 N8 Gabc\n3 :2.a\n4 :1.a\n9 :3.a\n")
            with open(f"{directory}/dovecot-keywords", "w") as file:
                file.write("0 Word\n")
            deliver(box, b"new", "9.a")
        with open(f"{place}/subscriptions", "w") as file:
            file.write("V\t2\n\nINBOX\n")

    def work(self, place: str, tell: Tell) -> None:
        with mock.patch.object(absorb, "LARGEST_SLICE", 2), index_of(place) as index:
            special_folders.prepare(index, SPECIAL)
            for name in ("INBOX", "Spam"):
                box = folders.find(index, name).id
                look(index, box)
                tell(json.dumps(rows_of(index, box)))

    def check(self, place: str, told: list[str], finished: bool) -> None:
        expected = [[3, "2.a", "Word"], [4, "1.a", "Word"], [9, "3.a", "Word"], [10, "9.a", ""]]
        for rows in told_of(told):
            assert [[row[0], row[1], row[3]] for row in rows] == expected
        assert len(told) == 2 or not finished
        with index_of(place) as index:
            special_folders.prepare(index, SPECIAL)
            settle(index)
            seen = [(one.name, one.role, one.subscribed) for one in folders.folders(index)]
            assert seen == [("INBOX", "", True), ("Spam", "Junk", False)]
            for name in ("INBOX", "Spam"):
                box = folders.find(index, name)
                assert box.uidvalidity == 1500000000
                rows = rows_of(index, box.id)
                assert [[row[0], row[1], row[3]] for row in rows] == expected
            assert index.query("SELECT * FROM former_uids") == []
            assert index.query("SELECT * FROM first_open") == []


class Rebuild(Changes):
    """The index is made again: the same mail, in the old index or under other UIDVALIDITYs."""

    def work(self, place: str, tell: Tell) -> None:
        with index_of(place) as index:
            rebuild(index)
            tell(json.dumps([inbox(index).uidvalidity, folders.find(index, "Work").uidvalidity]))

    def prepare(self, place: str) -> None:
        super().prepare(place)
        with index_of(place) as index:
            self.before = [inbox(index).uidvalidity, folders.find(index, "Work").uidvalidity]

    def check(self, place: str, told: list[str], finished: bool) -> None:
        assert told or not finished
        with index_of(place) as index:
            box, work = inbox(index), folders.find(index, "Work")
            settle(index)
            assert (contents_of(index, box.id), contents_of(index, work.id)) == (BOX, WORK)
            now = [box.uidvalidity, work.uidvalidity]
            if told:
                assert told_of(told) == [now]
            if now != self.before:
                assert not set(now) & set(self.before)
                assert min(now) > max(self.before)


class Restore(Changes):
    """A backup is put back: the account is what it was before, or what is in the backup."""

    def prepare(self, place: str) -> None:
        root = f"{place}/mail/alice"
        super().prepare(root)
        with index_of(root) as index:
            os.mkdir(f"{place}/backup")
            fd = os.open(f"{place}/backup", os.O_RDONLY)
            sink = DirectorySink(fd)
            back_up(index, sink)
            sink.close()
            os.close(fd)
            expunge(index, inbox(index).id)
            deliver(index.maildir, b"later", "5.a")
            look(index, inbox(index).id)

    def work(self, place: str, tell: Tell) -> None:
        fd = os.open(f"{place}/backup", os.O_RDONLY)
        restore(f"{place}/mail/alice", DirectorySource(fd), force=True)
        tell("true")

    def check(self, place: str, told: list[str], finished: bool) -> None:
        assert told or not finished
        later: Contents = {2: BOX[2], 4: BOX[4], 5: (b"later", 0, "")}
        root = f"{place}/mail/alice"
        with index_of(root) as index:
            settle(index)
            work = folders.find(index, "Work").id
            found = contents_of(index, inbox(index).id)
            assert found == BOX if told else found in (BOX, later)
            assert contents_of(index, work) == WORK
            deliver(index.maildir, b"new", "6.a")
            settle(index)
            (last,) = contents_of(index, inbox(index).id).keys() - found.keys()
            assert last > 1_000_000 if found == BOX else last == 6
        # Whatever happened, it can be done again, and what there was is not lost.
        fd = os.open(f"{place}/backup", os.O_RDONLY)
        restore(root, DirectorySource(fd), force=True)
        os.close(fd)
        with index_of(root) as index:
            settle(index)
            assert contents_of(index, inbox(index).id) == BOX
        asides = [name for name in os.listdir(f"{place}/mail") if name.startswith(".")]
        assert all(name.startswith(".replaced-") for name in asides)
        texts = set()
        for name in asides:
            for message in Maildir(f"{place}/mail/{name}").messages():
                texts.add(Maildir(f"{place}/mail/{name}").read(message))
        assert {b"later", b"new"} <= texts


# --- delivery -------------------------------------------------------------------------------------


class Deliver:
    """A message takes the last place of a quota, and a second one finds none."""

    def prepare(self, place: str) -> None:
        with index_of(place) as index:
            deliver(index.maildir, b"one", "1.a")
            look(index, inbox(index).id)
            deliver(index.maildir, b"two", "2.a")

    def work(self, place: str, tell: Tell) -> None:
        indexes = KeptIndexes()
        for name in ("3.a", "4.a"):
            tell(json.dumps(self.taken(place, name, indexes)))
        indexes.close()

    def taken(self, place: str, name: str, indexes: KeptIndexes) -> bool:
        """Deliver a message; return whether there was room for it."""
        room = MailboxRoom(indexes, place, Quota(None, 3))
        staged = StagedMessage([Maildir(place)], name, rooms={place: room})
        try:
            staged.write([name.encode()])
            staged.prepare()
            staged.settle(sync_directories(staged.move()))
        except QuotaExceededError:
            return False
        return True

    def check(self, place: str, told: list[str], finished: bool) -> None:
        heard = told_of(told)
        assert heard == [True, False][: len(heard)]
        assert len(heard) == 2 or not finished
        with index_of(place) as index:
            settle(index)
            found = {it[0] for it in contents_of(index, inbox(index).id).values()}
            assert found - {b"3.a"} == {b"one", b"two"}
            assert b"3.a" in found if heard else True
        indexes = KeptIndexes()
        again = [self.taken(place, name, indexes) for name in ("5.a", "6.a")]
        indexes.close()
        assert again == [len(found) < 3, False]
