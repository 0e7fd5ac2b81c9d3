"""PEM texts: what is accepted, errors about the rest, and a certificate's dates."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from support.certificates import Authority, Key, authority, ec_key, key_pem, rsa_key, shake
from support.marks import external

from fastlisten.runtime.tls.pem import (
    KeyPair,
    PemError,
    authorities,
    fingerprint,
    read_source,
    source_file,
)

pytestmark = pytest.mark.usefixtures("descriptors_back")

TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8


def server_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def pair(key: Key | None = None) -> KeyPair:
    return authority().sign("mx.example.org", key=key)


# --- accepted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [PKCS8, TRADITIONAL])
@pytest.mark.parametrize("kind", [ec_key, rsa_key])
def test_keys_of_every_form(kind: type, form: serialization.PrivateFormat) -> None:
    key = kind()
    KeyPair(pair(key).cert, key_pem(key, form)).load_into(server_context())


def test_surrounding_text_and_windows_line_ends() -> None:
    good = pair()
    cert = b"subject=CN = mx \xe4\n" + good.cert + b"\nissuer=...\n" + authority().pem
    key = b"Bag Attributes\n" + good.key
    for change in (bytes, lambda text: text.replace(b"\n", b"\r\n")):
        taken = KeyPair(change(cert), change(key))
        taken.load_into(server_context())
        assert fingerprint(taken.cert) == fingerprint(good.cert)
        assert taken.valid() == good.valid()


def test_one_file_with_certificate_and_key() -> None:
    good = pair()
    for text in (good.key + good.cert, good.cert + good.key):
        KeyPair(text, text).load_into(server_context())


def test_key_comes_from_the_key_file() -> None:
    """Not another one in the certificate's file."""
    good = pair()
    KeyPair(key_pem(ec_key()) + good.cert, good.key).load_into(server_context())


def test_whole_chain_is_shown() -> None:
    between = Authority.make("between", authority())
    leaf = between.sign("mx.example.org")
    context = server_context()
    KeyPair(leaf.cert + between.pem, leaf.key).load_into(context)
    assert shake(context, authority().client_context(), "mx.example.org").client.version()


# --- rejected ---------------------------------------------------------------------------------


def refusal(cert: bytes, key: bytes) -> tuple[str, bool]:
    with pytest.raises(PemError) as caught:
        KeyPair(cert, key).load_into(server_context())
    return str(caught.value), caught.value.of_key


def test_invalid_certificate() -> None:
    good = pair()
    der = ssl.PEM_cert_to_DER_cert(good.cert.decode())
    for text in (b"", b"hello", der, good.key, good.cert.replace(b"END CERT", b"END CART")):
        assert refusal(text, good.key) == ("it contains no PEM certificate", False)


def test_invalid_key() -> None:
    good = pair()
    for text in (b"", b"hello", good.cert):
        assert refusal(good.cert, text) == ("it contains no PEM private key", True)


@pytest.mark.parametrize("form", [PKCS8, TRADITIONAL])
def test_encrypted_key_is_rejected_without_a_prompt(
    form: serialization.PrivateFormat,
) -> None:
    key = rsa_key()
    closed = key_pem(key, form, serialization.BestAvailableEncryption(b"secret"))
    message = "the key is encrypted; remove its password"
    assert refusal(pair(key).cert, closed) == (message, True)


def test_key_of_another_certificate() -> None:
    for key in (ec_key(), rsa_key()):
        message = "the private key does not match the certificate"
        assert refusal(pair().cert, key_pem(key)) == (message, True)


def test_damaged_files() -> None:
    good = pair()
    cut = good.cert[:100] + b"\n-----END CERTIFICATE-----\n"
    for text in (cut, good.cert.replace(b"MII", b"???")):
        said, of_key = refusal(good.cert + text, good.key)
        assert (said, of_key) == ("certificate 2 of 2 in it is damaged", False)
    said, of_key = refusal(good.cert, good.key[:60] + b"\n-----END PRIVATE KEY-----\n")
    assert said.startswith("the private key is damaged")
    assert of_key


def test_too_short_key() -> None:
    short = rsa_key(1024)
    said, of_key = refusal(pair(short).cert, key_pem(short))
    assert (said, of_key) == ("the certificate's key is too short to be secure", False)


_GOOD = pair()


@given(
    which=st.sampled_from(["cert", "key"]),
    at=st.integers(0, 2000),
    change=st.binary(max_size=40),
    length=st.integers(0, 200),
)
def test_damage_never_raises_another_error(which: str, at: int, change: bytes, length: int) -> None:
    text = getattr(_GOOD, which)
    at %= len(text)
    damaged = dataclasses.replace(_GOOD, **{which: text[:at] + change + text[at + length :]})
    with contextlib.suppress(PemError):
        damaged.load_into(server_context())
        damaged.valid()
        fingerprint(damaged.cert)


# --- sources ----------------------------------------------------------------------------------


def test_file_and_inline_sources(tmp_path: Path) -> None:
    text = pair().cert.decode()
    file = tmp_path / "x.pem"
    file.write_text(text)
    assert (source_file(text), read_source(text)) == ("", text.encode())
    assert source_file(f"file://{file}") == str(file)
    assert read_source(f"file://{file}") == text.encode()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def said(path: object) -> str:
        with pytest.raises(PemError) as caught:
            read_source(f"file://{path}")
        return str(caught.value)

    assert said(tmp_path / "none") == "cannot be read: No such file or directory"
    assert said(tmp_path) == "cannot be read: Is a directory"
    assert said("/a\0b") == "cannot be read: invalid file name"
    assert said("/dev/zero") == "cannot be read: it is a character device, not a regular file"
    (tmp_path / "large").write_bytes(bytes((4 << 20) + 1))
    assert said(tmp_path / "large") == (
        "cannot be read: it is larger than 4 MiB, too large for a certificate"
    )


def test_client_authorities() -> None:
    other = Authority.make("other")
    text = authorities(b"# ours \xff\n" + authority().pem + other.pem)
    context = server_context()
    context.load_verify_locations(cadata=text)
    assert context.cert_store_stats()["x509_ca"] == 2
    with pytest.raises(PemError, match="it contains no PEM certificate"):
        authorities(pair().key)
    with pytest.raises(PemError, match="certificate 2 of 2 in it is damaged"):
        authorities(other.pem + authority().pem.replace(b"MII", b"???"))


# --- contents of a certificate ----------------------------------------------------------------


@pytest.mark.parametrize("first", [1951, 1999, 2000, 2049])
@pytest.mark.parametrize("last", [2049, 2050, 2345, 9999])
def test_dates_with_two_and_four_digit_years(first: int, last: int) -> None:
    """Years up to 2049 have two digits in a certificate, later ones four."""
    begins = datetime.datetime(first, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    ends = datetime.datetime(last, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    made = authority().sign("x", first=begins, last=ends)
    assert made.valid() == (begins, ends)
    assert x509.load_pem_x509_certificate(made.cert).not_valid_after_utc == ends


@external("openssl")
def test_fingerprint_agrees_with_openssl(tmp_path: Path) -> None:
    file = tmp_path / "x.pem"
    file.write_bytes(pair().cert)
    command = ("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", os.fspath(file))
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert shown.strip().partition("=")[2] == fingerprint(file.read_bytes())
