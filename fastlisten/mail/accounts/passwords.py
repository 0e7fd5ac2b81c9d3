"""Passwords: which hashes the accounts file may have, and how they are made and verified.

Rules of this file: argon2-cffi (the extra `auth`) is imported only when something is hashed;
reading an accounts file and delivering mail don't need it. A hash is a PHC string
(https://github.com/P-H-C/phc-string-format) of argon2id (RFC 9106), version 19. Verifying one
blocks for a tenth of a second and takes the memory that the hash asks for; logins.py limits that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re
import secrets
import string
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import NamedTuple

from fastlisten.errors import FastlistenError

__all__ = [
    "MAX_PASSWORD",
    "NEEDED",
    "Argon2Parameters",
    "CannotVerifyError",
    "Decoys",
    "available",
    "generate",
    "hash_password",
    "prepared",
    "read_parameters",
    "verify",
]

#: Octets of the longest password, as UTF-8. Nobody types more, and refusing it without hashing
#: costs nothing.
MAX_PASSWORD = 1024

#: What to say where argon2-cffi is missing.
NEEDED = 'passwords need the library argon2-cffi (pip install "fastlisten[auth]")'

#: KiB of memory that a hash may ask for. Two are verified at a time, so no file can make a process
#: take more than 512 MiB.
_MAX_MEMORY = 256 * 1024

#: Passes and lanes beyond which a hash is more likely a mistake than a precaution.
_MAX_TIME = 64
_MAX_LANES = 64

#: Octets: RFC 9106 3.1 requires salts of at least 8 and calls 16 sufficient; a digest of less than
#: 16 is easier to guess than the password.
_SALT = range(8, 65)
_DIGEST = range(16, 65)

_PHC = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,9})"
    r"\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)

_LETTERS = string.ascii_letters + string.digits

#: Of 62 letters each: 119 bits, more than any search can try.
_GENERATED_LENGTH = 20


class CannotVerifyError(FastlistenError):
    """A password could not be verified: no memory, no library."""


class Argon2Parameters(NamedTuple):
    """The parameters of an argon2id hash, which determine its cost.

    Attributes:
        memory: KiB.
        time: passes over it.
        lanes: threads that do it.
        salt: octets.
        digest: octets.
    """

    memory: int
    time: int
    lanes: int
    salt: int
    digest: int


#: The second recommendation of RFC 9106 4, for memory-constrained environments: 64 MiB, 3 passes, 4
#: lanes. Also the default of argon2-cffi.
DEFAULT = Argon2Parameters(64 * 1024, 3, 4, 16, 32)


def read_parameters(phc: str) -> Argon2Parameters:
    """Return the parameters of a hash.

    Raises:
        ValueError: it is not a hash that can be verified; says why, without showing it.
    """
    match = _PHC.fullmatch(phc)
    if match is None:
        raise ValueError(
            "is not an argon2id hash ($argon2id$v=19$m=...,t=...,p=...$salt$digest); "
            "remove the line, and `fastlisten account passwd` makes one"
        )
    memory, time, lanes = (int(number) for number in match.group(1, 2, 3))
    if memory > _MAX_MEMORY or time > _MAX_TIME or lanes > _MAX_LANES or memory < 8 * lanes:
        raise ValueError(
            f"asks for m={memory}, t={time}, p={lanes}; "
            f"m is from 8 times p to {_MAX_MEMORY} (KiB), t at most {_MAX_TIME}, "
            f"p at most {_MAX_LANES}"
        )
    sizes = []
    for text, allowed in ((match[4], _SALT), (match[5], _DIGEST)):
        size = len(text) * 3 // 4
        # argon2 decodes nothing but what it would have written itself.
        octets = b"" if len(text) % 4 == 1 else b64decode(text + "=" * (-len(text) % 4))
        if size not in allowed or b64encode(octets).decode().rstrip("=") != text:
            raise ValueError("is an argon2id hash with a salt or a digest that is none")
        sizes.append(size)
    return Argon2Parameters(memory, time, lanes, *sizes)


def available() -> bool:
    """Whether argon2-cffi is installed."""
    return importlib.util.find_spec("argon2") is not None


def prepared(password: str) -> bytes | None:
    """Return the octets to be hashed (RFC 8265, OpaqueString): plain spaces, NFC, UTF-8.

    Returns:
        None if it cannot be a password: empty, too long, or not Unicode text.
    """
    if not 0 < len(password) <= MAX_PASSWORD:
        return None
    if not password.isascii():
        spaced = (" " if unicodedata.category(one) == "Zs" else one for one in password)
        password = unicodedata.normalize("NFC", "".join(spaced))
    try:
        secret = password.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return secret if len(secret) <= MAX_PASSWORD else None


def hash_password(password: str) -> str:
    """Return the hash of a new password.

    Raises:
        ValueError: it cannot be a password; says why.
        CannotVerifyError: argon2-cffi is missing.
    """
    secret = prepared(password)
    if not password:
        raise ValueError("the password must not be empty")
    if secret is None:
        raise ValueError(
            f"the password must be Unicode text of at most {MAX_PASSWORD} octets in UTF-8"
        )
    if any(unicodedata.category(one) == "Cc" for one in password):
        raise ValueError("the password must not contain control characters")
    if not available():
        raise CannotVerifyError(NEEDED)
    from argon2.low_level import Type, hash_secret

    memory, time, lanes, salt, digest = DEFAULT
    made = hash_secret(secret, secrets.token_bytes(salt), time, memory, lanes, digest, Type.ID)
    return made.decode()


def verify(phc: str, secret: bytes) -> bool:
    """Whether a password matches a hash. Blocks, and takes the memory that the hash asks for.

    Raises:
        CannotVerifyError: there is not enough memory, or argon2-cffi is missing.
    """
    if not available():
        raise CannotVerifyError(NEEDED)
    from argon2.exceptions import Argon2Error, VerifyMismatchError
    from argon2.low_level import Type, verify_secret

    try:
        return verify_secret(phc.encode(), secret, Type.ID)
    except VerifyMismatchError:
        return False
    except Argon2Error as error:
        raise CannotVerifyError(f"a password cannot be verified: {error}") from error


def generate() -> str:
    """Return a random password that can be typed everywhere."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_GENERATED_LENGTH))


class Decoys:
    """Hashes that match no password, for names that no account has.

    A name that does not exist must take as long to check as one that does. The work is the same if
    the parameters are, so decoys have those of the accounts. If accounts have different parameters
    (hashes of several years), each name gets one of them, in the same proportion as accounts have
    them, and always the same one: in all processes, after restarts, and (except for a few names)
    after accounts have changed. Otherwise varying times would betray names that do not exist. This
    is rendezvous hashing, keyed by octets that nobody outside knows.
    """

    __slots__ = ("_kinds",)

    def __init__(self, hashes: Iterable[str]) -> None:
        """Read the parameters of the accounts' hashes; without any, use those of new hashes."""
        counts: dict[Argon2Parameters, int] = {}
        keys: dict[Argon2Parameters, bytes] = {}
        for phc in hashes:
            kind = read_parameters(phc)
            key = hashlib.blake2b(phc.encode(), digest_size=32).digest()
            counts[kind] = counts.get(kind, 0) + 1
            # The smallest one: adding or removing an account rarely changes it.
            keys[kind] = min(keys.get(kind, key), key)
        if not counts:
            counts, keys = {DEFAULT: 1}, {DEFAULT: bytes(32)}
        self._kinds = [(counts[kind], keys[kind], _decoy(kind)) for kind in sorted(counts)]

    def choose(self, name: str) -> str:
        """Return the decoy for a name, whether an account has it or not."""
        text = unicodedata.normalize("NFC", name).casefold().encode("utf-8", "surrogatepass")

        def distance(kind: tuple[int, bytes, str]) -> float:
            count, key, _ = kind
            number = int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key).digest())
            return -math.log((number + 1) / 2**64) / count

        return min(self._kinds, key=distance)[2]


def _decoy(kind: Argon2Parameters) -> str:
    """Return a hash with a random digest, which no password matches."""
    salt, digest = (
        b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (kind.salt, kind.digest)
    )
    return f"$argon2id$v=19$m={kind.memory},t={kind.time},p={kind.lanes}${salt}${digest}"
