"""`fastlisten account backup` and `restore`: where copies go, messages, and who owns the files."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.accounts import write_accounts
from support.environment import clean_environment
from support.mail_store import deliver, inbox, index_of
from support.other_user import NOBODY, entering, needs_root, user_directory
from support.waiting import PATIENCE

from fastlisten.cli.main import main
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.mail.store.absorb import look

ALICE, BOB = "alice@example.org", "bob@example.org"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Account = Callable[..., Ran]


def configure(directory: Path) -> Path:
    """Write a configuration whose data is in a directory, and two accounts; return its file."""
    file = directory / "fastlisten.toml"
    file.write_text(
        f'[server]\ndata-directory = "{directory}"\n'
        '[server.listener.smtp]\nbind = "127.0.0.1:2525"\nprotocol = "smtp"\n'
    )
    write_accounts(directory / "accounts.toml", f'[account."{ALICE}"]\n[account."{BOB}"]\n')
    return file


@pytest.fixture
def account(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Account:
    """Run `fastlisten account`."""
    file = configure(tmp_path)

    def run(action: str, *arguments: str) -> Ran:
        code = main(["account", action, *arguments, "--config", str(file)])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    """Return alice's Maildir, with two messages."""
    root = tmp_path / "mail" / ALICE
    with index_of(root) as index:
        deliver(index.maildir, b"first", "1.a")
        look(index, inbox(index).id)
        deliver(index.maildir, b"second", "2.a")
    return root


def texts(root: Path) -> list[bytes]:
    box = Maildir(str(root))
    return [box.read(message) for message in box.messages()]


@pytest.mark.parametrize("target", ["copy.tar", "copy"])
def test_there_and_back(mail: Path, account: Account, tmp_path: Path, target: str) -> None:
    path = str(tmp_path / target)
    done = account("backup", ALICE, path)
    said = f"copied 2 messages (11 bytes) in 1 folders of {ALICE} to {path}\n"
    assert done == Ran(0, said, "")
    assert os.stat(path).st_mode & 0o77 == 0
    done = account("restore", BOB, path)
    assert done == Ran(0, f"restored 2 messages of {BOB} from {path}\n", "")
    assert texts(mail.parent / BOB) == [b"first", b"second"]
    deliver(str(mail), b"third", "3.a")
    done = account("restore", ALICE, path)
    message = f"{ALICE} has mail already: --force replaces it, and keeps it aside\n"
    assert done == Ran(1, "", message)
    done = account("restore", "--force", ALICE, path)
    said, before = done.out.splitlines()
    assert said == f"restored 2 messages of {ALICE} from {path}"
    assert before.startswith("the mail that was there before is in ")
    assert texts(mail) == [b"first", b"second"]
    assert texts(Path(before.rpartition(" ")[2])) == [b"first", b"second", b"third"]


def test_nothing_is_overwritten(mail: Path, account: Account, tmp_path: Path) -> None:
    (tmp_path / "copy.tar").write_text("mine")
    assert account("backup", ALICE, str(tmp_path / "copy.tar")).code == 1
    assert (tmp_path / "copy.tar").read_text() == "mine"
    done = account("backup", ALICE, str(tmp_path))
    assert done == Ran(1, "", f"{tmp_path} is not empty\n")


def test_failed_backup_leaves_no_file(
    mail: Path, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("fastlisten.cli.account_backup.back_up", fail)
    done = account("backup", ALICE, str(tmp_path / "copy.tar"))
    assert (done.code, done.out) == (1, "")
    assert not (tmp_path / "copy.tar").exists()


def test_errors(mail: Path, account: Account, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.tar")
    assert account("backup", BOB, copy) == Ran(1, "", f"{BOB} has no mail\n")
    nobody = "carol@example.org: there is no such account\n"
    assert account("backup", "carol@example.org", copy) == Ran(2, "", nobody)
    assert account("restore", "carol@example.org", copy) == Ran(2, "", nobody)
    missing = account("restore", BOB, copy)
    assert missing == Ran(1, "", f"{copy}: No such file or directory\n")
    Path(copy).write_text("text")
    wrong = account("restore", BOB, copy)
    assert wrong.code == 1
    assert wrong.err.startswith(f"{copy} is no backup of an account: ")
    assert not (tmp_path / "mail" / BOB).exists()


def program(*arguments: str, wrapper: tuple[str, ...] = (), data: bytes = b"") -> bytes:
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "fastlisten", "account", *arguments],
        input=data,
        capture_output=True,
        env=clean_environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_standard_streams(mail: Path, account: Account, tmp_path: Path) -> None:
    config = ("--config", str(tmp_path / "fastlisten.toml"))
    archive = program("backup", ALICE, "-", *config)
    (tmp_path / "copy.tar").write_bytes(archive)
    with tarfile.open(tmp_path / "copy.tar") as tar:
        assert "index.db" in tar.getnames()
    said = program("restore", BOB, "-", *config, data=archive)
    assert said == f"restored 2 messages of {BOB} from -\n".encode()
    assert texts(mail.parent / BOB) == [b"first", b"second"]


@needs_root
@pytest.mark.parametrize("target", ["copy.tar", "copy"])
def test_root_works_as_the_owner(target: str) -> None:
    with user_directory() as outer:
        directory = outer / "data"
        directory.mkdir()
        config = ("--config", str(configure(directory)))
        root = directory / "mail" / ALICE
        with index_of(root) as index:
            deliver(index.maildir, b"first", "1.a")
        for path in (directory, *directory.rglob("*")):
            os.lchown(path, NOBODY.pw_uid, NOBODY.pw_gid)
        closed = outer / "closed"
        closed.mkdir(0o700)  # where only root can be
        copy = str(closed / target)
        deliver(str(root), b"second", "2.a")
        os.chown(root / "new" / "2.a", NOBODY.pw_uid, NOBODY.pw_gid)
        wrapper = entering()
        program("folders", ALICE, *config, wrapper=wrapper)
        program("usage", *config, wrapper=wrapper)
        program("backup", ALICE, copy, *config, wrapper=wrapper)
        program("rebuild", ALICE, *config, wrapper=wrapper)
        program("restore", BOB, copy, *config, wrapper=wrapper)
        program("restore", "--force", ALICE, copy, *config, wrapper=wrapper)
        assert texts(root) == texts(directory / "mail" / BOB) == [b"first", b"second"]
        owners = {path.lstat().st_uid for path in directory.rglob("*")}
        assert owners == {NOBODY.pw_uid}
        # A link that the owner has made leads nowhere where the owner could not go.
        secret = closed / "secret"
        secret.write_text("root's")
        (root / "cur" / "9.link:2,").symlink_to(secret)
        archive = program("backup", ALICE, "-", *config, wrapper=wrapper)
        assert b"root's" not in archive


@needs_root
@pytest.mark.parametrize("action", ["usage", "restore"])
def test_python_that_the_owner_cannot_read(action: str) -> None:
    """As if Python were installed in root's home directory."""
    with user_directory() as directory:
        file = configure(directory)
        (directory / "closed").mkdir(mode=0o700)
        (directory / "closed" / "os.py").touch()
        os.chown(directory, NOBODY.pw_uid, NOBODY.pw_gid)
        words = ["account", action, ALICE, "--config", str(file)]
        if action == "restore":
            Maildir(str(directory / "copy")).prepare()
            words.insert(3, str(directory / "copy"))
        code = (
            "import os, sys; from fastlisten.cli.main import main; "
            f"os.__file__ = {str(directory / 'closed' / 'os.py')!r}; sys.exit(main({words!r}))"
        )
        done = subprocess.run(
            [*entering(), sys.executable, "-c", code],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        message = f"{directory} belongs to user nobody, who cannot read {directory}/closed/os.py: "
        assert done.stderr.startswith(message)
        assert not (directory / "mail" / ALICE).exists()
