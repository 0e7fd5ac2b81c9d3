"""Candidate: this package's IMAP, served by the listener code that `fastlisten serve` uses.

The mail is that of a data directory (mailboxes.py). An LMTP listener of the same process delivers
to it; its port is in a file there. Passwords may come without TLS, as in the other candidates;
their hashes are cheap, because a login that has succeeded is remembered for an hour. Log records
are formatted and discarded.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from argon2.low_level import Type, hash_secret

from benchmarks.candidates.serve import run_until_told, until_told
from benchmarks.deliveries import RUN
from benchmarks.mailboxes import PASSWORD
from benchmarks.measure_imap import LMTP_PORT
from fastlisten import new_event_loop, testing
from fastlisten.cli.logging_setup import set_up_logging
from fastlisten.handlers.imap.engine.engine import Limits
from fastlisten.handlers.imap.handler import ImapHandler

#: Enough for any load; clients above it would be refused, which counts as an error.
CONNECTIONS = 15_000


class ClearImapHandler(ImapHandler):
    """Takes passwords without TLS."""

    @functools.cached_property
    def limits(self) -> Limits:
        """As the handler's, but for that."""
        return dataclasses.replace(super().limits, login_in_clear=True)


def write_accounts(directory: Path) -> None:
    """Write the accounts file: an account for each Maildir."""
    phc = hash_secret(PASSWORD.encode(), b"salt" * 4, 1, 8, 1, 32, Type.ID).decode()
    names = sorted(path.name for path in (directory / "mail").iterdir())
    lines = [f'[account."{name}"]\npassword = "{phc}"\n' for name in names]
    path = directory / "accounts.toml"
    path.touch(0o600)
    path.write_text("".join(lines))


def write_port(data: str, port: int) -> None:
    """Say where mail is taken."""
    Path(data, RUN, LMTP_PORT).write_text(str(port))


async def serve(data: str, tls: bool) -> None:
    """Serve until standard input ends."""
    named: dict[str, Any] = {"max_connections": CONNECTIONS, "data_directory": data}
    many: dict[str, Any] = {"sessions-per-user": None}  # all clients come from one address
    imap = testing.serve(ClearImapHandler, tls="implicit" if tls else None, options=many, **named)
    async with imap as at, testing.serve("lmtp", **named) as lmtp:
        write_port(data, lmtp.port)
        await until_told(at.port)
        # Indexes are closed, so that another server may find them as after a regular stop.
        await at.handler.stop()
        os._exit(0)


def main() -> None:
    """Run until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="data directory with the mail")
    parser.add_argument("--certificate", help="serve TLS, with a certificate of its own kind")
    parser.add_argument("--key")
    given = parser.parse_args()
    write_accounts(Path(given.data))
    with Path(os.devnull).open("w") as nowhere:
        set_up_logging("info", "text", nowhere)
        run_until_told(lambda: serve(given.data, given.certificate is not None), new_event_loop)


if __name__ == "__main__":
    main()
