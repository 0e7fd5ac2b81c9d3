"""All kinds of values in one table, by the name in a row's `kind`.

Rules of this file: only the table and its three uses.
"""

from __future__ import annotations

from typing import Any

from fastlisten.config.notation import quote
from fastlisten.config.secret_names import NOT_SHOWN, Secret
from fastlisten.config.values.grammar import Kind
from fastlisten.config.values.network import NETWORK_KINDS
from fastlisten.config.values.scalars import SCALARS
from fastlisten.config.values.tls import TLS_KINDS
from fastlisten.option import Option

__all__ = ["KINDS", "describe", "plain", "write"]

KINDS: dict[str, Kind] = {**SCALARS, **NETWORK_KINDS, **TLS_KINDS}


def write(option: Option, value: Any) -> str:
    """Return a typed value as TOML text; None becomes `false`, which optional rows accept."""
    if isinstance(value, Secret):
        return quote(NOT_SHOWN)
    return "false" if value is None else KINDS[option.kind].write(value)


def plain(option: Option, value: Any) -> Any:
    """Return a typed value as one that JSON can represent; None if it is not set."""
    if isinstance(value, Secret):
        return NOT_SHOWN
    return None if value is None else KINDS[option.kind].plain(value)


def describe(option: Option) -> str:
    """Return what a row accepts, in words."""
    return KINDS[option.kind].describe(option)
