"""What a protocol's own check sees of a configuration, and how it reports.

Rules of this file: interfaces only. The configuration implements them, so that a check needs
nothing of it. Keys are those of a listener: ``tls.implicit``, ``smtp.relay``.
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
        """As written."""

    @property
    def port(self) -> int:
        """Its port, 0 for one that the kernel chooses and for what has no port."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it."""

    def error(self, message: str, allowed: str = "") -> None:
        """Report that the address cannot be used; `allowed` says what could be."""


class CheckedListener(typing.Protocol):
    """One listener that speaks the protocol; index it by key for the value that holds."""

    @property
    def id(self) -> str:
        """The name of its table."""

    @property
    def binds(self) -> Sequence[CheckedBind]:
        """Its addresses, in the order written; without those that could not be read."""

    @property
    def starttls(self) -> bool:
        """Whether its connections begin in plain text and may go over to TLS."""

    def __getitem__(self, key: str) -> Any: ...

    def sets(self, key: str) -> bool:
        """Tell whether the listener's own table sets a key."""

    def is_set(self, key: str) -> bool:
        """Tell whether a key is set at all, here or as a default for many listeners."""

    def is_wrong(self, key: str) -> bool:
        """Tell whether the value of a key has been reported, so that nothing follows from it."""

    def set_default(self, key: str, value: Any) -> None:
        """Give a key that is not set a value that depends on others."""

    def error(self, key: str, message: str, allowed: str = "") -> None:
        """Report a mistake, which will stop the load.

        It is reported where the value is written, and once where many listeners inherit that.

        Args:
            key: whose value is wrong.
            message: what is wrong.
            allowed: what would be accepted.
        """

    def warning(self, key: str, message: str) -> None:
        """Report what deserves notice and stops nothing; an empty key is the whole listener."""


class CheckedProtocol(typing.Protocol):
    """One protocol in a configuration: its listeners, and its own table."""

    @property
    def name(self) -> str:
        """The protocol's name, with which the keys of its own table begin on a listener."""

    @property
    def listeners(self) -> Sequence[CheckedListener]:
        """The listeners that speak it, in order of id."""

    def table_sets(self, key: str) -> bool:
        """Tell whether the protocol's own table, such as `[smtp]`, sets a key: ``relay``."""

    def table_warning(self, key: str, message: str) -> None:
        """Report what deserves notice in the protocol's own table."""
