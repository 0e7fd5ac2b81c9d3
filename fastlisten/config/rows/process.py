"""The rows of the whole process: `server.*` keys that no listener has, `log.*`, certificates.

Rules of this file: data only. Keys are written in full, because these rows stand in one place.
"""

from __future__ import annotations

from fastlisten.option import Option

__all__ = ["CERTIFICATE_OPTIONS", "MAX_GREETING", "PROCESS_OPTIONS"]

#: A greeting line must fit into the 512 octets of RFC 5321 4.5.3.1.5 beside a host name.
MAX_GREETING = 240

PROCESS_OPTIONS: tuple[Option, ...] = (
    Option(
        key="server.hostname",
        kind="hostname",
        default=None,
        text="The name that the server greets with.",
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
        text="The user that the server becomes once its sockets are bound.",
        scopes=("process",),
        reload="restart",
        available=False,
    ),
    Option(
        key="server.run-as.group",
        kind="string",
        default=None,
        text="The group that the server becomes once its sockets are bound.",
        scopes=("process",),
        reload="restart",
        available=False,
    ),
    Option(
        key="server.workers",
        kind="workers",
        default=1,
        minimum=1,
        maximum=1024,
        unit="processes",
        text="Worker processes; `auto` is one for each processor that the server may use.",
        scopes=("process",),
        reload="restart",
        available=False,
        inert=(1,),
    ),
    Option(
        key="server.shutdown-timeout",
        kind="duration",
        default=30.0,
        minimum=0,
        maximum=86400,
        unit="seconds",
        text="How long transactions in progress may take to finish after a stop was asked for.",
        scopes=("process",),
    ),
    Option(
        key="server.data-directory",
        kind="path",
        default=None,
        text="Where mail, accounts and generated certificates live.",
        scopes=("process",),
        reload="restart",
        extra={
            "default-text": "`$STATE_DIRECTORY`, else `fastlisten` in the XDG data home, "
            "without a home in `/var/lib`"
        },
    ),
    Option(
        key="server.accounts",
        kind="path",
        default=None,
        text="The file of accounts.",
        scopes=("process",),
        extra={"default-text": "`accounts.toml` in the data directory"},
    ),
    Option(
        key="server.postmaster",
        kind="mailbox",
        default=None,
        text="The account that gets the mail for postmaster: without a domain, of the server's "
        "host name, and of each local domain where nobody has that name.",
        scopes=("process",),
        reload="restart",
        extra={"default-text": "the first account or alias called postmaster, else the first"},
    ),
    Option(
        key="server.control-socket",
        kind="path",
        default=None,
        text="Unix socket that takes commands such as reload.",
        scopes=("process",),
        reload="restart",
        available=False,
    ),
    Option(
        key="log.level",
        kind="choice",
        default="info",
        choices=("debug", "info", "warning", "error"),
        text="The least important records that are written.",
        scopes=("process",),
    ),
    Option(
        key="log.format",
        kind="choice",
        default="text",
        choices=("text", "json"),
        text="One line of text or one JSON object per record.",
        scopes=("process",),
        reload="restart",
    ),
)

#: What stands in each `[certificate."ID"]`.
CERTIFICATE_OPTIONS: tuple[Option, ...] = (
    Option(
        key="cert",
        kind="pem",
        default="",
        text="The certificate, followed by those between it and the authority.",
        scopes=("process",),
        extra={"default-text": "required"},
    ),
    Option(
        key="private-key",
        kind="pem",
        default="",
        text="Its private key; better in a file that others cannot read.",
        scopes=("process",),
        extra={"default-text": "required"},
    ),
    Option(
        key="default",
        kind="boolean",
        default=False,
        text="Listeners that name no certificate show this one.",
        scopes=("process",),
    ),
)
