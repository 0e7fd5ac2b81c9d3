"""PEM files as the openssl program makes them: every label, and what else the files contain.

Rules of this file: files are made by openssl, not by hand. What OpenSSL loads by itself, we load,
and a client sees the same certificate; where we accept more than OpenSSL, a test says so.
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import shake

from fastlisten.runtime.tls.pem import KeyPair, PemError, authorities, fingerprint

pytestmark = [
    pytest.mark.external("openssl"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl"),
]

NAME = "mx.example.org"


def openssl(*arguments: str | Path, feed: bytes = b"") -> bytes:
    """Run openssl; return its standard output."""
    path = shutil.which("openssl")
    assert path is not None
    done = subprocess.run([path, *map(str, arguments)], input=feed, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Files:
    """A key and its self-signed certificate."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self.folder = folder
        self.key = key
        self.key_file = self.write("key.pem", key)
        self.cert = openssl(
            *("req", "-x509", "-key", self.key_file, "-days", "30", "-subj", f"/CN={NAME}"),
            *("-addext", f"subjectAltName=DNS:{NAME}"),
        )
        self.cert_file = self.write("cert.pem", self.cert)

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def trusted(self, *options: str) -> bytes:
        text = openssl("x509", "-in", self.cert_file, "-trustout", *options)
        assert text.startswith(b"-----BEGIN TRUSTED CERTIFICATE-----")
        return text


def ec(*options: str) -> bytes:
    return openssl("ecparam", "-name", "prime256v1", "-genkey", *options)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, ec("-noout"))


def load_and_serve(files: Files, cert: bytes, key: bytes) -> None:
    """Load both, and let a client that trusts the certificate do a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = KeyPair(cert, key)
    pair.load_into(context)
    shown = openssl("x509", "-in", files.cert_file, "-noout", "-fingerprint", "-sha256").decode()
    assert fingerprint(pair.cert) == shown.strip().rpartition("=")[2]
    assert pair.valid()[0] < pair.valid()[1]
    client = ssl.create_default_context(cadata=files.cert.decode())
    assert shake(context, client, NAME).client.version() == "TLSv1.3"


def openssl_loads(files: Files, cert: bytes, key: bytes) -> bool:
    cert_file, key_file = files.write("c", cert), files.write("k", key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file)
    except ssl.SSLError:
        return False
    return True


# --- keys -----------------------------------------------------------------------------------------

RSA = ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")

KEYS: dict[str, tuple[bytes, Callable[[], bytes]]] = {
    "pkcs8": (b"PRIVATE KEY", lambda: openssl(*RSA)),
    "rsa": (b"RSA PRIVATE KEY", lambda: openssl("rsa", "-traditional", feed=openssl(*RSA))),
    "ec": (b"EC PRIVATE KEY", lambda: ec("-noout")),
    "ec-parameters": (b"EC PARAMETERS", ec),
    "ed25519": (b"PRIVATE KEY", lambda: openssl("genpkey", "-algorithm", "ED25519")),
    "with-text": (b"PRIVATE KEY", lambda: openssl("pkey", "-text", feed=openssl(*RSA))),
}


@pytest.mark.parametrize("kind", KEYS)
def test_key_labels(tmp_path: Path, kind: str) -> None:
    label, make = KEYS[kind]
    files = Files(tmp_path, make())
    assert b"-----BEGIN " + label + b"-----" in files.key
    assert openssl_loads(files, files.cert, files.key)
    load_and_serve(files, files.cert, files.key)


def test_key_that_openssl_rejects(files: Files) -> None:
    key = files.key.replace(b"EC PRIVATE", b"OPENSSH PRIVATE")
    assert not openssl_loads(files, files.cert, key)
    with pytest.raises(PemError, match="OpenSSH's format") as caught:
        load_and_serve(files, files.cert, key)
    assert caught.value.of_key


def test_encrypted_key_after_the_first(files: Files) -> None:
    """The first one is used, by OpenSSL too."""
    closed = openssl("pkey", "-aes256", "-passout", "pass:x", feed=files.key)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in closed
    assert openssl_loads(files, files.cert, files.key + closed)
    load_and_serve(files, files.cert, files.key + closed)
    with pytest.raises(PemError, match="the key is encrypted"):
        load_and_serve(files, files.cert, closed + files.key)


# --- certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-addtrust", "serverAuth", "-setalias", "front")])
def test_trusted_certificate_label(files: Files, options: tuple[str, ...]) -> None:
    cert = files.trusted(*options)
    assert openssl_loads(files, cert, files.key)
    load_and_serve(files, cert, files.key)


def test_x509_certificate_label(files: Files) -> None:
    cert = files.cert.replace(b" CERTIFICATE-", b" X509 CERTIFICATE-")
    assert openssl_loads(files, cert, files.key)
    load_and_serve(files, cert, files.key)


def test_chain_with_all_labels(files: Files, tmp_path: Path) -> None:
    """OpenSSL leaves a trusted certificate out of a chain; we send it."""
    (tmp_path / "other").mkdir()
    other = Files(tmp_path / "other", ec("-noout"))
    chain = other.cert.replace(b" CERTIFICATE-", b" X509 CERTIFICATE-") + other.trusted()
    load_and_serve(files, files.trusted() + chain, files.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    KeyPair(files.cert + chain, files.key).load_into(context)
    client = ssl.create_default_context(cadata=files.cert.decode())
    seen = shake(context, client, NAME).client._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    assert len(seen) == 3


def parameters() -> bytes:
    made = openssl("genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048")
    assert b"BEGIN DH PARAMETERS" in made or b"BEGIN X9.42 DH PARAMETERS" in made
    return made


def both(files: Files) -> bytes:
    """Return the output of `openssl pkcs12`: with "Bag Attributes", the key after the
    certificate."""
    box = openssl(
        *("pkcs12", "-export", "-inkey", files.key_file, "-in", files.cert_file),
        *("-passout", "pass:x", "-name", "front"),
    )
    text = openssl("pkcs12", "-nodes", "-passin", "pass:x", feed=box)
    assert b"Bag Attributes" in text
    return text


BESIDE: dict[str, Callable[[Files, bytes], bytes]] = {
    "as-it-is": lambda files, text: text,
    "dh-parameters": lambda files, text: text + parameters(),
    "dh-parameters-first": lambda files, text: parameters() + text,
    "text": lambda files, text: openssl("x509", "-text", feed=files.cert) + text,
    "windows": lambda files, text: text.replace(b"\n", b"\r\n"),
    "no-last-newline": lambda files, text: text.rstrip(b"\n"),
    "byte-order-mark": lambda files, text: b"\xef\xbb\xbf" + text,
    "pkcs12": lambda files, text: both(files),
}


@pytest.mark.parametrize("how", BESIDE)
def test_other_blocks_are_ignored(files: Files, how: str) -> None:
    cert, key = (BESIDE[how](files, text) for text in (files.cert, files.key))
    assert openssl_loads(files, cert, key)
    load_and_serve(files, cert, key)


# --- authorities of clients -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-setalias", "ours"),
        ("-addtrust", "clientAuth"),
        ("-addtrust", "anyExtendedKeyUsage"),
        ("-addreject", "serverAuth"),
    ],
)
def test_trusted_certificate_as_client_authority(files: Files, options: tuple[str, ...]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(cadata=authorities(files.trusted(*options)))
    assert context.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize(
    "options",
    [
        ("-addtrust", "serverAuth"),
        ("-addreject", "clientAuth"),
        ("-addtrust", "clientAuth", "-addreject", "anyExtendedKeyUsage"),
    ],
)
def test_rejected_certificate_as_client_authority(files: Files, options: tuple[str, ...]) -> None:
    """OpenSSL would not trust it; nor do we, who drop what follows the certificate."""
    with pytest.raises(PemError, match="certificate 2 of 2 in it is not trusted for clients"):
        authorities(files.cert + files.trusted(*options))


def test_truncated_trusted_certificate(files: Files) -> None:
    text = files.trusted("-addtrust", "serverAuth").replace(b"TRUSTED ", b"")
    der = ssl.PEM_cert_to_DER_cert(text.decode())
    cut = ssl.DER_cert_to_PEM_cert(der[:-3]).replace(" CERT", " TRUSTED CERT").encode()
    with pytest.raises(PemError, match=r"certificate 1 of 1 in it is (damaged|not trusted)"):
        authorities(cut)
