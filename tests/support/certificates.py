"""Authorities, the certificates they sign, and handshakes in memory.

Rules of this file: no test in it, and no key older than the test run.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fastlisten.runtime.tls.pem import KeyPair

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

PKCS8 = serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


@functools.cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the only RSA key of this run; creating one takes a quarter of a second."""
    return rsa.generate_private_key(65537, bits)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(
    key: Key,
    form: serialization.PrivateFormat = PKCS8,
    protection: serialization.KeySerializationEncryption = PLAIN,
) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, protection)


@dataclass(frozen=True)
class Authority:
    """Signs certificates; `pem` is its own certificate."""

    name: x509.Name
    key: Key
    pem: bytes

    @classmethod
    def make(cls, name: str = "authority", above: Authority | None = None) -> Authority:
        key = ec_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = above or cls(subject, key, b"")
        extensions: list[x509.ExtensionType] = [
            x509.BasicConstraints(ca=True, path_length=None),
            _key_usage(),
        ]
        return cls(subject, key, _sign(subject, issuer, key, extensions))

    def sign(
        self,
        *names: str,
        key: Key | None = None,
        first: datetime.datetime | None = None,
        last: datetime.datetime | None = None,
        client: bool = False,
    ) -> KeyPair:
        """Return a certificate for names and addresses, with its key."""
        key = key or ec_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        extensions: list[x509.ExtensionType] = [
            x509.SubjectAlternativeName([_general(name) for name in names]),
            x509.ExtendedKeyUsage([usage]),
        ]
        return KeyPair(_sign(subject, self, key, extensions, first, last), key_pem(key))

    def client_context(self, pair: KeyPair | None = None) -> ssl.SSLContext:
        """Return a client's context that trusts this authority, optionally with a certificate."""
        context = ssl.create_default_context(cadata=self.pem.decode())
        # The default in newer Pythons.
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if pair is not None:
            pair.load_into(context)
        return context


def _key_usage() -> x509.KeyUsage:
    """Return the key usage of an authority."""
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _sign(
    subject: x509.Name,
    issuer: Authority,
    key: Key,
    extensions: Sequence[x509.ExtensionType],
    first: datetime.datetime | None = None,
    last: datetime.datetime | None = None,
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first or now - datetime.timedelta(days=1))
        .not_valid_after(last or now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False
        )
    )
    for extension in extensions:
        builder = builder.add_extension(
            extension, isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        )
    certificate = builder.sign(issuer.key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


@functools.cache
def authority() -> Authority:
    """Return the authority of this run."""
    return Authority.make()


def write(directory: Path, pair: KeyPair, name: str = "mail") -> tuple[Path, Path]:
    """Write a pair to two files, as a renewal does; return their names."""
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    cert.write_bytes(pair.cert)
    key.write_bytes(pair.key)
    key.chmod(0o600)
    return cert, key


def table(directory: Path, name: str = "mail", id: str = "default") -> str:
    """Return the configuration's table for a pair's files."""
    return (
        f'[certificate."{id}"]\ncert = "file://{directory / name}.crt"\n'
        f'private-key = "file://{directory / name}.key"\n'
    )


@dataclass
class Handshake:
    """Both ends of a TLS connection in memory."""

    client: ssl.SSLObject
    server: ssl.SSLObject

    @property
    def cipher(self) -> str:
        chosen = self.client.cipher()
        assert chosen is not None
        return chosen[0]

    @property
    def shown(self) -> bytes:
        """The server's certificate, in DER."""
        found = self.client.getpeercert(True)
        assert found is not None
        return found


def shake(
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    name: str | None = None,
    session: ssl.SSLSession | None = None,
) -> Handshake:
    """Perform a handshake in memory, and let the client read the session tickets.

    Raises:
        ssl.SSLError: the error of the end that fails first.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    assert len(done) == 2, "the handshake hangs"
    server.write(b"x")
    assert client.read(1) == b"x"
    return Handshake(client, server)


def trusting_all(**settings: object) -> ssl.SSLContext:
    """Return a client's context that verifies no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in settings.items():
        setattr(context, name, value)
    return context
