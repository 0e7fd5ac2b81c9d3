"""Quotas: how much mail an account may have, by octets and by number of messages.

Rules of this file: values, and how the accounts file writes them; what an account has is counted in
store/usage.py. The configuration gives every account the same (`server.quota.bytes`,
`server.quota.messages`), and the accounts file overrides each of the two for one account:

    [account."alice@example.org"]
    quota = { bytes = "5GiB", messages = false }

All folders of an account count, each message by its size as IMAP serves it, and a copy as often as
it is there.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fastlisten.sizes import parse_size

__all__ = ["COMMON_QUOTA", "LARGEST", "NO_QUOTA", "OwnQuota", "Quota", "read_quota"]

#: More than any filesystem holds; IMAP's numbers have 63 bits (RFC 9208 7).
LARGEST = 1 << 60

_KEYS = ("bytes", "messages")

_ALLOWED = {
    "bytes": f'bytes, or a size such as "256KiB", 1 to {LARGEST}, or false',
    "messages": "a whole number, 1 or more, or false",
}


class Quota(NamedTuple):
    """The most that an account may have; None: no limit.

    Attributes:
        bytes: octets.
        messages: messages.
    """

    bytes: int | None = None
    messages: int | None = None


NO_QUOTA = Quota()


class OwnQuota(NamedTuple):
    """What the accounts file says about one account; None: nothing, 0: no limit."""

    bytes: int | None = None
    messages: int | None = None

    def over(self, common: Quota) -> Quota:
        """Return what holds for the account; `common` holds for those that say nothing."""
        return Quota(
            *(
                everybody if own is None else own or None
                for own, everybody in zip(self, common, strict=True)
            )
        )


COMMON_QUOTA = OwnQuota()


class QuotaProblem(NamedTuple):
    """A mistake: of which key, what is wrong, what would be right, the value, what was meant."""

    key: str
    message: str
    allowed: str
    value: str = ""
    suggestion: str = ""


def read_quota(raw: Any) -> tuple[OwnQuota, list[QuotaProblem]]:
    """Return the quota that a value of the accounts file gives, and its mistakes."""
    if not isinstance(raw, Mapping):
        message = "must be a table"
        allowed = '{ bytes = "5GiB", messages = 100000 }, or one of the two'
        return COMMON_QUOTA, [QuotaProblem("", message, allowed, _shown(raw))]
    problems = list(_unknown(raw))
    values: dict[str, int] = {}
    for key in _KEYS:
        if key in raw:
            try:
                values[key] = _limit(key, raw[key])
            except ValueError as error:
                problems.append(QuotaProblem(key, str(error), _ALLOWED[key], _shown(raw[key])))
    return OwnQuota(**values), problems


def _unknown(raw: Mapping[str, Any]) -> Iterator[QuotaProblem]:
    for key in raw:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            suggestion = near[0] if near else ""
            yield QuotaProblem(key, "unknown key", ", ".join(_KEYS), suggestion=suggestion)


def _shown(raw: Any) -> str:
    """Return a value for a message, cut to a readable length."""
    return json.dumps(raw, ensure_ascii=False, default=str)[:60]


def _limit(key: str, raw: Any) -> int:
    if raw is False:
        return 0
    if key == "bytes":
        number = parse_size(raw)
    elif isinstance(raw, int) and not isinstance(raw, bool):
        number = raw
    else:
        raise ValueError("this is not a whole number")
    if number < 1:
        raise ValueError("this is too small; for no limit, write false")
    if number > LARGEST:
        raise ValueError(f"this is too large; the maximum is {LARGEST}")
    return number
