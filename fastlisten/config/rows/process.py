"""The rows of the whole process: `server.*` keys that listeners do not have, `log.*`, certificates.

Rules of this file: data only. Keys are written in full, since each is valid in one place only.
"""

from __future__ import annotations

from fastlisten.option import Option

__all__ = ["CERTIFICATE_OPTIONS", "MAX_GREETING", "MAX_WORKERS", "PROCESS_OPTIONS"]

#: A greeting line must fit into the 512 octets of RFC 5321 4.5.3.1.5 beside a host name.
MAX_GREETING = 240

#: Shared memory has room for 256 processes, and while all workers are replaced there can be three
#: for each, and one more.
MAX_WORKERS = 85

#: More than any filesystem holds; numbers of IMAP's QUOTA have 63 bits (RFC 9208 7).
LARGEST_QUOTA = 1 << 60

PROCESS_OPTIONS: tuple[Option, ...] = (
    Option(
        key="server.hostname",
        kind="hostname",
        default=None,
        text="The server's host name, as in its greeting.",
        scopes=("process",),
        extra={"default-text": "this host's name"},
    ),
    Option(
        key="server.greeting",
        kind="line",
        default="",
        maximum=MAX_GREETING,
        unit="bytes",
        text="Text after the host name in the greeting.",
        scopes=("process",),
    ),
    Option(
        key="server.run-as.user",
        kind="string",
        default=None,
        text="The user to switch to once the sockets are bound: a name or an id.",
        scopes=("process",),
        reload="restart",
    ),
    Option(
        key="server.run-as.group",
        kind="string",
        default=None,
        text="The group to switch to with the user, a name or an id.",
        scopes=("process",),
        reload="restart",
        extra={"default-text": "the user's own group"},
    ),
    Option(
        key="server.workers",
        kind="workers",
        default=1,
        minimum=1,
        maximum=MAX_WORKERS,
        unit="processes",
        text="The number of worker processes; `auto`: one per processor that the server may use.",
        scopes=("process",),
        reload="restart",
    ),
    Option(
        key="server.total-connections",
        kind="integer",
        default=None,
        minimum=1,
        maximum=2**31 - 1,
        unit="connections",
        text="The most connections that all listeners together may have at a time, over all "
        "workers; each listener's `max-connections` and `limit-action` apply as well.",
        scopes=("process",),
        reload="restart",
        extra={"default-text": "no total"},
    ),
    Option(
        key="server.shutdown-timeout",
        kind="duration",
        default=30.0,
        minimum=0,
        maximum=86400,
        unit="seconds",
        text="How long a shutdown waits for transactions in progress.",
        scopes=("process",),
    ),
    Option(
        key="server.data-directory",
        kind="path",
        default=None,
        text="The directory for mail, accounts and generated certificates.",
        scopes=("process",),
        reload="restart",
        extra={
            "default-text": "`$STATE_DIRECTORY`, else `fastlisten` in the XDG data directory, "
            "else (for users without a home directory) `/var/lib/fastlisten`"
        },
    ),
    Option(
        key="server.accounts",
        kind="path",
        default=None,
        text="The accounts file.",
        scopes=("process",),
        extra={"default-text": "`accounts.toml` in the data directory"},
    ),
    Option(
        key="server.postmaster",
        kind="mailbox",
        default=None,
        text="The account that gets mail for postmaster: without a domain, at the server's host "
        "name, and at each local domain that has no postmaster of its own.",
        scopes=("process",),
        reload="restart",
        extra={
            "default-text": "the first account or alias called postmaster, else the first account"
        },
    ),
    Option(
        key="server.quota.bytes",
        kind="size",
        default=None,
        minimum=1,
        maximum=LARGEST_QUOTA,
        unit="bytes",
        text="How much mail an account may have, all folders together; `quota` in the accounts "
        "file overrides it for one account.",
        scopes=("process",),
        extra={"optional": True, "default-text": "no limit"},
    ),
    Option(
        key="server.quota.messages",
        kind="integer",
        default=None,
        minimum=1,
        maximum=LARGEST_QUOTA,
        unit="messages",
        text="How many messages an account may have, all folders together; `quota` in the accounts "
        "file overrides it for one account.",
        scopes=("process",),
        extra={"optional": True, "default-text": "no limit"},
    ),
    Option(
        key="server.recipient-delimiter",
        kind="choice",
        default="+",
        choices=("+", "-", "=", "_", "#"),
        text="In addresses of recipients, what begins a detail: mail to `alice+work@example.org` "
        "goes to alice, and there into the folder `work` if she has one; `false`: nothing does.",
        scopes=("process",),
        reload="restart",
        extra={"optional": True},
    ),
    Option(
        key="server.control-socket",
        kind="path",
        default=None,
        text="The Unix socket for commands such as `fastlisten status`; only the server's user and "
        "root can use it.",
        scopes=("process",),
        reload="restart",
        extra={
            "default-text": "`control.sock` in `$RUNTIME_DIRECTORY`, else in "
            "`$XDG_RUNTIME_DIR/fastlisten`, else in the data directory"
        },
    ),
    Option(
        key="log.level",
        kind="choice",
        default="info",
        choices=("debug", "info", "warning", "error"),
        text="The lowest level that is logged.",
        scopes=("process",),
    ),
    Option(
        key="log.format",
        kind="choice",
        default="text",
        choices=("text", "json"),
        text="Log lines as text, or one JSON object per line.",
        scopes=("process",),
        reload="restart",
    ),
)

#: The keys of each `[certificate."ID"]`.
CERTIFICATE_OPTIONS: tuple[Option, ...] = (
    Option(
        key="cert",
        kind="pem",
        default="",
        text="The certificate, followed by any intermediate certificates.",
        scopes=("process",),
        extra={"default-text": "required"},
    ),
    Option(
        key="private-key",
        kind="pem",
        default="",
        text="Its private key; best kept in a file that others cannot read.",
        scopes=("process",),
        extra={"default-text": "required"},
    ),
    Option(
        key="default",
        kind="boolean",
        default=False,
        text="Use this certificate for listeners that name none.",
        scopes=("process",),
    ),
)
