"""What looks like a secret by its name or its form, so that no message repeats it.

Rules of this file: pure functions of texts, and generous ones: a value that is hidden for nothing
costs a look into the file, one that is shown stands in somebody's log.
"""

from __future__ import annotations

import re
from functools import lru_cache

from fastlisten.config.suggest import distance

__all__ = [
    "NOT_SHOWN",
    "Secret",
    "gives_secret",
    "hide_secrets",
    "is_password_name",
    "is_secret_name",
]

#: What stands in the place of a secret; no secret itself, or a file that `show` has written would
#: be loaded with it.
NOT_SHOWN = "(not shown)"

# Within a name, without its separators.
_PARTS = ("passw", "passphrase", "pwd", "secret", "token", "credential", "apikey", "privatekey")
# A whole word of a name.
_WORDS = frozenset(
    (
        "pass",
        "pw",
        "pswd",
        "psw",
        "kennwort",
        "key",
        "keys",
        "auth",
        "pin",
        "psk",
        "hash",
        "salt",
        "dsn",
    )
)
# The end of a word: relaypass, dbpw.
_ENDS = ("pass", "pw")
# Words that people misspell, with the number of slips that are forgiven.
_MISSPELT = (("password", 2), ("passwd", 1), ("passphrase", 2), ("secret", 1), ("token", 1))
_SEPARATORS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])")

# Names longer than this are nobody's; it bounds the comparison.
_MAX_NAME_LENGTH = 200

# An option on a command line, up to its argument: --password=..., --auth-token ...
_OPTION = re.compile(r"(?<!\S)--?([A-Za-z][A-Za-z0-9_-]{0,63})(?:=|\s+)")
_ARGUMENT = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+""")

# PEM, hashes of passwords (PHC strings, crypt, LDAP's schemes), and passwords in addresses.
_SECRET_TEXT = re.compile(
    r"-----BEGIN |\$argon2|\$(?:1|5|6|y|2[abxy]|gy|7)\$|(?<!%)\{[A-Z0-9-]{2,16}\}"
)
_USER_AND_PASSWORD = re.compile(r"([^\s:@/\"']{1,64}):[^\s@/\"']{1,1024}@")

_MACRO = re.compile(r"%\{[a-z]+:([^{}]*)\}%")


class Secret(str):
    """A text that is not repeated in messages, in logs, or by `show`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return NOT_SHOWN


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Tell whether a key, a variable or a path is likely to hold a secret, misspelt names too."""
    words = _words(name)
    if any(word in _WORDS or word.endswith(_ENDS) for word in words):
        return True
    return is_password_name(name)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _SEPARATORS.split(name[-_MAX_NAME_LENGTH:]) if word]


@lru_cache(maxsize=4096)
def is_password_name(name: str) -> bool:
    """Tell whether a name is that of a secret and hardly of anything else; narrower than above."""
    words = _words(name)
    together = "".join(words)
    return any(part in together for part in _PARTS) or any(
        distance(word, other, slips) <= slips for word in words for other, slips in _MISSPELT
    )


def gives_secret(raw: object) -> bool:
    """Tell whether a value has a macro whose file or variable is named like a secret."""
    if isinstance(raw, str):
        return any(is_secret_name(match[1]) for match in _MACRO.finditer(raw))
    if isinstance(raw, list):
        return any(map(gives_secret, raw))
    if isinstance(raw, dict):
        return any(map(gives_secret, raw.values()))
    return False


def hide_secrets(text: str) -> str:
    """Return a text without what looks like a secret in it.

    Those are keys, hashes, and passwords in URLs and on command lines.
    """
    if _SECRET_TEXT.search(text):
        return NOT_SHOWN
    return _USER_AND_PASSWORD.sub(r"\1:***@", _without_arguments(text))


def _without_arguments(text: str) -> str:
    """Leave out what a command line gives to options that are named like secrets."""
    pieces = []
    end = 0
    for match in _OPTION.finditer(text):
        if match.start() >= end and is_secret_name(match[1]):
            argument = _ARGUMENT.match(text, match.end())
            pieces += [text[end : match.end()], "***"]
            end = argument.end() if argument else match.end()
    return "".join((*pieces, text[end:]))
