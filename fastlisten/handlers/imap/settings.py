"""What imap is: its ports and timeouts, and the rows of the table `[imap]`.

Rules of this file: data only, so that the configuration can read it without a loop. Keys are
relative to the protocol's table: ``max-line`` is written ``imap.max-line`` on a listener.
"""

from __future__ import annotations

from fastlisten.handlers.imap.capabilities import CAN_BE_DISABLED
from fastlisten.handlers.imap.checks import check_imap
from fastlisten.handlers.protocol import Protocol
from fastlisten.mail.user_sessions import WIDTH
from fastlisten.option import Option

__all__ = ["IMAP"]

#: The fields that RFC 2971 3.3 defines.
_ID_FIELDS = (
    "name", "version", "os", "os-version", "vendor", "support-url", "address", "date", "command",
    "arguments", "environment",
)  # fmt: skip

_BEFORE_LOGIN: tuple[Option, ...] = (
    Option(
        key="mechanisms",
        kind="choices",
        default=("PLAIN", "LOGIN"),
        choices=("PLAIN", "LOGIN"),
        minimum=1,
        text="What AUTHENTICATE takes; the command LOGIN is always there.",
    ),
    Option(
        key="login-attempts",
        kind="integer",
        default=10,
        minimum=1,
        maximum=1000,
        unit="failures",
        text="After this many failed logins on one connection it is closed; how long clients have "
        "to wait between failures is the same as for smtp.",
    ),
    Option(
        key="max-commands-before-login",
        kind="integer",
        default=100,
        # CAPABILITY, ID, STARTTLS, CAPABILITY, ID, AUTHENTICATE, and a second attempt.
        minimum=10,
        maximum=1_000_000,
        unit="commands",
        text="The most commands of a client that has not logged in; then the connection is closed.",
    ),
    Option(
        key="timeout-before-login",
        kind="duration",
        default=180.0,
        minimum=1.0,
        # RFC 9051 5.4: the minimum of 30 minutes does not hold before login.
        maximum=1800.0,
        text="A client that has not logged in may be silent for this time, once it has spoken; "
        "`timeout.first-byte` is the time before that, `timeout.idle` that after login.",
    ),
    Option(
        key="max-errors-before-login",
        kind="integer",
        default=3,
        minimum=1,
        maximum=1_000_000,
        unit="errors",
        text="After this many BAD answers in a row, before login, the connection is closed.",
    ),
    Option(
        key="max-line-before-login",
        kind="size",
        default=8192,
        minimum=1024,
        maximum=65_536,
        unit="bytes",
        text=(
            "The longest command before login, with its literals; a single line may have 12288 "
            "bytes in any case, because AUTHENTICATE may need them."
        ),
    ),
)

_BOUNDS: tuple[Option, ...] = (
    Option(
        key="max-line",
        kind="size",
        default=65_536,
        # RFC 2683 3.2.1.5: a server should take at least 8000 octets.
        minimum=8192,
        maximum=1024 * 1024,
        unit="bytes",
        text="The longest command after login, with its literals but without messages of APPEND.",
    ),
    Option(
        key="max-literal",
        kind="size",
        default=65_536,
        minimum=1024,
        maximum=1024 * 1024,
        unit="bytes",
        text="The largest literal within a command; messages of APPEND are no such literals.",
    ),
    Option(
        key="append-limit",
        kind="size",
        default=50 * 1024 * 1024,
        minimum=64 * 1024,
        # Clients may store the number that APPENDLIMIT announces in 32 bits (RFC 7889).
        maximum=2**31 - 1,
        unit="bytes",
        text="The largest message that APPEND takes, announced by APPENDLIMIT (RFC 7889).",
    ),
    Option(
        key="max-errors",
        kind="integer",
        default=20,
        minimum=1,
        maximum=1_000_000,
        unit="errors",
        text="After this many BAD answers in a row, after login, the connection is closed.",
    ),
)

_SESSIONS: tuple[Option, ...] = (
    Option(
        key="search-timeout",
        kind="duration",
        default=None,
        minimum=1.0,
        maximum=86_400.0,
        extra={"optional": True, "default-text": "any time"},
        text="How long a SEARCH may take; then it gets `NO [LIMIT]`.",
    ),
    Option(
        key="sessions-per-user",
        kind="integer",
        default=10,
        minimum=1,
        maximum=WIDTH,
        unit="sessions",
        extra={"optional": True},
        text="The most sessions that an account may have from one address, over all workers and "
        "imap listeners; further logins get `NO [LIMIT]`. Clients on a Unix socket have none.",
    ),
    Option(
        key="sessions-per-account",
        kind="integer",
        default=None,
        minimum=1,
        maximum=WIDTH,
        unit="sessions",
        extra={"optional": True},
        text="The most sessions that an account may have from all addresses, likewise.",
    ),
    Option(
        key="idle-keep-alive",
        kind="duration",
        default=120.0,
        minimum=1.0,
        maximum=1740.0,
        extra={"optional": True},
        text="How often a client in IDLE gets `* OK Still here`, so that routers keep the "
        "connection; it ends after `timeout.idle` all the same.",
    ),
)

_ANNOUNCED: tuple[Option, ...] = (
    Option(
        key="disabled-capabilities",
        kind="choices",
        default=(),
        choices=CAN_BE_DISABLED,
        text="Capabilities that are not announced; their commands are answered as unknown ones.",
    ),
    Option(
        key="id-send",
        kind="choices",
        default=("name",),
        choices=("name", "version", "vendor", "support-url", "os", "os-version"),
        text="What the server says of itself in its answer to ID (RFC 2971).",
    ),
    Option(
        key="id-log",
        kind="choices",
        default=(),
        choices=_ID_FIELDS,
        text="Which fields of ID, by which clients name themselves, are logged.",
    ),
    Option(
        key="log-dialogue",
        kind="boolean",
        default=False,
        text="Log commands and responses (at `info`, logger `fastlisten.dialogue`), without "
        "passwords and messages.",
    ),
)

_MAILBOXES: tuple[Option, ...] = (
    Option(
        key="max-folders",
        kind="integer",
        default=10_000,
        minimum=1,
        maximum=10_000_000,
        unit="mailboxes",
        extra={"optional": True},
        text="The most mailboxes that an account may have, with INBOX, and the most names that it "
        "may be subscribed to; CREATE or SUBSCRIBE of another one gets `NO [LIMIT]`.",
    ),
    Option(
        key="max-name-depth",
        kind="integer",
        default=30,
        minimum=1,
        # A name has at most 255 octets.
        maximum=128,
        unit="levels",
        extra={"optional": True},
        text="The most levels that the name of a mailbox may have, as in `a/b/c`, for CREATE and "
        "RENAME.",
    ),
    Option(
        key="max-keywords",
        kind="integer",
        default=128,
        minimum=1,
        maximum=100_000,
        unit="keywords",
        extra={"optional": True},
        text="The most different keywords that clients may give to messages of a mailbox, of at "
        "most 100 characters each; those of messages that are delivered or moved are always kept.",
    ),
)

_FOLDERS: tuple[Option, ...] = tuple(
    Option(
        key=f"folders.{use.lower()}",
        kind="string",
        default=use,
        text=f"{text}, with the use `\\{use}` (RFC 6154); `false`: new accounts get none.",
        extra={"optional": True},
    )
    for use, text in {
        "Drafts": "The folder of drafts",
        "Sent": "The folder of mail that was sent",
        "Junk": "The folder of spam",
        "Trash": "The folder of deleted mail",
        "Archive": "The folder of mail to be kept",
    }.items()
)

#: 36,500 days: numbers of 63 bits hold microseconds since 1970 that are as long ago.
_LONGEST_AGE = 36_500 * 86_400.0

_AUTOEXPUNGE: tuple[Option, ...] = tuple(
    Option(
        key=f"autoexpunge.{use.lower()}",
        kind="duration",
        default=None,
        minimum=3600.0,
        maximum=_LONGEST_AGE,
        text=f"Remove messages that have been in the folder with the use `\\{use}` for this time; "
        "done once a day when the account's owner logs in.",
        extra={"optional": True, "default-text": "never"},
    )
    for use in ("Trash", "Junk")
)

IMAP = Protocol(
    name="imap",
    handler="fastlisten.handlers.imap:ImapHandler",
    port=143,  # RFC 9051 2.1
    tls_port=993,  # RFC 8314 7.1
    server_speaks_first=True,
    starttls=True,  # RFC 9051 6.2.1
    # RFC 9051 5.4: the autologout timer must be at least 30 minutes.
    defaults={"timeout.first-byte": 60.0, "timeout.idle": 1800.0},
    options=(
        *_BOUNDS,
        *_BEFORE_LOGIN,
        *_SESSIONS,
        *_ANNOUNCED,
        *_MAILBOXES,
        *_FOLDERS,
        *_AUTOEXPUNGE,
    ),
    check=check_imap,
)
