"""Rewriting the accounts file: whoever could read it still can, and no other write is lost.

Owners, modes and access control lists are real, set by the programs that administrators use; other
writers come at the worst moment, which the kernel or the edit itself signals.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.waiting import until

from fastlisten.cli import account, file_rewrite
from fastlisten.mail.accounts import file_leases
from fastlisten.mail.accounts.roster import Roster

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
EXTERNAL = pytest.mark.external
NEEDS_ACL = pytest.mark.skipif(shutil.which("setfacl") is None, reason="needs setfacl")

#: A user and a group that do not exist.
USER, GROUP = 12_345, 23_456

TEXT = '[account."a@example.org"]\n'


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        path = Path(name, "accounts.toml")
        path.write_text(TEXT)
        yield path


def add(path: Path, name: str = "new@example.org") -> tuple[int, str]:
    err = io.StringIO()
    return account.add(name, path, io.StringIO(), err), err.getvalue()


def names(path: Path) -> list[str]:
    return [it.name.partition("@")[0] for it in Roster.parse(path.read_text()).accounts]


def can_read(path: Path, user: int, group: int) -> bool:
    """Return whether a process of this user and group can read a file."""
    done = subprocess.run(
        ["cat", path], user=user, group=group, extra_groups=[], capture_output=True
    )
    return done.returncode == 0


def all_changes(path: Path) -> None:
    """Make every change that the command can make."""
    out, err = io.StringIO(), io.StringIO()
    for code in (
        account.add("x@example.org", path, out, err),
        account.passwd("x@example.org", path, "secret", out, err),
        account.add_alias("x@example.org", "y@example.org", path, out, err),
        account.remove("x@example.org", path, path.parent / "mail", out, err),
    ):
        assert code == 0, err.getvalue()


@ROOT
@pytest.mark.parametrize("mode", [0o640, 0o600, 0o644, 0o660, 0o440, 0o2640])
def test_owner_group_and_mode_are_kept(place: Path, mode: int) -> None:
    os.chown(place, USER, GROUP)
    os.chmod(place, mode)
    could = {user: can_read(place, user, GROUP) for user in (USER, USER + 1)}
    all_changes(place)
    after = place.stat()
    assert (after.st_uid, after.st_gid) == (USER, GROUP)
    assert stat.S_IMODE(after.st_mode) == mode
    assert {user: can_read(place, user, GROUP) for user in could} == could


@ROOT
def test_link_is_kept_and_its_target_keeps_its_owner(place: Path) -> None:
    target = place.with_name("target.toml")
    place.rename(target)
    os.chown(target, 0, GROUP)
    os.chmod(target, 0o640)
    place.symlink_to(target.name)
    all_changes(place)
    assert place.is_symlink()
    assert (target.stat().st_uid, target.stat().st_gid) == (0, GROUP)
    assert can_read(target, USER, GROUP)


def acl(path: Path) -> str:
    done = subprocess.run(["getfacl", "-n", "-p", path], check=True, capture_output=True, text=True)
    return done.stdout


@ROOT
@EXTERNAL
@NEEDS_ACL
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_access_control_list_is_kept(place: Path, mode: int) -> None:
    os.chmod(place, mode)
    subprocess.run(["setfacl", "-m", f"u:{USER}:r,g:{GROUP}:r", place], check=True)
    before = acl(place)
    assert f"user:{USER}:r--" in before
    all_changes(place)
    assert acl(place) == before
    assert can_read(place, USER, USER)
    assert can_read(place, USER + 1, GROUP)
    assert not can_read(place, USER + 1, USER)


@ROOT
@EXTERNAL
@NEEDS_ACL
def test_default_acl_of_the_directory_is_not_applied(place: Path) -> None:
    """Nor is an ACL added if the file has none."""
    os.chmod(place, 0o640)
    before = acl(place)
    subprocess.run(["setfacl", "-d", "-m", f"u:{USER}:rw", place.parent], check=True)
    all_changes(place)
    assert acl(place) == before
    assert not can_read(place, USER, USER)
    place.unlink()
    assert add(place)[0] == 0
    assert not can_read(place, USER, USER)


def test_other_attributes_are_kept(place: Path) -> None:
    os.setxattr(place, "user.origin", b"ansible")
    all_changes(place)
    assert os.getxattr(place, "user.origin") == b"ansible"


@ROOT
def test_security_labels_are_kept_but_content_signatures_are_not(place: Path) -> None:
    for name in ("security.fastlisten", "security.ima", "trusted.origin"):
        try:
            os.setxattr(place, name, b"\x01x")
        except OSError:
            pytest.skip(f"no {name} here")
    all_changes(place)
    kept = os.listxattr(place)
    assert "security.fastlisten" in kept
    assert "trusted.origin" in kept
    assert "security.ima" not in kept


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@ROOT
def test_user_that_cannot_keep_the_owner_changes_nothing(place: Path) -> None:
    os.chown(place.parent, USER, USER)
    os.chmod(place, 0o644)
    child = os.fork()
    if child == 0:
        code = 9
        try:
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            done, said = add(place)
            code = 0 if done == 1 and "as that user or as root" in said else 8
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert place.read_text() == TEXT
    assert place.stat().st_uid == 0
    assert sorted(it.name for it in place.parent.iterdir()) == [place.name, f"{place.name}.lock"]


def test_other_file_types_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    os.mkfifo(path)
    code, said = add(path)
    assert code == 1
    assert "not a regular file" in said


# --- other writers --------------------------------------------------------------------------------


def appended(number: int) -> str:
    return f'[account."other{number}@example.org"]\n'


def rewrite_with(path: Path, meanwhile: Callable[[int], None]) -> int:
    """Rewrite a file while others act between read and write; return the number of attempts."""
    attempts = 0

    def edit(content: bytes) -> bytes:
        nonlocal attempts
        attempts += 1
        meanwhile(attempts)
        return content + b'[account."ours@example.org"]\n'

    file_rewrite.rewrite(path, Path.read_bytes, edit)
    return attempts


def test_concurrent_write_in_place(place: Path) -> None:
    """It waits in open(2) until we have noticed it and released the lease."""
    writers = []

    def write() -> None:
        with open(place, "a") as file:
            file.write(appended(1))

    def meanwhile(attempt: int) -> None:
        if attempt == 1:
            writers.append(threading.Thread(target=write))
            writers[0].start()
            inode = str(place.stat().st_ino)
            until(lambda: any(
                "BREAKING" in line and f":{inode} " in line
                for line in Path("/proc/locks").read_text().splitlines()
            ))  # fmt: skip

    assert rewrite_with(place, meanwhile) >= 2
    writers[0].join()
    assert names(place) == ["a", "other1", "ours"]


def test_concurrent_rename(place: Path) -> None:
    def meanwhile(attempt: int) -> None:
        if attempt <= 3:
            other = place.with_name("other")
            other.write_text(place.read_text() + appended(attempt))
            other.replace(place)

    assert rewrite_with(place, meanwhile) == 4
    assert names(place) == ["a", "other1", "other2", "other3", "ours"]


def test_rename_at_the_last_moment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last check of the file, before ours takes its place."""
    real, swaps = file_rewrite._swap, []

    def swap(one: Path, other: Path) -> bool:
        swaps.append(other)
        if len(swaps) == 1:
            theirs = place.with_name("theirs")
            theirs.write_text(place.read_text() + appended(1))
            theirs.replace(place)
        return real(one, other)

    monkeypatch.setattr(file_rewrite, "_swap", swap)
    assert rewrite_with(place, lambda attempt: None) == 2
    assert len(swaps) == 3  # there, back, and there again
    assert names(place) == ["a", "other1", "ours"]
    assert sorted(it.name for it in place.parent.iterdir()) == [place.name, f"{place.name}.lock"]


def test_unfinished_copy_is_waited_for(place: Path) -> None:
    text = TEXT + appended(1) + appended(2)
    done: list[int] = []
    with open(place, "w") as copy:
        copy.write(TEXT)
        copy.flush()
        ours = threading.Thread(target=lambda: done.append(add(place, "ours@example.org")[0]))
        ours.start()
        # It has the lock, so it has begun.
        until(lambda: Path(f"{place}.lock").exists())
        ours.join(5 * file_rewrite._INTERVAL)
        assert done == []
        copy.write(text[len(TEXT) :])
    ours.join()
    assert done == [0]
    assert names(place) == ["a", "other1", "other2", "ours"]


def test_endless_writer_is_an_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_rewrite, "WRITER_TIMEOUT", 0)
    with open(place, "a"):
        code, said = add(place)
    assert code == 1
    assert "another program is writing the file; nothing has been changed" in said
    assert place.read_text() == TEXT


@pytest.mark.parametrize("how", ["in place", "rename"])
def test_change_is_noticed_without_leases(
    place: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_leases, "take", lambda fd: None)
    monkeypatch.setattr(file_rewrite, "_swap", lambda one, other: False)
    os.utime(place, (1, 1))
    target = place if how == "in place" else place.with_name("other")

    def meanwhile(attempt: int) -> None:
        if attempt == 1:
            target.write_text(TEXT + appended(1))
            os.utime(target, (2, 2))
            target.replace(place)

    assert rewrite_with(place, meanwhile) == 2
    assert names(place) == ["a", "other1", "ours"]


def test_recently_changed_file_waits_without_leases(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_leases, "take", lambda fd: None)
    monkeypatch.setattr(file_rewrite, "WRITER_TIMEOUT", 0)
    assert add(place)[0] == 1
    os.utime(place, (1, 1))
    assert add(place)[0] == 0


def test_concurrently_created_file(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"

    def meanwhile(attempt: int) -> None:
        if attempt == 1:
            path.write_text(TEXT)

    assert rewrite_with(path, meanwhile) == 2
    assert names(path) == ["a", "ours"]


def test_failed_edit_leaves_nothing(place: Path) -> None:
    def fail(content: bytes) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        file_rewrite.rewrite(place, Path.read_bytes, fail)
    with open(place, "a"):  # the lease has been released
        pass
    assert sorted(it.name for it in place.parent.iterdir()) == [place.name, f"{place.name}.lock"]


def test_removal_retried_is_not_reported_as_missing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write_text(TEXT + '[account."b@example.org"]\n')
    real, asked = file_rewrite._changed, []

    def changed(fd: int, found: os.stat_result) -> bool:
        asked.append(fd)
        return len(asked) == 1 or real(fd, found)

    monkeypatch.setattr(file_rewrite, "_changed", changed)
    out = io.StringIO()
    assert account.remove("b@example.org", place, place.parent, out, out) == 0
    assert out.getvalue().startswith(f"removed b@example.org from {place}\n")
    assert names(place) == ["a"]
