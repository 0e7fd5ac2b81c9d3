"""A machine without /proc and /sys, as in hardened containers.

Nothing essential is read there. Everything runs in a mount namespace in which both are empty.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import authority
from support.environment import clean_environment
from support.program import program
from support.waiting import PATIENCE, until

from fastlisten.runtime.tls.pem import PemError

EMPTY = "mount -t tmpfs -o ro none /proc && mount -t tmpfs -o ro none /sys"

WRAPPER = ("unshare", "--mount", "sh", "-c", f'{EMPTY} && exec "$@"', "sh")

LISTENER = """
[server.listener.it]
protocol = "smtp"
bind = "127.0.0.1:{port}"
"""


@functools.cache
def _possible() -> bool:
    if os.geteuid() != 0:
        return False
    try:
        return subprocess.run([*WRAPPER, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def in_namespace(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs programs without /proc."""
    missing = pytest.mark.skipif(not _possible(), reason="needs root and mount namespaces")
    marked: Callable[..., None] = pytest.mark.netns(missing(test))
    return marked


def fastlisten(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WRAPPER, sys.executable, "-m", "fastlisten", *map(str, arguments)],
        env=clean_environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    text = f'[server]\nhostname = "mx.example.org"\ndata-directory = "{tmp_path / "data"}"\n'
    (tmp_path / "mail.toml").write_text(text + LISTENER.format(port=0))
    return tmp_path / "mail.toml"


@in_namespace
def test_serves_with_tls_and_reloads_certificates(tmp_path: Path) -> None:
    first, second = authority().sign("one.example.org"), authority().sign("two.example.org")
    pem = tmp_path / "pem"
    pem.write_bytes(first.cert + first.key)
    text = LISTENER.format(port=0)
    text += f'[certificate.a]\ncert = "file://{pem}"\nprivate-key = "file://{pem}"\n'

    def shown(port: int) -> bytes:
        with smtplib.SMTP("127.0.0.1", port, "c.example.com", timeout=PATIENCE) as client:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            client.starttls(context=context)
            client.sendmail("s@example.com", ["alice@example.org"], b"Subject: x\r\n\r\n")
            assert isinstance(client.sock, ssl.SSLSocket)
            shown = client.sock.getpeercert(binary_form=True)
        assert shown is not None
        return shown

    with program(tmp_path, text, wrapper=WRAPPER) as started:
        assert not os.listdir(f"/proc/{started.pid}/root/proc")
        assert shown(started.port()) == ssl.PEM_cert_to_DER_cert(first.cert.decode())
        pem.write_bytes(second.cert + second.key)
        started.signal(signal.SIGHUP)
        until(lambda: re.search(r"SIGHUP(?s:.*)has been replaced", started.err), "the reload")
        assert shown(started.port()) == ssl.PEM_cert_to_DER_cert(second.cert.decode())
        assert len(started.messages()) == 2
        assert started.stop() == 0
        assert "Traceback" not in started.err


@in_namespace
def test_other_commands_work(config: Path) -> None:
    done = fastlisten("check", config)
    assert (done.returncode, done.stdout) == (0, f"{config}: 1 listener, no errors\n")
    done = fastlisten("show", "--effective", config)
    assert done.returncode == 0
    assert "SO_REUSEADDR" in done.stdout
    done = fastlisten("account", "add", "a@example.org", "--generate", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    done = fastlisten("account", "list", "--config", config)
    assert (done.returncode, done.stdout) == (0, "a@example.org\n")


@in_namespace
def test_address_in_use_without_its_holder(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        config.write_text(config.read_text().replace(":0", f":{port}"))
        done = fastlisten("serve", config)
    assert done.returncode == 3
    line = [line for line in done.stderr.splitlines() if line.startswith("error:")][-1]
    assert f"127.0.0.1:{port}" in line
    assert "ddress already in use" in line
    assert "held by" not in line
    assert "Traceback" not in done.stderr


@in_namespace
def test_limits_above_the_descriptor_limit_warn(tmp_path: Path) -> None:
    limited = ("sh", "-c", 'ulimit -n 600; exec "$@"', "sh", *WRAPPER)
    text = LISTENER.format(port=0) + "max-connections = 500\ntls.enable = false\n"
    with program(tmp_path, text, wrapper=limited) as started:
        assert started.stop() == 0
        assert "add up to 500, but this process may open 600 files" in started.err


def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda p: not str(p).startswith("/proc") and exists(p))


def test_key_is_briefly_in_a_private_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_proc(monkeypatch)
    seen: list[str] = []

    class Context(ssl.SSLContext):
        def load_cert_chain(self, cert: str, key: str, **how: object) -> None:  # type: ignore[override]
            for name in (cert, key):
                assert stat.S_IMODE(os.stat(name).st_mode) == 0o600
                seen.append(name)
            super().load_cert_chain(cert, key)

    authority().sign("mx.example.org").load_into(Context(ssl.PROTOCOL_TLS_SERVER))
    # Without shared memory, too.
    monkeypatch.setattr("fastlisten.runtime.tls.pem._SHARED_MEMORY", str(tmp_path / "nothing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    authority().sign("mx.example.org").load_into(Context(ssl.PROTOCOL_TLS_SERVER))
    assert [os.path.dirname(name) for name in seen] == ["/dev/shm"] * 2 + [str(tmp_path)] * 2
    assert not [name for name in seen if os.path.lexists(name)]


def test_key_that_cannot_be_stored_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_proc(monkeypatch)
    monkeypatch.setattr("fastlisten.runtime.tls.pem._SHARED_MEMORY", str(tmp_path / "nothing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))
    with pytest.raises(PemError, match="neither /proc nor a directory for temporary files"):
        authority().sign("mx.example.org").load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
