"""The rows that the smtp handler adds to the option table: the table `[smtp]` and its overrides.

Rules of this file: data only, so that the configuration can read it without a loop. Keys are
relative to the handler's table: ``max-recipients`` is written ``smtp.max-recipients`` on a
listener.
"""

from __future__ import annotations

from fastlisten.option import Option

__all__ = ["OPTIONS"]

OPTIONS: tuple[Option, ...] = (
    Option(
        key="role",
        kind="choice",
        default=None,
        choices=("mx", "submission"),
        available=False,
        text="Whether strangers may bring mail here (mx) or users must authenticate first "
        "(submission, RFC 6409).",
    ),
    Option(
        key="relay",
        kind="hostport",
        default=None,
        available=False,
        text="The server that takes mail for addresses that have no account here.",
    ),
    Option(
        key="aiosmtpd-handler",
        kind="string",
        default=None,
        available=False,
        text='A handler class written for aiosmtpd, as "package.module:Class".',
    ),
    Option(
        key="aiosmtpd-args",
        kind="string",
        default=None,
        available=False,
        text="What the aiosmtpd handler class is made with, written as on aiosmtpd's command line.",
    ),
    Option(
        key="max-message-size",
        kind="size",
        default=50 * 1024 * 1024,
        # RFC 5321 4.5.3.1.7: a server must take messages of 64 KiB at least.
        minimum=64 * 1024,
        # Largest size that the SIZE extension's readers can be trusted to hold in 32 bits.
        maximum=2**31 - 1,
        unit="bytes",
        text="The largest message that is accepted, announced by SIZE (RFC 1870).",
    ),
    Option(
        key="max-recipients",
        kind="integer",
        default=100,
        # RFC 5321 4.5.3.1.8: a server must take 100 recipients at least.
        minimum=100,
        maximum=50_000,
        unit="recipients",
        text="How many recipients one message may have; further ones are told to come again (452).",
    ),
    Option(
        key="max-errors",
        kind="integer",
        default=20,
        minimum=1,
        maximum=1_000_000,
        unit="errors",
        text="After this many refused commands the client hears 421 and the connection is closed.",
    ),
)
