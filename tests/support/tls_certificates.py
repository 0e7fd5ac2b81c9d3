"""Certificates for the tests of TLS: made when the first test asks, gone with the process.

Rules of this file: no key is older than a test run and none is written outside a temporary
directory. Names are those of loopback; nothing here is a model for certificates of the world.
"""

from __future__ import annotations

import atexit
import datetime
import functools
import ipaddress
import os
import shutil
import ssl
import tempfile
from dataclasses import dataclass
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_Key: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

#: The name in the servers' certificates, besides the addresses of loopback.
HOST = "localhost"
#: The name in the client's certificate.
CLIENT = "client.test"


@dataclass(frozen=True)
class Certificates:
    """File names of one authority and what it has signed.

    Attributes:
        authority: its own certificate.
        rsa, p256: a server's private key and certificate, RSA of 2048 bits and ECDSA on P-256.
        client: the same of a client.
        stranger: a client's, signed by nobody we trust.
    """

    authority: str
    rsa: str
    p256: str
    client: str
    stranger: str


class _Issuer:
    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self.key, self.name, authority=True)

    def _sign(
        self, key: _Key, subject: x509.Name, *, authority: bool = False, client: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        names: list[x509.GeneralName] = [x509.DNSName(CLIENT if client else HOST)]
        if not client:
            names += [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=authority,
                    crl_sign=authority,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if not authority:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(names), critical=False
            ).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def write_own(self) -> str:
        """Write the authority's certificate; return the file's name."""
        path = os.path.join(self.folder, "authority.pem")
        with open(path, "wb") as file:
            file.write(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def write(self, file_name: str, key: _Key, *, client: bool = False) -> str:
        """Sign and write key and certificate into one file; return its name."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CLIENT if client else HOST)])
        certificate = self._sign(key, name, client=client)
        path = os.path.join(self.folder, file_name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            file.write(certificate.public_bytes(serialization.Encoding.PEM))
        return path


@functools.cache
def certificates() -> Certificates:
    """Return this process's certificates, made at the first call."""
    # Not a TemporaryDirectory, which a forked child that ends would remove under its parent.
    folder = tempfile.mkdtemp(prefix="tls-tests-")
    owner = os.getpid()
    atexit.register(
        lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None
    )
    ours = _Issuer(folder, "authority of the tests")
    theirs = _Issuer(folder, "nobody")
    return Certificates(
        authority=ours.write_own(),
        rsa=ours.write("rsa.pem", rsa.generate_private_key(65537, 2048)),
        p256=ours.write("p256.pem", ec.generate_private_key(ec.SECP256R1())),
        client=ours.write("client.pem", ec.generate_private_key(ec.SECP256R1()), client=True),
        stranger=theirs.write("stranger.pem", ec.generate_private_key(ec.SECP256R1()), client=True),
    )


def server_context(
    *,
    key: str = "p256",
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ask_client: bool = False,
    alpn: tuple[str, ...] = (),
) -> ssl.SSLContext:
    """Return a server's context.

    Args:
        key: "p256" or "rsa".
        newest: the newest version that it speaks.
        ask_client: clients need a certificate of our authority.
        alpn: names of application protocols (RFC 7301), the preferred first.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = newest
    # What the self-signed and the configured certificates of the product get, too.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.load_cert_chain(getattr(certificates(), key))
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates().authority)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def client_context(
    *,
    version: ssl.TLSVersion | None = None,
    certificate: str = "",
    alpn: tuple[str, ...] = (),
) -> ssl.SSLContext:
    """Return a client's context that trusts our authority.

    Args:
        version: the only version it speaks, None for 1.2 and 1.3.
        certificate: "client", "stranger", or empty for none.
        alpn: names of application protocols.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = version or ssl.TLSVersion.TLSv1_2
    if version is not None:
        context.maximum_version = version
    context.load_verify_locations(certificates().authority)
    if certificate:
        context.load_cert_chain(getattr(certificates(), certificate))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
