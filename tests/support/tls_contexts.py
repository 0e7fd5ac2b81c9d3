"""Contexts of servers and clients on loopback, with certificates of the tests' authority.

Rules of this file: the files are created at first use, and removed when the process ends.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fastlisten.runtime.tls.pem import KeyPair
from support.certificates import Authority, authority, rsa_key

__all__ = [
    "CLIENT",
    "HOST",
    "CertificateFiles",
    "certificate_files",
    "client_context",
    "server_context",
]

#: The name in the servers' certificates, besides the addresses of loopback.
HOST = "localhost"
#: The name in the client's certificate.
CLIENT = "client.test"


@dataclass(frozen=True)
class CertificateFiles:
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


@functools.cache
def certificate_files() -> CertificateFiles:
    """Return this process's certificates, made at the first call."""
    # Not a TemporaryDirectory, which a forked child that ends would remove under its parent.
    folder = Path(tempfile.mkdtemp(prefix="tls-tests-"))
    owner = os.getpid()
    atexit.register(
        lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None
    )
    servers, nobody = (HOST, "127.0.0.1", "::1"), Authority.make("nobody")

    def written(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    def pair(name: str, signed: KeyPair) -> str:
        return written(f"{name}.pem", signed.key + signed.cert)

    return CertificateFiles(
        authority=written("authority.pem", authority().pem),
        rsa=pair("rsa", authority().sign(*servers, key=rsa_key())),
        p256=pair("p256", authority().sign(*servers)),
        client=pair("client", authority().sign(CLIENT, client=True)),
        stranger=pair("stranger", nobody.sign(CLIENT, client=True)),
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
        newest: the maximum TLS version.
        ask_client: require a client certificate of our authority.
        alpn: names of application protocols (RFC 7301), the preferred first.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = newest
    # As in the contexts of fastlisten's own certificates.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.load_cert_chain(getattr(certificate_files(), key))
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate_files().authority)
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
        version: the only TLS version, None for 1.2 and 1.3.
        certificate: "client", "stranger", or empty for none.
        alpn: names of application protocols.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = version or ssl.TLSVersion.TLSv1_2
    if version is not None:
        context.maximum_version = version
    context.load_verify_locations(certificate_files().authority)
    if certificate:
        context.load_cert_chain(getattr(certificate_files(), certificate))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
