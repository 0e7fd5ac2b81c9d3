"""SIGHUP with several workers of another user: the supervisor reads renewed keys for them.

Rules of this file: the key is readable for root only. Each worker shows its certificate while the
others are stopped. What the user itself owns is read with the user's rights: it can put a link to
any file in its place, and gets the content.
"""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.certificates import authority, table, write
from support.other_user import NOBODY, entering, needs_root, user_directory
from support.waiting import until
from support.workers import WHO, Workers, line, stopped, workers

pytestmark = needs_root


@pytest.fixture
def directory() -> Iterator[Path]:
    with user_directory() as path:
        (path / "imports").touch()
        (path / "imports").chmod(0o666)
        (path / "data").mkdir()
        os.chown(path / "data", NOBODY.pw_uid, NOBODY.pw_gid)
        yield path


def shown(server: Workers, pid: int) -> str:
    """Return the certificate that a worker shows."""
    with stopped(*(one for one in server.pids if one != pid)):
        return ssl.get_server_certificate(("127.0.0.1", server.program.port()))


def shows(server: Workers, pid: int, certificate: str) -> bool:
    return shown(server, pid) == certificate


def test_renewed_key_reaches_workers_that_cannot_read_it(directory: Path) -> None:
    old, new = (authority().sign("mx.example.org") for _ in range(2))
    _, key = write(directory, old)
    assert key.stat().st_mode & 0o777 == 0o600
    text = f"{WHO}tls.implicit = true\n{table(directory)}"
    head = 'run-as.user = "nobody"\n'
    with workers(directory, 2, text, head=head, wrapper=entering()) as two:
        assert {shown(two, pid) for pid in two.pids} == {old.cert.decode()}
        write(directory, new)
        two.signal(signal.SIGHUP)
        until(lambda: "has been replaced" in two.err, "the reload")
        for pid in two.pids:
            until(partial(shows, two, pid, new.cert.decode()))
        # A worker that is forked later has it, too.
        os.kill(two.pids[0], signal.SIGKILL)
        two.serve(3)
        until(lambda: len(two.pids) == 2, "two workers")
        assert {shown(two, pid) for pid in two.pids} == {new.cert.decode()}
        assert two.end() == 0
    assert two.err.count("has been replaced") == 1


def test_link_in_the_data_directory_is_not_followed_as_root(directory: Path) -> None:
    secret = authority().sign("secret.example.org")
    only_roots = directory / "secret.pem"
    only_roots.write_bytes(secret.key + secret.cert)
    only_roots.chmod(0o600)
    kept = directory / "data" / "self-signed.pem"
    head = 'run-as.user = "nobody"\n'
    with workers(directory, 2, f"{WHO}tls.implicit = true\n", head=head, wrapper=entering()) as two:
        (own,) = {shown(two, pid) for pid in two.pids}
        assert kept.stat().st_uid == NOBODY.pw_uid
        kept.rename(directory / "data" / "aside")
        kept.symlink_to(only_roots)
        two.signal(signal.SIGHUP)
        until(lambda: "cannot be read: Permission denied" in two.err, "the reload")
        assert {shown(two, pid) for pid in two.pids} == {own}
        # A file of the user's is read.
        kept.unlink()
        kept.write_bytes(secret.key + secret.cert)
        os.chown(kept, NOBODY.pw_uid, NOBODY.pw_gid)
        two.signal(signal.SIGHUP)
        for pid in two.pids:
            until(partial(shows, two, pid, secret.cert.decode()))
        assert two.end() == 0


def test_value_that_only_the_supervisor_can_read_reaches_workers(directory: Path) -> None:
    secret = directory / "secret"
    secret.write_text("first")
    secret.chmod(0o600)
    listener = f"""
[server.listener.it]
protocol = "smtp"
bind = "127.0.0.1:0"
tls.enable = false
greeting = "%{{file:{secret}}}%"
"""
    head = 'run-as.user = "nobody"\n'
    with workers(directory, 2, listener, head=head, wrapper=entering()) as two:
        secret.write_text("second")
        two.signal(signal.SIGHUP)
        until(lambda: "fastlisten: reloaded" in two.err, "the reload")
        for pid in two.pids:
            with stopped(*(one for one in two.pids if one != pid)), two.connect() as client:
                assert line(client).rstrip().endswith(b" second")
        assert two.end() == 0
