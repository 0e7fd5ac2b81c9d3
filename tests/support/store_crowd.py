"""Four processes change one account at random and are killed at random; then everything is checked.

Rules of this file: it runs in a process of its own (`python -m support.store_crowd DIRECTORY SEED
LIVES FOREIGN`). A worker's life ends by a timer that it sets itself, wherever it is then. Each
writes down what it is about to do, what it was told, and which UIDs it saw; only the last line of a
life may be cut. Every message has content of its own:

    INBOX, Work    messages come, move and go: each content is there at most once
    Copies         only copies, which stay

With FOREIGN, another program, which knows of no lock, takes messages over, sets and removes flags,
and adds and removes messages of its own, as mutt does.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store import folders
from fastlisten.mail.store.absorb import look
from fastlisten.mail.store.append import Appending
from fastlisten.mail.store.copying import copy, move
from fastlisten.mail.store.expunge import expunge
from fastlisten.mail.store.files import Listing
from fastlisten.mail.store.flags import store
from fastlisten.mail.store.index import Index
from fastlisten.mail.store.interface import NO_FLAGS, Flag, StoreMode
from fastlisten.mail.store.pending import finish
from support.mail_store import check_account, deliver, index_of, settled_look

__all__ = ["run_crowd"]

WORKERS = 4

#: The longest life of a worker, in seconds: some tens of changes.
_LONGEST = 0.3

_NAMES = ("INBOX", "Work", "Copies")

Say = Callable[..., None]


def run_crowd(place: Path, seed: int, lives: int, *, foreign: bool = False) -> str:
    """Run the crowd, in another process; return what it did.

    Args:
        place: an empty directory.
        seed: of the random numbers.
        lives: how often each worker is started.
        foreign: another program works there too.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "support.store_crowd", str(place), str(seed), str(lives)),
            str(int(foreign)),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


# --- a worker -------------------------------------------------------------------------------------


def _work(root: str, name: str, chance: random.Random, say: Say) -> None:
    """Change the account until the timer ends this process."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0, _LONGEST))
    index = Index(root, finish)
    ids = {one: folders.find(index, one).id for one in _NAMES}
    for number in itertools.count():
        box = ids[chance.choice(_NAMES[:2])]
        other = ids["Work"] if box == ids["INBOX"] else ids["INBOX"]
        uids = [uid for (uid,) in index.query("SELECT uid FROM message WHERE folder = ?", (box,))]
        some = sorted(chance.sample(uids, min(len(uids), chance.randrange(1, 4))))
        kind = chance.choice(_KINDS)
        content = f"{name}.{number}"
        if kind == "deliver":
            say("delivering", content)
            deliver(index.maildir, content.encode())
            say("delivered", content)
        elif kind == "look":
            look(index, box, thorough=chance.random() < 0.3)
            see(index, box, say)
        elif kind == "append":
            contents = [f"{content}.{part}" for part in range(chance.randrange(1, 4))]
            say("appending", contents)
            appending = Appending(index, box)
            for text in contents:
                appending.begin(NO_FLAGS, ["Appended"])
                appending.add(text.encode())
            say("appended", box, list(appending.commit().uids), contents)
        elif kind == "flag" and some:
            done = store(index, box, some, StoreMode.ADD, Flag.FLAGGED, [name.partition("-")[0]])
            say("flagged", box, [one.uid for one in done.changed], name.partition("-")[0])
        elif kind == "delete" and some:
            emails = _emails(index, box, some)
            say("deleting", emails)
            store(index, box, some, StoreMode.ADD, Flag.DELETED)
            gone = expunge(index, box, some)
            say("deleted", box, gone)
        elif kind == "move" and some:
            say("moved", box, other, *map(list, _pair(move(index, box, some, other))))
        elif kind == "copy" and some:
            say("copied", ids["Copies"], list(copy(index, box, some, ids["Copies"]).targets))
            see(index, ids["Copies"], say)


_KINDS = ("deliver", "deliver", "look", "look", "append", "flag", "flag", "move", "copy", "delete")


def _pair(copied: Any) -> tuple[list[int], list[int]]:
    return copied.sources, copied.targets


def _emails(index: Index, folder: int, uids: list[int]) -> list[int]:
    rows = index.query(
        "SELECT email FROM message WHERE folder = ? AND uid IN (SELECT value FROM json_each(?))",
        (folder, json.dumps(uids)),
    )
    return [email for (email,) in rows]


def see(index: Index, folder: int, say: Say) -> None:
    """Write down which UIDs a folder has, and what comes next."""
    with index.locked():  # so that both are of the same moment
        rows = index.query("SELECT uid, email FROM message WHERE folder = ?", (folder,))
        ((uidnext,),) = index.query("SELECT uidnext FROM folder WHERE id = ?", (folder,))
        ((now,),) = index.query("SELECT counter FROM state")
    say("seen", folder, now, uidnext, dict(rows))


def _interfere(root: str, chance: random.Random) -> None:
    """Do what mutt does, until killed: without a lock, by names of files alone."""
    mine: list[str] = []
    for number in itertools.count():
        box = Maildir(chance.choice([root, f"{root}/.Work"]))
        messages = box.messages()
        if chance.random() < 0.2:
            mine.append(deliver(box, f"foreign.{number}".encode()))
        if len(mine) > 5:
            with contextlib.suppress(FileNotFoundError):
                box.remove(mine.pop(0))
        for message in chance.sample(messages, min(len(messages), 3)):
            flags = "".join(sorted(set(message.flags) ^ {chance.choice("SRP")}))
            # Only what it has seen: if somebody else was faster, the flags are others.
            with contextlib.suppress(FileNotFoundError):
                os.rename(message.path, f"{box.cur}/{message.name}:2,{flags}")


# --- the judge ------------------------------------------------------------------------------------


def _judge(root: str, told: list[list[Any]]) -> str:
    kinds: dict[str, list[list[Any]]] = {}
    for kind, *rest in told:
        kinds.setdefault(kind, []).append(rest)
    with index_of(root) as index:
        for name in _NAMES:
            settled_look(index, folders.find(index, name).id, thorough=True)
        check_account(index)
        ids = {name: folders.find(index, name).id for name in _NAMES}
        _judge_uids(index, kinds.get("seen", []))
        contents: dict[str, list[tuple[int, int, int, str]]] = {}
        by_uid: dict[tuple[int, int], tuple[int, str, str]] = {}
        emails = set()
        for name in _NAMES:
            box = Maildir(root if name == "INBOX" else f"{root}/.{name}")
            files = Listing(box).files
            for uid, file, flags, keywords, email in index.query(
                "SELECT uid, name, flags, keywords, email FROM message WHERE folder = ?",
                (ids[name],),
            ):
                text = Path(files[file].path).read_text()
                by_uid[ids[name], uid] = (flags, keywords, text)
                if name != "Copies":
                    emails.add(email)
                    contents.setdefault(text, []).append((ids[name], uid, flags, keywords))
    twice = {text for text, places in contents.items() if len(places) > 1}
    assert not twice, twice
    # Whatever was acknowledged is there, unless somebody was about to delete it.
    doomed = {email for (those,) in kinds.get("deleting", []) for email in those}
    known = {text for text, *_ in kinds.get("delivered", [])}
    known |= {text for _, _, those in kinds.get("appended", []) for text in those}
    missing = known - contents.keys()
    assert len(missing) <= len(doomed - emails), missing
    begun = {text for text, *_ in kinds.get("delivering", [])}
    begun |= {text for (those,) in kinds.get("appending", []) for text in those}
    assert {text for text in contents if not text.startswith("foreign")} <= begun
    # All or none of what was appended together.
    for (those,) in kinds.get("appending", []):
        if those[0] not in known and not doomed:
            assert len({text in contents for text in those}) == 1
    for folder, uids in kinds.get("deleted", []):
        assert not any((folder, uid) in by_uid for uid in uids)
    for folder, uids in kinds.get("copied", []):
        assert all((folder, uid) in by_uid for uid in uids)
    for folder, uids, keyword in kinds.get("flagged", []):
        for uid in uids:
            flags, keywords, _ = by_uid.get((folder, uid), (Flag.FLAGGED, keyword, ""))
            assert flags & Flag.FLAGGED
            assert keyword in keywords.split()
    for folder, uids, those in kinds.get("appended", []):
        for uid, text in zip(uids, those, strict=True):
            assert by_uid.get((folder, uid), (0, "", text))[2] == text
    counts = {kind: len(those) for kind, those in sorted(kinds.items())}
    return f"{counts} left: {len(by_uid)}"


def _judge_uids(index: Index, seen: list[list[Any]]) -> None:
    """A UID means one message for ever, and new ones are above those that were next before."""
    meaning: dict[tuple[int, int], int] = {}
    for folder, _, uidnext, uids in seen:
        for uid, email in uids.items():
            assert int(uid) < uidnext
            assert meaning.setdefault((folder, int(uid)), email) == email
    last: dict[int, tuple[int, set[int]]] = {}
    for folder, _, uidnext, uids in sorted(seen, key=lambda one: (one[1], one[2])):
        now = {int(uid) for uid in uids}
        before, known = last.get(folder, (0, set()))
        assert uidnext >= before
        assert all(uid >= before for uid in now - known), (folder, before, now - known)
        last[folder] = (uidnext, now | known)


def main(place: str, seed: str, lives: str, foreign: str) -> None:
    """Run the crowd and judge."""
    root = f"{place}/account"
    with index_of(root) as index:
        folders.create(index, "Work")
        folders.create(index, "Copies")
    logs = Path(place, "logs")
    logs.mkdir()

    def saying(name: str) -> Say:
        log = open(logs / name, "ab", buffering=0)  # noqa: SIM115

        def say(*what: Any) -> None:
            log.write(json.dumps(what).encode() + b"\n")

        return say

    def start(worker: int, life: int) -> int:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                chance = random.Random(f"{seed} {worker} {life}")
                _work(root, f"w{worker}-{life}", chance, saying(f"{worker}.{life}"))
                status = 0
            finally:
                os._exit(status)
        return pid

    stranger = 0
    if foreign == "1":
        stranger = os.fork()
        if stranger == 0:
            try:
                _interfere(root, random.Random(seed))
            finally:
                os._exit(1)
    running = {start(worker, 0): (worker, 0) for worker in range(WORKERS)}
    while running:
        pid, status = os.wait()
        assert pid != stranger, "the other program failed"
        worker, life = running.pop(pid)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGALRM, (worker, life)
        if life + 1 < int(lives):
            running[start(worker, life + 1)] = (worker, life + 1)
    if stranger:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)
    lines = [line for log in logs.iterdir() for line in log.read_bytes().split(b"\n")[:-1]]
    told = [json.loads(line) for line in lines]
    print(_judge(root, told))


if __name__ == "__main__":
    main(*sys.argv[1:])
