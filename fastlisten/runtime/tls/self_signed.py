"""The self-signed certificate of a server without a configured one: created once and kept.

Rules of this file: key and certificate are in one file, so that they always match. If several
processes start at the same time, all use what the first one created. The package `cryptography` is
imported only to create a certificate.
"""

from __future__ import annotations

import datetime
import importlib.util
import ipaddress
import os
from dataclasses import dataclass

from fastlisten.private_files import create_once
from fastlisten.runtime.tls.pem import KeyPair, PemError, read_source

__all__ = [
    "FILE_NAME",
    "MissingLibraryError",
    "SelfSigned",
    "check_possible",
    "generate",
    "keep",
    "try_to_keep",
]

#: Name of the file in the data directory.
FILE_NAME = "self-signed.pem"

#: How long it is valid. Clients cannot verify it, only remember it, so it should stay the same for
#: the life of the server rather than be renewed.
_DAYS = 3650

#: It is valid from the day before, for clients whose clocks are behind.
_DAYS_BEFORE = 1

#: X.520's upper bound for a common name, in characters. Longer host names are only in the
#: alternative names, which clients check (RFC 6125 6.4.4).
_LONGEST_NAME = 64


class MissingLibraryError(Exception):
    """The package that creates certificates is not installed; the text says how to install it."""

    def __init__(self) -> None:
        super().__init__(
            "creating a self-signed certificate needs the package cryptography: "
            "pip install 'fastlisten[tls]'"
        )


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """A certificate that is kept in a file.

    Attributes:
        path: the file, which also contains the key.
        pair: its content.
        made: it has just been created.
    """

    path: str
    pair: KeyPair
    made: bool


def keep(directory: str, hostname: str) -> SelfSigned:
    """Return the self-signed certificate of a data directory; create it if there is none.

    Args:
        directory: created if it does not exist.
        hostname: the name in a new certificate; an existing one is not changed.

    Raises:
        MissingLibraryError: it does not exist, and the library to create it is missing.
        PemError: the file cannot be read.
        OSError: the file cannot be written.
    """
    path = os.path.join(directory, FILE_NAME)
    if os.path.lexists(path):
        return SelfSigned(path, _read(path), False)
    made = generate(hostname)
    content = made.key + made.cert
    if not os.path.exists(directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    created = create_once(path, content)
    # As a reload reads it, so that it finds no change.
    return SelfSigned(path, _read(path), created)


def try_to_keep(directory: str, hostname: str) -> SelfSigned:
    """Return what `keep` would return, without writing a file."""
    path = os.path.join(directory, FILE_NAME)
    if os.path.lexists(path):
        return SelfSigned(path, _read(path), False)
    return SelfSigned(path, generate(hostname), True)


def check_possible(directory: str) -> None:
    """Check that `keep` has the library it may need.

    Raises:
        MissingLibraryError: there is no certificate in the directory and none can be created.
    """
    kept = os.path.lexists(os.path.join(directory, FILE_NAME))
    if not kept and importlib.util.find_spec("cryptography") is None:
        raise MissingLibraryError


def _read(path: str) -> KeyPair:
    content = read_source(f"file://{path}")
    if not content:
        raise PemError("it contains neither a certificate nor a key")
    return KeyPair(content, content)


def generate(hostname: str) -> KeyPair:
    """Return a new certificate and key for a host name and the names and addresses of loopback.

    Raises:
        MissingLibraryError: the package `cryptography` is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:
        raise MissingLibraryError from None

    key = ec.generate_private_key(ec.SECP256R1())
    common = hostname if len(hostname) <= _LONGEST_NAME else "localhost"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    hosts = dict.fromkeys((hostname.removesuffix("."), "localhost"))
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    names += [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=_DAYS_BEFORE))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return KeyPair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
