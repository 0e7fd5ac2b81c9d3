"""Certificates of a running `fastlisten serve`: renewed by SIGHUP, broken, missing, self-signed."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from support.certificates import Authority, authority, rsa_key, table, write
from support.environment import clean_environment
from support.marks import external
from support.page_samples import WHOLE
from support.program import program, run
from support.tls_probes import HOST, ask, client, context, lines, read_to_end, s_client
from support.waiting import PATIENCE, until

from fastlisten.runtime.tls.pem import KeyPair, fingerprint

TELL = (
    '[server.listener.it]\nprotocol = "http"\nbind = "127.0.0.1:0"\ntls.implicit = true\n'
    'handler = "support.tls_handlers:Tell"\n'
)
SMTP = '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
SIGHUP = "SIGHUP: reloading"


def shown(port: int) -> bytes:
    with client(port) as one:
        found = one.getpeercert(True)
    assert found is not None
    return found


def der(pair: KeyPair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.cert.decode())


# --- SIGHUP -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_renewal_while_a_connection_is_open(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """The new certificate has another kind of key, which cannot be replaced in a context in use."""
    old = authority().sign("mx.example.org", key=rsa_key())
    new = authority().sign("mx.example.org")
    write(tmp_path, old)
    returning = context(minimum_version=version, maximum_version=version)
    with program(tmp_path, table(tmp_path) + TELL) as started:
        port = started.port()
        with client(port, returning) as open_one:
            assert ask(open_one)["reused"] is False
            session = open_one.session
            write(tmp_path, new)
            started.signal(signal.SIGHUP)
            until(lambda: lines(started, "has been replaced"), "the line of the renewal")
            # Connected clients go on, new ones see the new certificate.
            assert ask(open_one)["tls"] is True
            assert open_one.getpeercert(True) == der(old)
            assert shown(port) == der(new)
            # Sessions of earlier clients are resumed.
            with client(port, returning, session=session) as again:
                assert ask(again)["reused"] is True
        assert started.stop() == 0
        assert lines(started, "SIGHUP") == [f"INFO fastlisten: {SIGHUP}"]
        assert lines(started, "has been replaced") == [
            f'INFO fastlisten: certificate "default" has been replaced: valid until '
            f"{new.valid()[1]:%Y-%m-%d}, SHA-256 {fingerprint(new.cert)}"
        ]
        assert "WARNING" not in started.err


def test_broken_renewal_keeps_the_old_certificate(tmp_path: Path) -> None:
    old, new = (authority().sign("mx.example.org") for _ in range(2))
    _, key = write(tmp_path, old)
    with program(tmp_path, table(tmp_path) + TELL) as started:
        port = started.port()
        with client(port) as open_one:
            key.write_bytes(new.key)
            started.signal(signal.SIGHUP)
            until(lambda: lines(started, "ERROR"), "the report")
            assert shown(port) == der(old)
            assert ask(open_one)["tls"] is True
        write(tmp_path, new)
        started.signal(signal.SIGHUP)
        until(lambda: lines(started, "has been replaced"), "the line of the renewal")
        assert shown(port) == der(new)
        assert started.stop() == 0
        assert lines(started, "ERROR") == [
            f"ERROR fastlisten: {tmp_path}/mail.toml:6: certificate.default.private-key = "
            f'"file://{key}": the private key does not match the certificate (listener "it"); '
            "still using what was loaded before",
            f"ERROR fastlisten: reloaded {tmp_path}/mail.toml: 1 problem with certificates",
        ]


def test_new_client_authorities(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx.example.org"))
    other = Authority.make("other")
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    mine = authority().client_context(authority().sign("alice", client=True))
    text = table(tmp_path) + TELL + f'tls.client-ca = "{tmp_path}/ca.pem"\n'
    with program(tmp_path, text) as started:
        port = started.port()
        with client(port, mine) as one:
            assert ask(one)["client"]
            (tmp_path / "ca.pem").write_bytes(other.pem)
            started.signal(signal.SIGHUP)
            until(lambda: lines(started, "have changed"), "the line of the change")
            assert ask(one)["client"]
        with pytest.raises((ssl.SSLError, ConnectionError)), client(port, mine) as one:
            ask(one)
        theirs = authority().client_context(other.sign("bob", client=True))
        with client(port, theirs) as one:
            assert ask(one)["client"]["subject"] == [[["commonName", "bob"]]]
        assert started.stop() == 0


@pytest.mark.parametrize("body", ["tls.enable = false\n", ""])
def test_sighup_without_changes(tmp_path: Path, body: str) -> None:
    """It must not end a server, least of all one without TLS."""
    with program(tmp_path, SMTP + body) as started:
        for count in (1, 2):
            started.signal(signal.SIGHUP)
            until(lambda: len(lines(started, "no changes in")) == count, "the answer")  # noqa: B023
        with socket.create_connection((HOST, started.port()), PATIENCE) as one:
            assert one.recv(100).startswith(b"220 ")
        assert started.stop() == 0
        files = "" if body else " and 1 file with certificates"
        answer = f"INFO fastlisten: no changes in {tmp_path}/mail.toml{files}"
        assert lines(started, "no changes in") == [answer] * 2


# --- the self-signed one ----------------------------------------------------------------------


@external("openssl")
def test_self_signed_certificate_is_made_and_kept(tmp_path: Path) -> None:
    """It is logged with its fingerprint, shown to clients, and the same after a restart."""
    prints = []
    for _ in range(2):
        with program(tmp_path, TELL) as started:
            path = tmp_path / "data" / "self-signed.pem"
            until(lambda: lines(started, "SHA-256"), "the fingerprint")
            (line,) = lines(started, "SHA-256")
            assert line.startswith("WARNING fastlisten: no certificate is configured (listener ")
            assert f"kept in {path}; SHA-256 " in line
            prints.append(line.rpartition(" ")[2])
            seen = s_client(started.port(), "-showcerts", "-servername", "localhost")
            assert fingerprint(seen.text.encode()) == prints[-1]
            assert re.search("subject=CN ?= ?mx.example.org", seen.text)
            assert os.stat(path).st_mode & 0o777 == 0o600
            assert started.stop() == 0
    assert prints[0] == prints[1]


def test_two_servers_started_together_share_the_certificate(tmp_path: Path) -> None:
    (tmp_path / "mail.toml").write_text(
        f'[server]\ndata-directory = "{tmp_path}/data"\nhostname = "mx.example.org"\n' + TELL
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "fastlisten", "serve", str(tmp_path / "mail.toml")],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    prints = set()
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline().startswith('listener "it": http on 127.0.0.1:')
    for process in started:
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        prints |= set(re.findall(r"SHA-256 ([0-9A-F:]{95})", err))
    assert len(prints) == 1
    assert os.listdir(tmp_path / "data") == ["self-signed.pem"]


def test_complete_sample_runs_except_for_http(tmp_path: Path) -> None:
    """Its last listener's protocol is not available yet; another handler takes its place."""
    text = re.sub(r":\d+\"", ':0"', WHOLE) + 'handler = "support.serving_handlers:Echo"\n'
    with program(tmp_path, text, listeners=4) as started:
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        with client(started.port("submissions"), anybody) as one:
            assert one.recv(100).startswith(b"220 mx.example.org ")
        assert started.stop() == 0


# --- mistakes, and clients that fail ----------------------------------------------------------


def test_all_certificate_mistakes_are_reported(tmp_path: Path) -> None:
    text = (
        '[certificate.x]\ncert = "file://missing.crt"\nprivate-key = "file://missing.key"\n'
        + TELL.replace("Tell", "NoSuchThing")
        + SMTP.replace("it", "other")
    )
    (tmp_path / "mail.toml").write_text(text)
    done = run("serve", tmp_path / "mail.toml", XDG_DATA_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    found = done.stderr.replace(f"{tmp_path}/", "").splitlines()
    assert found[0] == (
        'error: mail.toml:2: certificate.x.cert = "file://missing.crt": cannot be read: '
        'No such file or directory (listeners "it", "other")'
    )
    assert found[1].startswith("error: mail.toml:8: server.listener.it.handler = ")
    assert len(found) == 2


def test_flood_of_failed_handshakes_makes_few_log_lines(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx.example.org"))
    with program(tmp_path, table(tmp_path) + TELL) as started:
        port = started.port()
        for _ in range(200):
            with socket.create_connection((HOST, port), PATIENCE) as one:
                one.sendall(b"\x16\x03\x01\x00\x05hello and nothing that makes sense")
                read_to_end(one)
        assert shown(port)
        assert started.stop() == 0
        found = lines(started, "handshake")
        counted = [int(re.findall(r": (\d+) TLS handshake", line)[0]) for line in found]
        assert sum(counted) == 200
        assert len(found) < 50
        assert all(line.startswith('INFO fastlisten: listener "it": ') for line in found)
        assert all("failed, the first with [127.0.0.1]:" in line for line in found)


def test_drain_reply_is_encrypted(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx.example.org"))
    with program(tmp_path, table(tmp_path) + TELL) as started:
        with client(started.port()) as idle, client(started.port()) as busy:
            ask(idle)
            busy.sendall(b"begin")
            assert busy.recv(5) == b"begin"
            started.signal()
            assert read_to_end(idle) == b"farewell: shutdown\n"
            busy.sendall(b"end")
            assert read_to_end(busy) == b"endfarewell: shutdown\n"
        assert started.ended() == 0
