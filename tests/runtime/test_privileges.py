"""`server.run-as` with one process: which ids serve, what they own, what no longer works.

Rules of this file: the program runs as root and changes to `nobody` or to an id without a name. The
kernel says who it is (/proc/PID/status).
"""

from __future__ import annotations

import grp
import os
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import authority, table, write
from support.environment import clean_environment
from support.other_user import NOBODY, entering, needs_root, status_of, user_directory
from support.program import Program, program, run
from support.waiting import PATIENCE, until

pytestmark = needs_root

#: A user id that no database has.
STRANGER = 54321

SERVE = (sys.executable, "-m", "fastlisten", "serve")

AS_NOBODY = 'run-as.user = "nobody"\n'

SMTP = '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
PLAIN = SMTP + "tls.enable = false\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    with user_directory() as path:
        yield path


def given_to(directory: Path, uid: int) -> Path:
    """Return a data directory that belongs to a user."""
    data = directory / "data"
    data.mkdir()
    os.chown(data, uid, uid)
    return directory


def ids(started: Program) -> tuple[list[str], list[str], list[str]]:
    """Return user ids (real, effective, saved, of files), group ids, supplementary groups."""
    found = status_of(started.pid)
    return found["Uid"], found["Gid"], found["Groups"]


def threads_of(pid: int) -> set[int]:
    return {int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()}


def mail(started: Program) -> None:
    """Deliver a message to alice."""
    with smtplib.SMTP("127.0.0.1", started.port(), timeout=PATIENCE) as client:
        client.sendmail("s@example.net", ["alice@example.org"], b"Subject: hi\r\n\r\nhello\r\n")


def test_every_id_is_the_users(directory: Path) -> None:
    given_to(directory, NOBODY.pw_uid)
    with program(directory, AS_NOBODY + PLAIN, wrapper=entering()) as started:
        uid, gid = str(NOBODY.pw_uid), str(NOBODY.pw_gid)
        assert ids(started) == ([uid] * 4, [gid] * 4, [gid])
        for thread in threads_of(started.pid):
            found = status_of(thread)
            assert found["Uid"] == [uid] * 4
            assert {found[name][0] for name in ("CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert started.stop() == 0


def test_control_socket_is_the_users(directory: Path) -> None:
    given_to(directory, NOBODY.pw_uid)
    path = directory / "data" / "control.sock"
    with program(directory, AS_NOBODY + PLAIN, wrapper=entering()) as started:
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (NOBODY.pw_uid, 0o600)
        done = run("status", "--config", directory / "mail.toml")
        assert done.stdout.startswith(f"PID {started.pid}, ")
        assert started.stop() == 0
    assert not path.exists()


def test_user_without_a_name_needs_a_group(directory: Path) -> None:
    given_to(directory, STRANGER)
    text = f'run-as = {{ user = "{STRANGER}", group = "{STRANGER + 1}" }}\n{PLAIN}'
    with program(directory, text, wrapper=entering()) as started:
        uid, gid = str(STRANGER), str(STRANGER + 1)
        assert ids(started) == ([uid] * 4, [gid] * 4, [gid])
        assert started.stop() == 0


def test_supplementary_groups_are_the_users(directory: Path) -> None:
    """Root's own groups, which may read what the user may not, are gone."""
    given_to(directory, NOBODY.pw_uid)
    wrapper = ("setpriv", "--groups", "0,6,54322", *entering())
    with program(directory, AS_NOBODY + PLAIN, wrapper=wrapper) as started:
        assert ids(started)[2] == [str(NOBODY.pw_gid)]


def test_group_of_its_own(directory: Path) -> None:
    given_to(directory, NOBODY.pw_uid)
    text = 'run-as = { user = "nobody", group = "mail" }\n' + PLAIN
    with program(directory, text, wrapper=entering()) as started:
        gid = grp.getgrnam("mail").gr_gid
        assert ids(started)[1:] == ([str(gid)] * 4, [str(gid)])


def test_data_directory_is_made_for_the_user(directory: Path) -> None:
    data = directory / "new" / "data"
    text = f'[server]\nhostname = "mx.example.org"\ndata-directory = "{data}"\n{AS_NOBODY}{SMTP}'
    accounts = directory / "accounts.toml"
    accounts.write_text('[account."alice@example.org"]\n')
    text = text.replace(AS_NOBODY, f'{AS_NOBODY}accounts = "{accounts}"\n')
    with program(directory, text, wrapper=entering(), unchanged=True) as started:
        mail(started)
        assert started.stop() == 0
    owners = {path: path.stat().st_uid for path in [data, *data.rglob("*")]}
    assert owners[data / "self-signed.pem"] == NOBODY.pw_uid
    assert set(owners.values()) == {NOBODY.pw_uid}
    assert len(list((data / "mail" / "alice@example.org" / "new").iterdir())) == 1
    assert data.stat().st_mode & 0o777 == 0o700
    assert (directory / "new").stat().st_uid == 0


def test_account_that_root_adds_belongs_to_the_user(directory: Path) -> None:
    data = directory / "data"
    file = directory / "mail.toml"
    file.write_text(f'[server]\ndata-directory = "{data}"\n{AS_NOBODY}{PLAIN}')
    done = run("account", "add", "a@example.org", "--generate", "--config", file)
    assert done.returncode == 0
    assert {path.stat().st_uid for path in (data, *data.iterdir())} == {NOBODY.pw_uid}


def test_data_directory_of_root_is_warned_about(directory: Path) -> None:
    with program(directory, AS_NOBODY + PLAIN, wrapper=entering()) as started:
        assert started.stop() == 0
    assert (
        f"user nobody (server.run-as.user) cannot write to the data directory {directory}/data: "
        f"chown nobody {directory}/data" in started.err
    )


def test_unix_socket_belongs_to_the_user(directory: Path) -> None:
    given_to(directory, NOBODY.pw_uid)
    path = directory / "it"
    text = AS_NOBODY + PLAIN.replace("127.0.0.1:0", f"unix:{path}")
    for _ in range(2):
        # Its directory is root's: the socket that the first one leaves is replaced by the second.
        with program(directory, text, wrapper=entering()) as started:
            assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                client.connect(str(path))
                assert client.recv(100).startswith(b"220 ")
            assert started.stop() == 0
        assert "Traceback" not in started.err


def test_unix_socket_with_an_owner_of_its_own(directory: Path) -> None:
    given_to(directory, NOBODY.pw_uid)
    path = directory / "it"
    own = f"socket = {{ user = '{STRANGER}', mode = '0660' }}\n"
    text = AS_NOBODY + PLAIN.replace("127.0.0.1:0", f"unix:{path}") + own
    with program(directory, text, wrapper=entering()):
        assert (path.stat().st_uid, path.stat().st_gid) == (STRANGER, NOBODY.pw_gid)


def test_modules_of_others_are_imported_as_the_user(directory: Path) -> None:
    given_to(directory, NOBODY.pw_uid)
    (directory / "told.py").write_text(
        "import os\n"
        "ids = (os.getuid(), os.environ['USER'], os.environ['HOME'])\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http': raise RuntimeError\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': repr(ids).encode()})\n"
    )
    text = (
        f'{AS_NOBODY}[server.listener.it]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
        'app = "told:app"\ntls.enable = false\n'
    )
    path = os.pathsep.join((clean_environment()["PYTHONPATH"], str(directory)))
    environ = {"PYTHONPATH": path}
    with program(directory, text, wrapper=entering(), environ=environ) as started:
        with socket.create_connection(("127.0.0.1", started.port()), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with client.makefile("rb") as answer:
                said = answer.read()
        assert said.endswith(repr((NOBODY.pw_uid, "nobody", NOBODY.pw_dir)).encode())


def test_handlers_that_cannot_be_used_exit_with_2(directory: Path) -> None:
    given_to(directory, NOBODY.pw_uid)
    text = AS_NOBODY + PLAIN + '[server.listener.b]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
    text += 'app = "nowhere:app"\ntls.enable = false\n'
    with program(directory, text, listeners=0, wrapper=entering()) as started:
        assert started.ended() == 2
    assert started.out == ""
    (line,) = [line for line in started.err.splitlines() if line.startswith("error: ")]
    assert "server.listener.b.app" in line
    assert "Traceback" not in started.err


def test_reload_of_a_key_that_only_root_reads(directory: Path) -> None:
    given_to(directory, NOBODY.pw_uid)
    pair = authority().sign("mx.example.org")
    write(directory, pair)  # its key has mode 0600
    text = AS_NOBODY + SMTP + table(directory)
    with program(directory, text, wrapper=entering()) as started:
        started.signal(signal.SIGHUP)
        text = "this process has changed to user nobody (server.run-as.user)"
        until(lambda: text in started.err, "the reload's answer")
        with smtplib.SMTP("127.0.0.1", started.port(), timeout=PATIENCE) as client:
            assert client.starttls()[0] == 220
        assert started.stop() == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('run-as.user = "no-such-user"\n', 'run-as.user = "no-such-user": no such user on this'),
        (
            'run-as = { user = "nobody", group = "no-such-group" }\n',
            'run-as.group = "no-such-group": no such group on this system',
        ),
        ('run-as.group = "mail"\n', 'run-as.group = "mail": this needs server.run-as.user, too'),
        (
            f'run-as.user = "{STRANGER}"\n',
            "this id has no entry in the user database, so server.run-as.group is needed",
        ),
    ],
)
def test_unusable_users_exit_with_2(directory: Path, lines: str, message: str) -> None:
    file = directory / "mail.toml"
    file.write_text(f'[server]\ndata-directory = "{directory}/data"\n{lines}{PLAIN}')
    for command in ("serve", "check"):
        done = run(command, file)
        assert done.returncode == 2
        assert message in done.stderr
        assert f"{file}:3: " in done.stderr


def as_nobody(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run the program as nobody from the beginning, until it ends."""
    (directory / "mail.toml").write_text(text)
    become = ("setpriv", "--reuid=nobody", f"--regid={NOBODY.pw_gid}", "--clear-groups")
    return subprocess.run(
        [*entering(), *become, *SERVE, str(directory / "mail.toml")],
        env=clean_environment(PYTHONDONTWRITEBYTECODE="1"),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_other_users_cannot_change(directory: Path) -> None:
    text = f'[server]\ndata-directory = "{directory}"\nrun-as.user = "root"\n{PLAIN}'
    done = as_nobody(directory, text)
    assert done.returncode == 3
    assert "only root can change to another user" in done.stderr
    assert "Traceback" not in done.stderr


def test_interpreter_that_the_user_cannot_read_is_an_error(directory: Path) -> None:
    given_to(directory, NOBODY.pw_uid)
    # As if Python were installed in root's home directory.
    (directory / "closed").mkdir(mode=0o700)
    code = (
        "import os, sys; from fastlisten.cli.main import main; "
        f"os.__file__ = {str(directory / 'closed' / 'os.py')!r}; "
        f"sys.exit(main(['serve', {str(directory / 'mail.toml')!r}]))"
    )
    (directory / "closed" / "os.py").touch()
    (directory / "mail.toml").write_text(f"[server]\n{AS_NOBODY}{PLAIN}")
    done = subprocess.run(
        [*entering(), sys.executable, "-c", code],
        env=clean_environment(STATE_DIRECTORY=str(directory / "data")),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 3
    assert f"user nobody (server.run-as.user) cannot read {directory}/closed/os.py" in done.stderr


@pytest.mark.parametrize("capability", ["setuid", "setgid"])
def test_root_without_the_capability_says_so(directory: Path, capability: str) -> None:
    """As in a confined service. What has been changed by then is changed back."""
    given_to(directory, NOBODY.pw_uid)
    confined = ("setpriv", f"--bounding-set=-{capability}", *entering())
    with program(directory, AS_NOBODY + PLAIN, listeners=0, wrapper=confined) as started:
        assert started.ended() == 3
        assert started.err == "error: cannot become user nobody: Operation not permitted\n"
    code = (
        "import os; from fastlisten.privileges import PrivilegesError, find_identity\n"
        "ids = lambda: (os.getresuid(), os.getresgid(), os.getgroups())\n"
        "before = ids()\n"
        "try:\n"
        "    with find_identity('nobody', None).acting(): print('became it')\n"
        "except PrivilegesError: print(ids() == before)\n"
    )
    done = subprocess.run(
        [*confined, sys.executable, "-c", code],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == "True\n"
