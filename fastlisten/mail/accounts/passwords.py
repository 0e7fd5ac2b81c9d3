"""Passwords: what a hash in the accounts file may be, and how one is made and verified.

Rules of this file: argon2-cffi (the extra `auth`) is imported when something is hashed, never
before: an accounts file is read, and mail delivered, without it. A hash is a PHC string
(https://github.com/P-H-C/phc-string-format) of argon2id (RFC 9106), version 19. Verifying blocks
for a tenth of a second and takes the memory that the hash says; who bounds that is logins.py.
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

#: Octets of the longest password, as UTF-8. Nobody types more, and what is not hashed at all
#: costs nothing to refuse.
MAX_PASSWORD = 1024

#: What to say where argon2-cffi is missing.
NEEDED = 'passwords need the library argon2-cffi (pip install "fastlisten[auth]")'

#: KiB of memory that one hash may ask for. Two are verified at a time, so that a file cannot
#: make a process take more than 512 MiB.
_MAX_MEMORY = 256 * 1024

#: Passes and lanes beyond which a hash is rather a mistake than a precaution.
_MAX_TIME = 64
_MAX_LANES = 64

#: Octets: RFC 9106 3.1 wants salts of at least 8 and calls 16 enough; a shorter digest than 16
#: can be guessed more easily than the password.
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
    """What makes verifying cost what it costs.

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


#: The second recommendation of RFC 9106 4, which is the first for where memory is shared:
#: 64 MiB, 3 passes, 4 lanes. argon2-cffi's default, too.
DEFAULT = Argon2Parameters(64 * 1024, 3, 4, 16, 32)


def read_parameters(phc: str) -> Argon2Parameters:
    """Return the parameters of a hash.

    Raises:
        ValueError: it is no hash that could be verified; says why, without showing it.
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
    """Return the octets that are hashed (RFC 8265, OpaqueString): spaces are one, NFC, UTF-8.

    Returns:
        None if no password can be this: empty, too long, or no Unicode text.
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
        raise ValueError("a password is not empty")
    if secret is None:
        raise ValueError(f"a password is Unicode text of at most {MAX_PASSWORD} octets in UTF-8")
    if any(unicodedata.category(one) == "Cc" for one in password):
        raise ValueError("a password has no control characters")
    if not available():
        raise CannotVerifyError(NEEDED)
    from argon2.low_level import Type, hash_secret

    memory, time, lanes, salt, digest = DEFAULT
    made = hash_secret(secret, secrets.token_bytes(salt), time, memory, lanes, digest, Type.ID)
    return made.decode()


def verify(phc: str, secret: bytes) -> bool:
    """Whether a password is the one of a hash. Blocks, and takes the memory that the hash says.

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
    """Hashes that no password has, for names that no account has.

    Whoever tries a name that does not exist must wait as long as for one that does. The work is
    the same if the parameters are, so that a decoy has those of the accounts. Where accounts
    differ in them (hashes of several years), every name gets one of the kinds, each kind as often
    as accounts have it, and always the same one: in all processes, after restarts, and (but for
    few names) after accounts have changed; otherwise waiting times that vary would betray names
    that do not exist. That is rendezvous hashing, keyed by octets that nobody outside knows.
    """

    __slots__ = ("_kinds",)

    def __init__(self, hashes: Iterable[str]) -> None:
        """Look at the accounts' hashes; without any, the parameters are those of new ones."""
        counts: dict[Argon2Parameters, int] = {}
        keys: dict[Argon2Parameters, bytes] = {}
        for phc in hashes:
            kind = read_parameters(phc)
            key = hashlib.blake2b(phc.encode(), digest_size=32).digest()
            counts[kind] = counts.get(kind, 0) + 1
            # The least: one account more or less seldom changes it.
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
    """Return a hash with a random digest: there is no password that has it."""
    salt, digest = (
        b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (kind.salt, kind.digest)
    )
    return f"$argon2id$v=19$m={kind.memory},t={kind.time},p={kind.lanes}${salt}${digest}"
