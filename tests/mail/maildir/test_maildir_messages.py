"""Messages and folders of maildirs: also seen by other software, and by several processes."""

from __future__ import annotations

import collections
import mailbox
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.deliveries import commit
from support.kernel import open_below

from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.maildir.folder_names import FolderNameError, directory_of, folder_of
from fastlisten.mail.maildir.maildir import Maildir, unique_name

#: Octets that text processing would change.
ODD = b"Subject: x\r\n\r\n.\r\n..\nbare\rFrom \x00\xff\xfe\r\n\x1a no end of line"


@pytest.fixture
def box(tmp_path: Path) -> Maildir:
    maildir = Maildir(str(tmp_path / "box"))
    maildir.prepare()
    return maildir


def deliver(box: Maildir, content: bytes = b"x") -> str:
    name = unique_name()
    staged = StagedMessage([box], name)
    staged.write([content])
    commit(staged)
    return name


def standard(box: Maildir) -> mailbox.Maildir:
    return mailbox.Maildir(box.path, create=False)


# --- messages -------------------------------------------------------------------------------------


def test_messages_are_stored_unchanged(box: Maildir) -> None:
    name = deliver(box, ODD)
    (message,) = box.messages()
    assert (message.name, message.flags, message.new) == (name, "", True)
    assert box.read(message) == box.read(name) == ODD
    kept = box.keep(message, "S")
    assert box.read(message) == box.read(kept) == box.read(name) == ODD
    assert standard(box).get_bytes(name) == ODD


def test_flags(box: Maildir) -> None:
    name = deliver(box)
    message = box.keep(name)
    assert (message.flags, message.new) == ("", False)
    assert message.path == f"{box.cur}/{name}:2,"
    assert box.keep(message, "TSFSa").flags == "FSTa"
    assert box.keep(message).flags == "FSTa"  # its current flags, not those of the object
    assert [it.flags for it in box.messages()] == ["FSTa"]
    assert box.keep(name, "").flags == ""
    for wrong in ("1", " ", "ä", "S,", "/"):
        with pytest.raises(ValueError, match="are not flags"):
            box.keep(message, wrong)


def test_messages_are_listed_in_order_of_arrival(box: Maildir) -> None:
    names = [deliver(box) for _ in range(12)]
    for name in names[::3]:
        box.keep(name, "S")
    assert {message.name for message in box.messages()} == set(names)
    for number, name in enumerate(["9.x", "10.x", "2000000000.x", "foreign"]):
        (Path(box.new) / name).write_bytes(b"%d" % number)
    found = [message.name for message in box.messages()]
    assert [found[0], found[1], found[2], found[-1]] == ["foreign", "9.x", "10.x", "2000000000.x"]


def test_files_of_other_software(box: Maildir) -> None:
    for name in ("1.a:1,x", "2.b", "3.c:2,S", "4.d,S=12:2,RS", ".hidden"):
        (Path(box.cur) / name).write_bytes(name.encode())
    (Path(box.new) / ".hidden").write_bytes(b"x")
    assert [(it.name, it.flags) for it in box.messages()] == [
        ("1.a", ""),
        ("2.b", ""),
        ("3.c", "S"),
        ("4.d,S=12", "RS"),
    ]
    assert box.read("1.a") == b"1.a:1,x"
    assert box.keep("2.b", "F").path.endswith("/2.b:2,F")


@pytest.mark.parametrize("name", ["", "none", "../x", ".hidden", "new/x"])
def test_missing_message(box: Maildir, name: str) -> None:
    (Path(box.path).parent / "x").write_bytes(b"x")
    (Path(box.new) / ".hidden").write_bytes(b"x")
    for action in (box.read, box.keep, box.remove):
        with pytest.raises(FileNotFoundError):
            action(name)


def test_missing_maildir_is_empty(tmp_path: Path) -> None:
    box = Maildir(str(tmp_path / "none"))
    assert box.messages() == []
    assert box.folders() == []
    with pytest.raises(FileNotFoundError):
        box.read("x")
    assert list(tmp_path.iterdir()) == []


def test_stale_message_object_follows_the_file(box: Maildir) -> None:
    name = deliver(box, ODD)
    (stale,) = box.messages()
    box.keep(name, "S")
    assert box.keep(stale, "F").flags == "F"
    assert box.read(stale) == ODD
    box.remove(stale)
    assert box.messages() == []
    for action in (box.read, box.keep, box.remove):
        with pytest.raises(FileNotFoundError):
            action(stale)


def test_no_file_stays_open(box: Maildir) -> None:
    before = open_below(Path(box.path))
    for name in [deliver(box, ODD) for _ in range(3)]:
        box.keep(name, "S")
        box.read(name)
        box.remove(name)
    box.create_folder("Work")
    box.folders()
    assert open_below(Path(box.path)) == before


# --- the standard library's view ------------------------------------------------------------------


def test_mailbox_module_reads_our_maildir(box: Maildir) -> None:
    names = [deliver(box, ODD + b"%d" % number) for number in range(4)]
    box.keep(names[1], "RS")
    box.keep(names[2])
    theirs = standard(box)
    assert set(theirs.keys()) == set(names)
    for number, name in enumerate(names):
        assert theirs.get_bytes(name) == ODD + b"%d" % number
    assert [theirs[name].get_subdir() for name in names] == ["new", "cur", "cur", "new"]
    assert theirs[names[1]].get_flags() == "RS"
    folder = box.create_folder("Work/2024")
    inside = deliver(folder, ODD)
    assert standard(box).list_folders() == ["Work.2024"]
    assert theirs.get_folder("Work.2024").get_bytes(inside) == ODD


def test_maildir_written_by_mailbox_module(box: Maildir) -> None:
    theirs = standard(box)
    first = theirs.add(b"From: a\n\nfirst\n")
    message = mailbox.MaildirMessage(b"From: a\n\nsecond\n")
    message.set_subdir("cur")
    message.set_flags("FS")
    second = theirs.add(message)
    folder = theirs.add_folder("Archive.Old")
    third = folder.add(b"third\n")
    assert {(it.name, it.flags, it.new) for it in box.messages()} == {
        (first, "", True),
        (second, "FS", False),
    }
    assert box.read(second) == b"From: a\n\nsecond\n"
    assert box.folders() == ["Archive/Old"]
    assert box.folder("Archive/Old").read(third) == b"third\n"
    # A message that mailbox has renamed is still found.
    message = theirs[first]
    message.set_subdir("cur")
    message.set_flags("T")
    theirs[first] = message
    assert box.read(first) == b"From: a\n\nfirst\n"
    assert box.keep(first).flags == "T"


# --- folders --------------------------------------------------------------------------------------


def test_folders(box: Maildir) -> None:
    assert box.folders() == []
    for name in ("Work", "Work/2024", "Ändern", "a & b", "日本語", "v1.2", "..", "x/../ä.ö"):
        folder = box.create_folder(name)
        assert (Path(folder.path) / "maildirfolder").is_file()
        assert sorted(path.name for path in Path(folder.path).iterdir() if path.is_dir()) == [
            "cur",
            "new",
            "tmp",
        ]
        assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700
        deliver(folder, name.encode())
        assert box.create_folder(name).path == folder.path
    assert box.folders() == sorted(
        ["Work", "Work/2024", "Ändern", "a & b", "日本語", "v1.2", "..", "x/../ä.ö"]
    )
    for name in box.folders():
        (message,) = box.folder(name).messages()
        assert box.folder(name).read(message) == name.encode()
    assert box.messages() == []
    assert {path.name for path in Path(box.path).iterdir() if path.name.startswith(".")} == {
        ".Work",
        ".Work.2024",
        ".&AMQ-ndern",
        ".a &- b",
        ".&ZeVnLIqe-",
        ".v1&AC4-2",
        ".&AC4ALg-",
        ".x.&AC4ALg-.&AOQALgD2-",
    }


def test_first_message_creates_the_folder(box: Maildir) -> None:
    deliver(box.folder("Lists"))
    assert box.folders() == ["Lists"]
    assert (Path(box.path) / ".Lists" / "maildirfolder").is_file()
    assert not (Path(box.path) / "maildirfolder").exists()


def test_other_directories_are_no_folders(box: Maildir) -> None:
    for name in (".git", "..x", ".a&b", ".&AMQ", ".&!-", ".&AGE-", ".ok", "not"):
        (Path(box.path) / name / "cur").mkdir(parents=True)
    (Path(box.path) / ".file").write_bytes(b"")
    (Path(box.path) / ".empty").mkdir()
    assert box.folders() == ["git", "ok"]


@pytest.mark.parametrize("name", ["", "/", "a/", "/a", "a//b", "\ud800"])
def test_invalid_folder_name(box: Maildir, name: str) -> None:
    with pytest.raises(FolderNameError):
        box.create_folder(name)


def test_folder_name_length_limit(box: Maildir) -> None:
    box.create_folder("x" * 254)
    with pytest.raises(FolderNameError):
        box.create_folder("x" * 255)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_folder_name_round_trip(name: str) -> None:
    try:
        directory = directory_of(name)
    except FolderNameError:
        return
    assert directory.isascii()
    assert "/" not in directory
    assert "\0" not in directory
    again = folder_of(directory)
    assert again is not None
    assert directory_of(again) == directory


@given(st.text("&-,.aA+/9ü \0", max_size=20))
def test_directory_name_round_trip(text: str) -> None:
    name = folder_of("." + text)
    assert name is None or directory_of(name) == "." + text


# --- several processes ----------------------------------------------------------------------------

WORKER = """
import os, random, sys, time
from fastlisten.mail.delivery.staged_message import StagedMessage
from fastlisten.mail.maildir.maildir import Maildir, unique_name
from support.deliveries import commit
path, role, seed, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
chance, box = random.Random(seed), Maildir(path)
end = time.monotonic() + seconds
count = 0
while time.monotonic() < end:
    if role == "deliver":
        body = f"{seed}-{count} ".encode() * chance.choice((1, 500)) + b"end"
        staged = StagedMessage([box], unique_name())
        staged.write([body])
        commit(staged)
        count += 1
        continue
    before = box.messages()
    names = [message.name for message in before]
    assert len(names) == len(set(names))
    for message in chance.sample(before, min(8, len(before))):
        if role == "read":
            assert box.read(message).endswith(b"end")
        else:
            flags = "".join(chance.sample("DFRST", chance.randint(0, 5)))
            box.keep(message, flags)
    after = {message.name for message in box.messages()}
    assert after >= set(names), set(names) - after
    count += 1
print(count)
"""


def storm(box: Maildir, seconds: float) -> None:
    roles = ["deliver", "deliver", "read", "move", "move", "move"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, box.path, role, str(seed), str(seconds)],
            stdout=subprocess.PIPE,
            env=environ,
        )
        for seed, role in enumerate(roles)
    ]
    counts = [int(worker.communicate(timeout=seconds + 60)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    assert all(counts)
    found = collections.Counter(box.read(it).split(b" ")[0].decode() for it in box.messages())
    assert found == {
        f"{seed}-{number}": 1
        for seed, (role, count) in enumerate(zip(roles, counts, strict=True))
        if role == "deliver"
        for number in range(count)
    }
    assert len(standard(box)) == len(found)
    assert os.listdir(box.tmp) == []


def test_several_processes_at_once(box: Maildir) -> None:
    storm(box, 1.2)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_several_processes_soak(box: Maildir) -> None:
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        storm(box, 10.0)
        for message in box.messages():
            box.remove(message)
