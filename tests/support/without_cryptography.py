"""A fixture that makes the package `cryptography` appear not to be installed."""

from __future__ import annotations

import builtins
import importlib.util
from typing import Any

import pytest

__all__ = ["no_library"]


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make imports of `cryptography` fail."""
    real, find = builtins.__import__, importlib.util.find_spec

    def missing(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "cryptography" else find(name)
    )
