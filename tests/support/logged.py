"""Log records by event."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["events"]


def events(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """Return the fields of all records of an event, with their messages."""
    return [
        {**vars(one)["fields"], "message": one.getMessage()}
        for one in list(caplog.records)
        if getattr(one, "event", "") == event
    ]
