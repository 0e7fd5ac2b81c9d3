"""Recognizes what is likely to be a secret by its name or form, so that no message repeats it.

Rules of this file: pure functions of strings. When in doubt, hide: a value hidden without need can
be looked up in the file, but a secret that was logged is no longer one.
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

#: Shown instead of a secret. Not accepted as a secret, or a file written by `show` would load with
#: it as the password.
NOT_SHOWN = "(not shown)"

# Parts of a name, separators removed.
_PARTS = ("passw", "passphrase", "pwd", "secret", "token", "credential", "apikey", "privatekey")
# Whole words of a name.
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
# Ends of a word: relaypass, dbpw.
_ENDS = ("pass", "pw")
# Words, with the number of typing mistakes that are tolerated.
_MISSPELT = (("password", 2), ("passwd", 1), ("passphrase", 2), ("secret", 1), ("token", 1))
_SEPARATORS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])")

# Only so much of the end of a name is looked at.
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
    """A string that is not repeated in messages, in logs, or by `show`."""

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
    """Tell whether a name is almost certainly a secret's; stricter than `is_secret_name`."""
    words = _words(name)
    together = "".join(words)
    return any(part in together for part in _PARTS) or any(
        distance(word, other, slips) <= slips for word in words for other, slips in _MISSPELT
    )


def gives_secret(raw: object) -> bool:
    """Tell whether a value has a macro for a file or variable that is named like a secret."""
    if isinstance(raw, str):
        return any(is_secret_name(match[1]) for match in _MACRO.finditer(raw))
    if isinstance(raw, list):
        return any(map(gives_secret, raw))
    if isinstance(raw, dict):
        return any(map(gives_secret, raw.values()))
    return False


def hide_secrets(text: str) -> str:
    """Return a text with anything that looks like a secret removed.

    That is: keys, hashes, and passwords in URLs and on command lines.
    """
    if _SECRET_TEXT.search(text):
        return NOT_SHOWN
    return _USER_AND_PASSWORD.sub(r"\1:***@", _hide_arguments(text))


def _hide_arguments(text: str) -> str:
    """Hide the arguments of command-line options that are named like secrets."""
    pieces = []
    end = 0
    for match in _OPTION.finditer(text):
        if match.start() >= end and is_secret_name(match[1]):
            argument = _ARGUMENT.match(text, match.end())
            pieces += [text[end : match.end()], "***"]
            end = argument.end() if argument else match.end()
    return "".join((*pieces, text[end:]))
