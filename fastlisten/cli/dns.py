"""`fastlisten dns [FILE]`: the DNS records to publish, made from a configuration.

Rules of this file: nothing is looked up or sent. The domains are those of the accounts, unless some
are given. The output is part of a zone file; what an administrator should know is a comment in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from fastlisten.cli.check import CONFIGURATION_ERROR, open_config
from fastlisten.config import Config
from fastlisten.errors import ConfigurationError
from fastlisten.mail.accounts.accounts_file import parse_file
from fastlisten.mail.accounts.roster import parse_alias, read_accounts
from fastlisten.mail.address import AddressError
from fastlisten.mail.client_setup.records import zone_lines
from fastlisten.mail.client_setup.services import ClientService
from fastlisten.runtime.client_services import client_services, documents_at, receives_mail

__all__ = ["run"]

_FAILED = 1


def run(file: str | None, domains: Sequence[str], out: TextIO, err: TextIO) -> int:
    """Print the records.

    Args:
        file: the configuration; None for the embedded default.
        domains: of the mail; empty: those of the accounts.
        out: receives the records.
        err: receives mistakes.

    Returns:
        0; 1 if there is no domain, or one that is none; 2 if the configuration cannot be used.
    """
    config = open_config(file, err)
    if config is None:
        return CONFIGURATION_ERROR
    try:
        names = [_domain(name) for name in domains] if domains else _domains_of_accounts(config)
        services = [
            ClientService(one.kind, one.implicit, _ascii(one.host), one.port)
            for one in client_services(config)
        ]
        mx, setup = receives_mail(config), documents_at(config)
        lines: list[str] = []
        for name in names:
            lines += ["", f"; {name}"] if lines else [f"; {name}"]
            place = None if setup is None else (_ascii(setup[0]), setup[1])
            lines += zone_lines(_ascii(name), services, _ascii(mx) if mx else "", place)
    except (AddressError, ConfigurationError, OSError, UnicodeError) as error:
        print(f"error: {error}", file=err)
        return _FAILED
    if not names:
        print("error: there are no accounts; name a domain with --domain", file=err)
        return _FAILED
    for line in lines:
        print(line, file=out)
    if not services:
        note = "other machines can reach no listener for imap or submission"
        print(f"note: {note}, so that the records say there is none", file=err)
    return 0


def _domain(text: str) -> str:
    try:
        return parse_alias(f"@{text}").domain
    except AddressError:
        raise AddressError(f"{text!r} is not a domain") from None


def _domains_of_accounts(config: Config) -> list[str]:
    path = config.process["server.accounts"]
    try:
        roster = parse_file(read_accounts(path), path)
    except FileNotFoundError:
        return []
    texts = (text for account in roster.accounts for text in (account.name, *account.aliases))
    domains = {parse_alias(text).domain for text in texts}
    return sorted(domain for domain in domains if not domain.startswith("["))  # no literals


def _ascii(name: str) -> str:
    """Return a name as DNS has it."""
    return name if name.isascii() else name.encode("idna").decode("ascii")
