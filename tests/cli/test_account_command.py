"""`fastlisten account add|list`: the file remains the administrator's."""

from __future__ import annotations

import fcntl
import io
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tomli
from support.waiting import until

from fastlisten.cli import file_rewrite
from fastlisten.cli.account import add, list_accounts, passwd
from fastlisten.mail.accounts import file_leases


def run(function: object, *arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = function(*arguments, out, err)  # type: ignore[operator]
    return code, out.getvalue(), err.getvalue()


def test_add_and_list(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "accounts.toml"
    assert run(add, "alice@Example.org", path) == (
        0,
        f"added alice@example.org to {path}, "
        "without a password: it receives mail, but nobody can log in\n",
        "",
    )
    assert run(add, '"a \\"b"@x', path)[0] == 0
    assert run(add, "jürgen@bücher.example", path)[0] == 0
    assert run(list_accounts, path) == (
        0,
        "".join(
            f"{name}\t(no password: nobody can log in)\n"
            for name in ("alice@example.org", '"a \\"b"@x', "jürgen@bücher.example")
        ),
        "",
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir() if "tmp" in entry.name] == []


def test_existing_content_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    before = '# mine\n[account."a@b"] # yes\naliases = [ "c@d" ]   # no newline at the end'
    path.write_text(before)
    assert run(add, "e@f", path)[0] == 0
    assert path.read_text() == before + '\n\n[account."e@f"]\n'
    assert run(list_accounts, path)[1] == (
        "a@b\tc@d\t(no password: nobody can log in)\ne@f\t(no password: nobody can log in)\n"
    )


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "nobody", "not an address"),
        ("", "a@b\n", "not an address"),
        ('[account."a@b"]', "a@B", "the account already exists"),
        ('[account."x@y"]\naliases = ["a@b"]', "a@b", "is an address of"),
        ('account = {"x@y" = {}}', "a@b", "was not added"),
        ("[account", "a@b", "was not added"),
    ],
)
def test_rejected_account_changes_nothing(
    tmp_path: Path, text: str, name: str, message: str
) -> None:
    path = tmp_path / "accounts.toml"
    path.write_text(text)
    code, out, err = run(add, name, path)
    assert (code, out) == (2, "")
    assert message in err
    assert path.read_text() == text


def test_system_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run(add, "a@b", tmp_path / "file" / "accounts.toml")
    assert code == 1
    assert "Not a directory" in err or "File exists" in err
    assert run(list_accounts, tmp_path / "none.toml")[0] == 1
    assert run(list_accounts, tmp_path)[0] == 1
    (tmp_path / "file").write_text("[account")
    assert run(list_accounts, tmp_path / "file")[0] == 2


def test_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    path.write_bytes(b"# \xff\n")
    for code, out, err in (run(list_accounts, path), run(add, "a@b", path)):
        assert (code, out) == (2, "")
        assert f"{path}:1: byte 0xff is not UTF-8" in err
    assert path.read_bytes() == b"# \xff\n"


def test_plaintext_password_message_explains_hashing(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    path.write_text('[account."a@b"]\npassword = "secret"\n')
    code, _, err = run(passwd, "a@b", path, "secret")
    assert code == 2
    assert "remove the line, and `fastlisten account passwd` makes one" in err
    assert "secret" not in err
    path.write_text('[account."a@b"]\n')
    assert run(passwd, "a@b", path, "secret")[0] == 0
    assert list(tomli.loads(path.read_text())["account"]["a@b"]) == ["password"]


def test_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "accounts.toml"
    run(add, "a@b", path)
    before = path.read_text()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert run(add, "c@d", path) == (1, "", f"{path}: No space left on device\n")
    assert path.read_text() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "accounts.toml",
        "accounts.toml.lock",
    ]


def test_symbolic_link_is_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "target.toml", tmp_path / "accounts.toml"
    target.write_text("")
    link.symlink_to(target)
    assert run(add, "a@b", link)[0] == 0
    assert link.is_symlink()
    assert target.read_text() == '[account."a@b"]\n'


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_file_made_by_root_belongs_to_the_directory_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1235)
    path = tmp_path / "accounts.toml"
    run(add, "a@b", path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)
    os.chown(path, 1236, 1237)
    run(add, "c@d", path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1236, 1237)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_server_user_can_edit_after_root(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1235)
    path = tmp_path / "accounts.toml"
    run(add, "a@b", path)
    lock = Path(f"{path}.lock")
    assert (lock.stat().st_uid, lock.stat().st_gid) == (1234, 1235)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_root_does_not_follow_links_of_the_server_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("root's")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1234, 1235)
    path = home / "accounts.toml"
    Path(f"{path}.lock").symlink_to(precious)
    assert run(add, "a@b", path)[0] == 1
    Path(f"{path}.lock").unlink()
    # Even if its name were known.
    monkeypatch.setattr("secrets.token_hex", lambda octets: "known")
    (home / ".accounts.toml.known.tmp").symlink_to(precious)
    assert run(add, "a@b", path)[0] == 1
    assert precious.read_text() == "root's"
    assert precious.stat().st_uid == 0
    assert not path.exists()


def test_concurrent_additions_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    program = (
        "import sys\nfrom fastlisten.cli.account import add\n"
        "for n in range(10):\n"
        "    assert add(f'{sys.argv[1]}-{n}@x', sys.argv[2], sys.stdout, sys.stderr) == 0\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number), str(path)],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )
        for number in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    names = tomli.loads(path.read_text())["account"]
    assert set(names) == {f"{number}-{n}@x" for number in range(4) for n in range(10)}


def test_lock_that_is_never_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_rewrite, "LOCK_TIMEOUT", 0)
    path = tmp_path / "accounts.toml"
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, said = run(add, "a@b", path)
    assert code == 1
    assert f"another `account` command holds {path}.lock; nothing has been changed" in said
    assert not path.exists()
    assert run(add, "a@b", path)[0] == 0


def test_writer_that_opens_the_file_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still has the old file when ours takes its place, and its data is kept anyway."""
    path = tmp_path / "accounts.toml"
    path.write_text('[account."a@b"]\n')
    exchange = file_rewrite._exchange
    writers: list[threading.Thread] = []

    def write() -> None:
        with open(path, "a") as file:  # waits until the lease is released
            file.write('[account."his@b"]\n')

    def late(new: Path, there: Path, old: int, lease: bool) -> None:
        if lease and not writers:
            writers.append(threading.Thread(target=write))
            writers[0].start()
            until(lambda: file_leases.wanted(old), "the writer")
        exchange(new, there, old, lease)

    monkeypatch.setattr(file_rewrite, "_exchange", late)
    assert run(add, "ours@b", path)[0] == 0
    if not writers:
        pytest.skip("no leases on this filesystem")
    writers[0].join()
    assert set(tomli.loads(path.read_text())["account"]) == {"a@b", "his@b", "ours@b"}
