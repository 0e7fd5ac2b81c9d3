"""The interfaces through which a protocol's own check reads a configuration and reports mistakes.

Rules of this file: interfaces only. The configuration implements them, so that a check need not
import it. Keys are written as on a listener: ``tls.implicit``, ``smtp.relay``.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

__all__ = ["CheckedBind", "CheckedListener", "CheckedProtocol"]


class CheckedBind(typing.Protocol):
    """One address of a listener."""

    @property
    def text(self) -> str:
        """The address as written in the configuration."""

    @property
    def port(self) -> int:
        """Its port; 0 if the kernel chooses one or there is none."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it."""

    def error(self, message: str, allowed: str = "") -> None:
        """Report that the address cannot be used; `allowed` says what can be used."""


class CheckedListener(typing.Protocol):
    """One listener that speaks the protocol; ``listener[key]`` is the resolved value of a key."""

    @property
    def id(self) -> str:
        """The name of its table."""

    @property
    def binds(self) -> Sequence[CheckedBind]:
        """Its addresses, in the order written, without invalid ones."""

    @property
    def starttls(self) -> bool:
        """Whether its connections begin in plain text and may switch to TLS."""

    def __getitem__(self, key: str) -> Any: ...

    def sets(self, key: str) -> bool:
        """Tell whether the listener's own table sets a key."""

    def is_set(self, key: str) -> bool:
        """Tell whether a key is set, in the listener's table or as a default for listeners."""

    def is_wrong(self, key: str) -> bool:
        """Tell whether the value of a key has been reported as wrong and should be ignored."""

    def set_default(self, key: str, value: Any) -> None:
        """Set a default that depends on other values, for a key that is not set."""

    def error(self, key: str, message: str, allowed: str = "") -> None:
        """Report a mistake; the configuration will not load.

        It is reported at the line of the value, and only once if several listeners inherit it.

        Args:
            key: the key whose value is wrong.
            message: what is wrong.
            allowed: what would be accepted.
        """

    def warning(self, key: str, message: str) -> None:
        """Report a warning about a key, or about the whole listener if the key is empty."""


class CheckedProtocol(typing.Protocol):
    """One protocol in a configuration: its listeners, and its own table."""

    @property
    def name(self) -> str:
        """The protocol's name, which is the prefix of its own keys on a listener."""

    @property
    def listeners(self) -> Sequence[CheckedListener]:
        """The listeners that speak it, in order of id."""

    def table_sets(self, key: str) -> bool:
        """Tell whether the protocol's own table, such as `[smtp]`, sets a key: ``relay``."""

    def table_warning(self, key: str, message: str) -> None:
        """Report a warning about a key in the protocol's own table."""
