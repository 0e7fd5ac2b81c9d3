"""PEM text: reading it from files, checking it, loading it into a context, its dates.

Rules of this file: one text at a time, and nothing about the configuration. A file is read once and
what was read is checked and loaded, so that a file that is being replaced cannot have one content
when it is checked and another when it is loaded.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import errno
import hashlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fastlisten.files import read_file
from fastlisten.privileges import given_up

__all__ = [
    "FileRead",
    "KeyPair",
    "PemError",
    "authorities",
    "fingerprint",
    "read_source",
    "recorded",
    "replayed",
    "source_file",
]

#: The prefix of a value that names a file.
_FILE = "file://"

# A certificate with its chain has about 10 KiB, a bundle of all public CAs 220 KiB. The bound keeps
# a device or a log file that is named by mistake from filling the memory.
_LARGEST_FILE = 4 << 20

# All labels in OpenSSL's pem.h that it accepts for certificates and for keys. Everything around the
# blocks (parameters, other keys, text, a byte-order mark) is ignored.
_CERTIFICATE = re.compile(
    rb"-----BEGIN (X509 |TRUSTED |)CERTIFICATE-----(.+?)-----END \1CERTIFICATE-----", re.DOTALL
)
_KEY = re.compile(
    rb"-----BEGIN ((?:[A-Z0-9]+ )*)PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)", re.DOTALL
)

# Purposes that include TLS clients, in DER: clientAuth, any (RFC 5280 4.2.1.12).
_CLIENTS = bytes.fromhex("06082b06010505070302"), bytes.fromhex("0604551d2500")
# Tags of the two lists of purposes that OpenSSL appends to a trusted certificate.
_TRUST, _REJECT = 0x30, 0xA0

#: The memory filesystem for POSIX shared memory (shm_overview(7)).
_SHARED_MEMORY = "/dev/shm"  # noqa: S108

# DER tags (X.690 8.1.2) of fields that come before the dates in a certificate (RFC 5280 4.1).
_VERSION, _UTC_TIME = 0xA0, 0x17


class PemError(Exception):
    """PEM text that cannot be used; the message says why.

    Attributes:
        of_key: the private key is at fault, not the certificate.
    """

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
            PemError: one of them cannot be used, or they don't match.
        """
        found = _certificates(self.cert)
        own = _KEY.search(self.key)
        if own is None:
            raise PemError("it contains no PEM private key", of_key=True)
        if own[1].startswith(b"ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in own[0]:
            raise PemError("the key is encrypted; remove its password", of_key=True)
        if own[1].startswith(b"OPENSSH"):
            raise PemError("the key is in OpenSSH's format; TLS needs PKCS #8", of_key=True)
        _check(found)
        with _in_memory(b"\n".join(found)) as cert, _in_memory(own[0] + b"\n") as key:
            try:
                context.load_cert_chain(cert, key, password=_no_password)
            except ssl.SSLError as error:
                raise _explained(error) from None

    def valid(self) -> tuple[datetime.datetime, datetime.datetime]:
        """Return the two dates of the certificate; call it after `load_into`."""
        return _validity(_der(_certificates(self.cert)[0]))


def source_file(source: str) -> str:
    """Return the file that a value names; empty if the value is PEM text."""
    return source.removeprefix(_FILE) if source.startswith(_FILE) else ""


def read_source(source: str) -> bytes:
    """Return a value that is PEM text, or the certificates and keys in the file that it names.

    What else the file contains is left out. Root may read it in a directory of the user, who could
    put a link to any other file there, and pass it on to processes of the user (`recorded`).

    Args:
        source: PEM text, or ``file://`` and a path.

    Raises:
        PemError: it cannot be read.
    """
    path = source_file(source)
    if not path:
        return source.encode()
    if _replayed is not None and path in _replayed:
        return _replayed[path].content()
    try:
        content = _blocks(read_file(path, _LARGEST_FILE, "a certificate"))
    except OSError as error:
        hint = given_up() if error.errno == errno.EACCES else ""
        text = f"cannot be read: {error.strerror}{hint}"
        if _recorded is not None:
            _recorded[path] = FileRead(problem=text)
        raise PemError(text) from None
    if _recorded is not None:
        _recorded[path] = FileRead(base64.b64encode(content).decode())
    return content


def _blocks(text: bytes) -> bytes:
    """Return the certificates and private keys in a text, as they are written."""
    found = [*_CERTIFICATE.finditer(text), *_KEY.finditer(text)]
    found.sort(key=re.Match.start)
    return b"".join(match[0] + b"\n" for match in found)


# --- for other processes --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file as one process has read it, for others that may not read it, or find another content.

    Attributes:
        base64: the certificates and keys in it.
        problem: why it cannot be read; empty if it can.
    """

    base64: str = ""
    problem: str = ""

    def content(self) -> bytes:
        """Return the content.

        Raises:
            PemError: it cannot be read.
        """
        if self.problem:
            raise PemError(self.problem)
        return base64.b64decode(self.base64)


_recorded: dict[str, FileRead] | None = None
_replayed: Mapping[str, FileRead] | None = None


@contextlib.contextmanager
def recorded() -> Iterator[dict[str, FileRead]]:
    """Note the files that `read_source` reads while the block runs, by path."""
    global _recorded
    _recorded = {}
    try:
        yield _recorded
    finally:
        _recorded = None


@contextlib.contextmanager
def replayed(files: Mapping[str, FileRead]) -> Iterator[None]:
    """Let `read_source` return these contents, of another process, while the block runs."""
    global _replayed
    _replayed = files
    try:
        yield
    finally:
        _replayed = None


def authorities(pem: bytes) -> str:
    """Return the certificates in a text in the form for ``load_verify_locations(cadata=...)``.

    Raises:
        PemError: there is none, or one is damaged or not trusted for clients.
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
    """Return the SHA-256 of the first certificate, as `openssl x509 -fingerprint` prints it."""
    return hashlib.sha256(_der(_certificates(pem)[0])).digest().hex(":").upper()


def _certificates(pem: bytes) -> list[bytes]:
    """Return the certificates in a text, each as PEM with the usual label.

    Raises:
        PemError: there is none.
    """
    found = [_plain(label, body) for label, body in _CERTIFICATE.findall(pem)]
    if not found:
        raise PemError("it contains no PEM certificate")
    return found


def _framed(body: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----" + body + b"-----END CERTIFICATE-----"


def _plain(label: bytes, body: bytes) -> bytes:
    block = _framed(body)
    if label == b"TRUSTED ":
        # `openssl x509 -trustout` appends purposes to the certificate.
        with contextlib.suppress(ValueError, IndexError):  # damaged: `_check` reports it
            der = _der(block)
            return ssl.DER_cert_to_PEM_cert(der[: _element(der, 0)[2]]).encode()
    return block


def _for_clients(der: bytes) -> bool:
    """Tell whether a certificate is trusted for TLS clients (openssl-x509(1), TRUST SETTINGS).

    Raises:
        ValueError, IndexError: something else is appended to the certificate.
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
    """Raise PemError if one of the certificates is damaged."""
    for number, block in enumerate(blocks, 1):
        try:
            # The only public way to parse a certificate; the context is not used.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
                cadata=block.decode("ascii")
            )
            _validity(_der(block))
        except (ssl.SSLError, ValueError, IndexError):
            raise PemError(f"certificate {number} of {len(blocks)} in it is damaged") from None


def _no_password() -> str:
    # Without this function OpenSSL would ask for a password on the terminal.
    raise PemError("the key is encrypted; remove its password", of_key=True)


def _explained(error: ssl.SSLError) -> PemError:
    """Return the error for a pair that a context rejects."""
    reason = error.reason or ""
    # NO_CERTIFICATE_ASSIGNED: there is no certificate for this type of key.
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return PemError("the private key does not match the certificate", of_key=True)
    if reason == "EE_KEY_TOO_SMALL":
        return PemError("the certificate's key is too short to be secure")
    if reason.startswith(("CA_", "EE_")):
        return PemError(
            f"the certificate is not secure enough ({reason.lower().replace('_', ' ')})"
        )
    return PemError(f"the private key is damaged ({reason or error})", of_key=True)


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Yield the name of a file in memory with a text, because OpenSSL's function needs a file.

    Raises:
        PemError: no file can be created.
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
    """Do the same without /proc, as in some containers: a file that exists for a moment and that
    only this user can read."""
    for directory in (_SHARED_MEMORY, None):
        try:
            fd, name = tempfile.mkstemp(prefix="fastlisten-", dir=directory)
            break
        except OSError:
            continue
    else:
        raise PemError("cannot be loaded: neither /proc nor a directory for temporary files exists")
    try:
        with open(fd, "wb") as file:
            file.write(content)
        yield name
    finally:
        os.unlink(name)


def _validity(der: bytes) -> tuple[datetime.datetime, datetime.datetime]:
    """Return the two dates of a certificate.

    Raises:
        ValueError, IndexError: it is not a certificate.
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
    """Return the tag of a DER element, and where its content begins and ends."""
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
        # RFC 5280 4.1.2.5.1: years have two digits and are from 1950 to 2049.
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)
