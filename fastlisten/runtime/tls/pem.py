"""PEM texts: read from files, checked, loaded into a context, and how long they are valid.

Rules of this file: one text at a time and no configuration. What is loaded has been read once,
so that a file which is being replaced cannot give one half to a trial and another to the server.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastlisten.files import read_file

__all__ = ["KeyPair", "PemError", "authorities", "fingerprint", "read_source", "source_file"]

#: What the value of a key begins with when it names a file.
_FILE = "file://"

# A certificate with its chain has some 10 KiB, a bundle of all public authorities 220 KiB; the
# bound keeps a device or a log named by mistake out of memory.
_LARGEST_FILE = 4 << 20

# The labels of OpenSSL's pem.h, of which it takes each where it wants a certificate or a key. What
# stands around the blocks (parameters, other keys, text, a byte-order mark) is left out.
_CERTIFICATE = re.compile(
    rb"-----BEGIN (X509 |TRUSTED |)CERTIFICATE-----(.+?)-----END \1CERTIFICATE-----", re.DOTALL
)
_KEY = re.compile(
    rb"-----BEGIN ((?:[A-Z0-9]+ )*)PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)", re.DOTALL
)

# Of what a certificate may be trusted for, in DER: TLS clients, anything (RFC 5280 4.2.1.12).
_CLIENTS = bytes.fromhex("06082b06010505070302"), bytes.fromhex("0604551d2500")
# The lists of that in what OpenSSL puts behind such a certificate: trusted for, rejected for.
_TRUST, _REJECT = 0x30, 0xA0

#: The file system in memory that POSIX's shared memory is in (shm_overview(7)).
_SHARED_MEMORY = "/dev/shm"  # noqa: S108

# Tags of DER (X.690 8.1.2) that stand in a certificate on the way to its dates (RFC 5280 4.1).
_VERSION, _UTC_TIME = 0xA0, 0x17


class PemError(Exception):
    """A text that cannot be used; the message says why, and `of_key` whose fault it is."""

    def __init__(self, message: str, *, of_key: bool = False) -> None:
        self.of_key = of_key
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its chain, and its private key.

    Attributes:
        cert: PEM.
        key: PEM, without a password.
    """

    cert: bytes
    key: bytes = field(repr=False)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Load both into a context.

        Raises:
            PemError: one of them cannot be used, or they do not belong together.
        """
        found = _certificates(self.cert)
        own = _KEY.search(self.key)
        if own is None:
            raise PemError("it contains no private key (PEM)", of_key=True)
        if own[1].startswith(b"ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in own[0]:
            raise PemError("the key is encrypted; remove its password", of_key=True)
        if own[1].startswith(b"OPENSSH"):
            raise PemError("the key is in OpenSSH's own format, which TLS cannot use", of_key=True)
        _check(found)
        with _in_memory(b"\n".join(found)) as cert, _in_memory(own[0] + b"\n") as key:
            try:
                context.load_cert_chain(cert, key, password=_no_password)
            except ssl.SSLError as error:
                raise _explained(error) from None

    def valid(self) -> tuple[datetime.datetime, datetime.datetime]:
        """Return from when and until when the certificate is valid; `load_into` has taken it."""
        return _validity(_der(_certificates(self.cert)[0]))


def source_file(source: str) -> str:
    """Return the file that a value names, empty where it is the PEM text itself."""
    return source.removeprefix(_FILE) if source.startswith(_FILE) else ""


def read_source(source: str) -> bytes:
    """Return the PEM text that a value is or names.

    Args:
        source: PEM text, or ``file://`` and a path.

    Raises:
        PemError: it cannot be read.
    """
    path = source_file(source)
    if not path:
        return source.encode()
    try:
        return read_file(path, _LARGEST_FILE, "a certificate")
    except OSError as error:
        raise PemError(f"cannot be read: {error.strerror}") from None


def authorities(pem: bytes) -> str:
    """Return the certificates of a text in the form of ``load_verify_locations(cadata=...)``.

    Raises:
        PemError: there is none, or one is damaged, or says that no client shall be believed for it.
    """
    found = _certificates(pem)
    _check(found)
    for number, (label, body) in enumerate(_CERTIFICATE.findall(pem), 1):
        place = f"certificate {number} of {len(found)} in it"
        try:
            if label == b"TRUSTED " and not _for_clients(_der(_framed(body))):
                raise PemError(f"{place} is not trusted for clients")
        except (ValueError, IndexError):
            raise PemError(f"{place} is damaged") from None
    return b"\n".join(found).decode("ascii")


def fingerprint(pem: bytes) -> str:
    """Return the SHA-256 of a text's first certificate, as `openssl x509 -fingerprint` shows it."""
    return hashlib.sha256(_der(_certificates(pem)[0])).digest().hex(":").upper()


def _certificates(pem: bytes) -> list[bytes]:
    """Return the certificates of a text, each as PEM with the usual label.

    Raises:
        PemError: there is none.
    """
    found = [_plain(label, body) for label, body in _CERTIFICATE.findall(pem)]
    if not found:
        raise PemError("it contains no certificate (PEM)")
    return found


def _framed(body: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----" + body + b"-----END CERTIFICATE-----"


def _plain(label: bytes, body: bytes) -> bytes:
    block = _framed(body)
    if label == b"TRUSTED ":
        # `openssl x509 -trustout` puts what it is trusted for behind the certificate itself.
        with contextlib.suppress(ValueError, IndexError):  # damaged: `_check` will say so
            der = _der(block)
            return ssl.DER_cert_to_PEM_cert(der[: _element(der, 0)[2]]).encode()
    return block


def _for_clients(der: bytes) -> bool:
    """Whether a trusted certificate may vouch for clients of TLS (openssl-x509(1), TRUST SETTINGS).

    Raises:
        ValueError, IndexError: there is something else behind the certificate.
    """
    at = _element(der, 0)[2]
    if at == len(der):
        return True
    trusted = True
    _, at, end = _element(der, at)
    while at < end:
        tag, start, at = _element(der, at)
        listed = any(purpose in der[start:at] for purpose in _CLIENTS)
        if tag == _REJECT and listed:
            return False
        if tag == _TRUST:
            trusted = listed
    return trusted


def _der(block: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(block.decode("ascii").replace("\r\n", "\n"))


def _check(blocks: list[bytes]) -> None:
    """Raise PemError if one of some certificates is damaged."""
    for number, block in enumerate(blocks, 1):
        try:
            # The one public way to have a certificate parsed; the context is thrown away.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
                cadata=block.decode("ascii")
            )
            _validity(_der(block))
        except (ssl.SSLError, ValueError, IndexError):
            raise PemError(f"certificate {number} of {len(blocks)} in it is damaged") from None


def _no_password() -> str:
    # Without this function OpenSSL would ask the terminal for a password.
    raise PemError("the key is encrypted; remove its password", of_key=True)


def _explained(error: ssl.SSLError) -> PemError:
    """Return what a context has against a pair, in words."""
    reason = error.reason or ""
    # The last one: there is none for this kind of key.
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return PemError("the private key does not match the certificate", of_key=True)
    if reason == "EE_KEY_TOO_SMALL":
        return PemError("the certificate's key is too short to be safe")
    if reason.startswith(("CA_", "EE_")):
        return PemError(f"the certificate is not safe enough ({reason.lower().replace('_', ' ')})")
    return PemError(f"the private key is damaged ({reason or error})", of_key=True)


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Give a text the name of a file that is on no disk, since OpenSSL's function wants a name.

    Raises:
        PemError: there is no place for one.
    """
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        name = f"/proc/self/fd/{fd}"
        if os.path.exists(name):
            yield name
        else:
            with _in_a_file(content) as name:
                yield name
    finally:
        os.close(fd)


@contextlib.contextmanager
def _in_a_file(content: bytes) -> Iterator[str]:
    """Do so where there is no /proc, as in some containers: for a moment, for this user alone."""
    for directory in (_SHARED_MEMORY, None):
        try:
            fd, name = tempfile.mkstemp(prefix="fastlisten-", dir=directory)
            break
        except OSError:
            continue
    else:
        raise PemError("cannot be loaded: there is neither /proc nor a place for temporary files")
    try:
        with open(fd, "wb") as file:
            file.write(content)
        yield name
    finally:
        os.unlink(name)


def _validity(der: bytes) -> tuple[datetime.datetime, datetime.datetime]:
    """Return the two dates of a certificate.

    Raises:
        ValueError, IndexError: it is no certificate.
    """
    _, at, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, at)  # TBSCertificate
    if der[at] == _VERSION:
        _, _, at = _element(der, at)
    for _ in range(3):  # serialNumber, signature, issuer
        _, _, at = _element(der, at)
    _, at, _ = _element(der, at)  # Validity
    first = _time(der, at)
    _, _, at = _element(der, at)
    return first, _time(der, at)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of an element, where its content begins and where it ends."""
    tag, length = der[at], der[at + 1]
    at += 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[at : at + size], "big")
        at += size
    return tag, at, at + length


def _time(der: bytes, at: int) -> datetime.datetime:
    tag, start, end = _element(der, at)
    text = der[start:end].decode("ascii")
    if tag == _UTC_TIME:
        # RFC 5280 4.1.2.5.1: two digits of the year, from 1950 to 2049.
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)
