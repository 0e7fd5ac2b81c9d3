"""The self-signed certificate: made once, readable by its owner only, shared by all processes."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.certificates import shake
from support.marks import external
from support.without_cryptography import no_library  # noqa: F401  (a fixture)

from fastlisten.runtime.tls import self_signed
from fastlisten.runtime.tls.pem import KeyPair, PemError
from fastlisten.runtime.tls.self_signed import FILE_NAME, MissingLibraryError, check_possible, keep

pytestmark = pytest.mark.usefixtures("descriptors_back")


def certificate(pair: KeyPair) -> x509.Certificate:
    (found,) = x509.load_pem_x509_certificates(pair.cert)
    return found


# --- contents ---------------------------------------------------------------------------------


def test_fields_of_the_certificate() -> None:
    pair = self_signed.generate("mx.example.org")
    it = certificate(pair)
    assert isinstance(it.public_key(), ec.EllipticCurvePublicKey)
    assert it.subject == it.issuer
    assert [name.value for name in it.subject] == ["mx.example.org"]
    names = it.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mx.example.org", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert not it.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    begins, ends = pair.valid()
    now = datetime.datetime.now(datetime.UTC)
    assert begins < now < ends
    assert (ends - now).days in (3649, 3650)
    assert self_signed.generate("mx.example.org") != pair


@pytest.mark.parametrize("name", ["mx.example.org", "localhost", "127.0.0.1", "::1"])
def test_clients_can_trust_it(name: str) -> None:
    pair = self_signed.generate("mx.example.org")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair.load_into(server)
    client = ssl.create_default_context(cadata=pair.cert.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert shake(server, client, name).client.getpeercert()
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, client, "mx.example.net")


@pytest.mark.parametrize(
    ("hostname", "common"),
    [
        ("localhost", "localhost"),
        ("mx.example.org.", "mx.example.org."),
        (".".join(["label"] * 20) + ".org", "localhost"),
    ],
)
def test_special_host_names(hostname: str, common: str) -> None:
    it = certificate(self_signed.generate(hostname))
    (name,) = it.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == common
    names = it.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = names.get_values_for_type(x509.DNSName)
    assert hosts[0] == hostname.removesuffix(".")
    assert len(hosts) == len(set(hosts))


# --- storage ----------------------------------------------------------------------------------


def test_certificate_is_made_once(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    first = keep(str(directory), "mx.example.org")
    assert first.made
    assert first.path == str(directory / FILE_NAME)
    assert stat.S_IMODE(os.stat(first.path).st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    before = os.stat(first.path)
    # Another name does not make a new one.
    second = keep(str(directory), "other.example.org")
    assert not second.made
    assert os.stat(first.path) == before
    assert certificate(second.pair) == certificate(first.pair)
    assert os.listdir(directory) == [FILE_NAME]
    second.pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def test_file_mode_with_a_loose_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = keep(str(tmp_path / "data"), "mx.example.org")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


@external("openssl")
def test_openssl_reads_the_file(tmp_path: Path) -> None:
    path = keep(str(tmp_path), "mx.example.org").path
    for command in (("x509", "-noout"), ("pkey", "-noout"), ("verify", "-CAfile", path)):
        subprocess.run(
            ["openssl", *command, *(["-in"] if command[0] != "verify" else []), path],
            check=True,
            capture_output=True,
            timeout=30,
        )


def test_slower_process_uses_the_certificate_of_the_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process links its file between our check and our link."""
    generate = self_signed.generate
    others = []

    def slow(hostname: str) -> KeyPair:
        with monkeypatch.context() as undone:
            undone.setattr(self_signed, "generate", generate)
            others.append(keep(str(tmp_path), hostname))
        return generate(hostname)

    monkeypatch.setattr(self_signed, "generate", slow)
    mine = keep(str(tmp_path), "mx.example.org")
    (other,) = others
    assert (mine.made, other.made) == (False, True)
    assert certificate(mine.pair) == certificate(other.pair)
    assert os.listdir(tmp_path) == [FILE_NAME]


_KEEP = """
import ssl, sys
from fastlisten.runtime.tls.pem import fingerprint
from fastlisten.runtime.tls.self_signed import generate, keep
generate("warm.example")
print("ready", flush=True)
sys.stdin.readline()
kept = keep(sys.argv[1], "mx.example.org")
kept.pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
print(kept.made, fingerprint(kept.pair.cert))
"""


def test_processes_started_together_share_it(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _KEEP, str(tmp_path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(3)
        ]
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [process.communicate(timeout=60)[0].split() for process in started]
    assert sorted(made for made, _ in found) == ["False", "False", "True"]
    assert len({print_ for _, print_ in found}) == 1
    assert os.listdir(tmp_path) == [FILE_NAME]


# --- failures ---------------------------------------------------------------------------------


def test_foreign_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("")
    with pytest.raises(PemError, match="neither a certificate nor a key"):
        keep(str(tmp_path), "mx.example.org")
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).symlink_to("nowhere")
    with pytest.raises(PemError, match="cannot be read: No such file"):
        keep(str(tmp_path), "mx.example.org")


def test_unwritable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        keep(str(tmp_path / "file"), "mx.example.org")


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keep(str(tmp_path), "mx.example.org")
    assert os.listdir(tmp_path) == []


def test_without_cryptography(tmp_path: Path, no_library: None) -> None:  # noqa: F811
    for fails in (lambda: keep(str(tmp_path), "x"), lambda: check_possible(str(tmp_path))):
        with pytest.raises(MissingLibraryError) as caught:
            fails()
        assert "pip install 'fastlisten[tls]'" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_existing_certificate_needs_no_cryptography(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = keep(str(tmp_path), "x")
    request.getfixturevalue("no_library")
    check_possible(str(tmp_path))
    kept = keep(str(tmp_path), "x")
    assert not kept.made
    assert kept.pair.valid() == made.pair.valid()


def test_cryptography_is_imported_lazily() -> None:
    code = "import fastlisten, fastlisten.testing, fastlisten.cli.serve, sys\n"
    code += "sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
