"""What smtp and lmtp are: their ports, and the rows of the tables `[smtp]` and `[lmtp]`.

Rules of this file: data only, so that the configuration can read it without a loop. Keys are
relative to the protocol's table: ``max-recipients`` is written ``smtp.max-recipients`` on a
listener. What must hold between rows is in checks.py.
"""

from __future__ import annotations

from fastlisten.handlers.protocol import Protocol
from fastlisten.handlers.smtp.checks import check_lmtp, check_smtp
from fastlisten.option import Option

__all__ = ["LMTP", "SMTP"]

# What a server is asked for whoever brings the mail.
_COMMON: tuple[Option, ...] = (
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
        text="How many recipients one message may have, announced by LIMITS (RFC 9422); further "
        "ones are told to come again (452).",
    ),
    Option(
        key="max-received",
        kind="integer",
        default=100,
        # RFC 5321 6.3: "normally at least 100"; a smaller number is for closed systems.
        minimum=10,
        maximum=10_000,
        unit="fields",
        text="A message whose header has more Received fields than this is in a mail loop and is "
        "refused (554 5.4.6).",
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
    Option(
        key="log-dialogue",
        kind="boolean",
        default=False,
        text="Commands and replies are logged (at `info`, logger `fastlisten.dialogue`), without "
        "passwords and messages.",
    ),
)

_AIOSMTPD: tuple[Option, ...] = (
    Option(
        key="aiosmtpd-handler",
        kind="string",
        default=None,
        text='A handler class written for aiosmtpd, as "package.module:Class".',
    ),
    Option(
        key="aiosmtpd-args",
        kind="string",
        default=None,
        text="What the aiosmtpd handler class is made with, written as on aiosmtpd's command line.",
    ),
)

_RELAY: tuple[Option, ...] = (
    Option(
        key="relay",
        kind="hostport",
        default=None,
        text="The server that takes mail for addresses outside of the accounts' domains, from "
        "authenticated users only; without it nobody's is taken (550 5.7.1).",
    ),
    Option(
        key="relay-tls",
        kind="choice",
        default=None,
        choices=("may", "verify", "implicit", "none"),
        text="How the relay is spoken to: `verify` by STARTTLS, its certificate must be good for "
        "its name; `implicit` the same with TLS from the first byte; `may` by STARTTLS if it "
        "offers that, whatever its certificate, else in plain text; `none` in plain text.",
        extra={"default-text": "`verify` with `relay-user`, else `may`"},
    ),
    Option(
        key="relay-user",
        kind="string",
        default=None,
        text="The name to log in with at the relay; over TLS only, unless the relay is on "
        "loopback or a Unix socket.",
    ),
    Option(
        key="relay-password",
        kind="secret",
        default=None,
        text="The password that goes with `relay-user`; `%{file:PATH}%` keeps it in another file.",
    ),
    Option(
        key="relay-ca",
        kind="path",
        default=None,
        text="A PEM file of the authorities that the relay's certificate is checked against, "
        "instead of the host's.",
    ),
    Option(
        key="relay-timeout",
        kind="duration",
        default=60.0,
        minimum=1.0,
        maximum=600.0,
        text="How long to wait for the relay: to connect, for each reply, for each piece that it "
        "takes; ten times as long for the reply to a whole message (RFC 5321 4.5.3.2.6).",
    ),
)

_SMTP: tuple[Option, ...] = (
    Option(
        key="role",
        kind="choice",
        default=None,
        choices=("mx", "submission"),
        text="Whether strangers may bring mail here (mx) or users must authenticate first "
        "(submission, RFC 6409), which needs the extra `auth`.",
        extra={"default-text": "`submission` on ports 587, 465, 2587 and 2465, else `mx`"},
    ),
    Option(
        key="sender-must-match",
        kind="boolean",
        default=None,
        text="A client that has logged in may name only its account's own address as the sender, "
        "one of its aliases, or what an alias of it catches (else 553 5.7.1); `<>` is always "
        "allowed.",
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
        text="Clients are greeted only after this time, and one that speaks before it, as most "
        "programs that send spam do, is refused (554). Costs Python objects at accept.",
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
