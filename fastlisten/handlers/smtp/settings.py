"""What smtp and lmtp are: their ports, and the rows of the tables `[smtp]` and `[lmtp]`.

Rules of this file: data only, so that the configuration can read it without a loop. Keys are
relative to the protocol's table: ``max-recipients`` is written ``smtp.max-recipients`` on a
listener. Rules between values are in checks.py.
"""

from __future__ import annotations

from fastlisten.handlers.protocol import Protocol
from fastlisten.handlers.smtp.checks import check_lmtp, check_smtp
from fastlisten.option import Option

__all__ = ["LMTP", "SMTP"]

# Options of both smtp and lmtp.
_COMMON: tuple[Option, ...] = (
    Option(
        key="max-message-size",
        kind="size",
        default=50 * 1024 * 1024,
        # RFC 5321 4.5.3.1.7: a server must accept messages of at least 64 KiB.
        minimum=64 * 1024,
        # Clients may store the number that SIZE announces in 32 bits.
        maximum=2**31 - 1,
        unit="bytes",
        text="The largest message to accept, announced by SIZE (RFC 1870).",
    ),
    Option(
        key="max-recipients",
        kind="integer",
        default=100,
        # RFC 5321 4.5.3.1.8: a server must accept at least 100 recipients.
        minimum=100,
        maximum=50_000,
        unit="recipients",
        text="The most recipients that a message may have, announced by LIMITS (RFC 9422); further "
        "ones get 452.",
    ),
    Option(
        key="max-received",
        kind="integer",
        default=100,
        # RFC 5321 6.3: "normally at least 100"; a smaller number is for closed systems.
        minimum=10,
        maximum=10_000,
        unit="fields",
        text="A message with more Received fields than this is in a mail loop and is rejected (554 "
        "5.4.6).",
    ),
    Option(
        key="max-errors",
        kind="integer",
        default=20,
        minimum=1,
        maximum=1_000_000,
        unit="errors",
        text="After this many rejected commands the client gets 421 and the connection is closed.",
    ),
    Option(
        key="log-dialogue",
        kind="boolean",
        default=False,
        text="Log commands and replies (at `info`, logger `fastlisten.dialogue`), without "
        "passwords and messages.",
    ),
)

_AIOSMTPD: tuple[Option, ...] = (
    Option(
        key="aiosmtpd-handler",
        kind="string",
        default=None,
        text='A handler class written for aiosmtpd: "package.module:Class".',
    ),
    Option(
        key="aiosmtpd-args",
        kind="string",
        default=None,
        text="Arguments for the aiosmtpd handler class, as on aiosmtpd's command line.",
    ),
)

_RELAY: tuple[Option, ...] = (
    Option(
        key="relay",
        kind="hostport",
        default=None,
        text="The server to which mail from authenticated users for other domains is passed; "
        "without it such mail is rejected (550 5.7.1).",
    ),
    Option(
        key="relay-tls",
        kind="choice",
        default=None,
        choices=("may", "verify", "implicit", "none"),
        text="Encryption to the relay. `verify`: STARTTLS, with a valid certificate for its name; "
        "`implicit`: the same with TLS from the first byte; `may`: STARTTLS if the relay offers "
        "it, with any certificate, otherwise plain text; `none`: plain text.",
        extra={"default-text": "`verify` with `relay-user`, else `may`"},
    ),
    Option(
        key="relay-user",
        kind="string",
        default=None,
        text="The user name for logging in to the relay; over TLS only, unless the relay is on "
        "loopback or a Unix socket.",
    ),
    Option(
        key="relay-password",
        kind="secret",
        default=None,
        text="The password of `relay-user`; `%{file:PATH}%` reads it from another file.",
    ),
    Option(
        key="relay-ca",
        kind="path",
        default=None,
        text="A PEM file of certificate authorities for verifying the relay, instead of the "
        "system's.",
    ),
    Option(
        key="relay-timeout",
        kind="duration",
        default=60.0,
        minimum=1.0,
        maximum=600.0,
        text="How long to wait for the relay to connect, to reply, or to accept more data; ten "
        "times as long for the reply to a whole message (RFC 5321 4.5.3.2.6).",
    ),
)

_SMTP: tuple[Option, ...] = (
    Option(
        key="role",
        kind="choice",
        default=None,
        choices=("mx", "submission"),
        text="`mx`: accept mail for local mailboxes from anybody; `submission`: accept mail only "
        "from authenticated users (RFC 6409), which needs the extra `auth`.",
        extra={"default-text": "`submission` on ports 587, 465, 2587 and 2465, else `mx`"},
    ),
    Option(
        key="sender-must-match",
        kind="boolean",
        default=None,
        text="Accept from authenticated clients only senders that belong to their account: its "
        "address, its aliases, and addresses that a catch-all alias of it covers (others get 553 "
        "5.7.1); `<>` is always allowed.",
        extra={"default-text": "true with the role `submission`, else false"},
    ),
    *_RELAY,
    *_AIOSMTPD,
    *_COMMON,
    Option(
        key="greeting-delay",
        kind="duration",
        default=None,
        minimum=0.1,
        # RFC 5321 4.5.3.2.1: clients wait five minutes for the greeting; real ones less.
        maximum=60.0,
        extra={"optional": True},
        text="Delay the greeting by this time and refuse clients that speak before it, as much "
        "spam software does (554). Connections need Python objects from the start.",
    ),
)

SMTP = Protocol(
    name="smtp",
    handler="fastlisten.handlers.smtp:SmtpHandler",
    port=25,  # RFC 5321 4.5.4.2
    tls_port=465,  # RFC 8314 7.3
    server_speaks_first=True,
    starttls=True,  # RFC 3207
    options=_SMTP,
    check=check_smtp,
)

LMTP = Protocol(
    name="lmtp",
    handler="fastlisten.handlers.smtp:LmtpHandler",
    port=24,  # RFC 2033 5: any but 25; IANA has 24 for "any private mail system"
    server_speaks_first=True,
    starttls=True,
    options=(*_AIOSMTPD, *_COMMON),
    check=check_lmtp,
)
