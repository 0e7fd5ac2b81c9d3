"""Problems with certificates, with the line of the configuration that names them.

Rules of this file: messages only. Inline PEM text is never quoted, because it is long or secret.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from fastlisten.config import Config, ListenerSettings
from fastlisten.config.notation import quote
from fastlisten.errors import Problem
from fastlisten.runtime.tls.pem import KeyPair, source_file

__all__ = [
    "EXPIRES_SOON",
    "SELF_SIGNED",
    "CertificateId",
    "CertificateProblems",
    "UnusableError",
    "name_of",
    "needed_by",
]

#: How long before its end a certificate is warned about. Let's Encrypt's certificates, valid for 90
#: days, are usually renewed 30 days before their end; two weeks later something is wrong.
EXPIRES_SOON = datetime.timedelta(days=14)

#: The id of the self-signed certificate. Other ids are names of tables, which are text.
SELF_SIGNED = None

CertificateId = str | None


class UnusableError(Exception):
    """Something cannot be used; `problem` is what to report."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class CertificateProblems:
    """Creates problems for one configuration.

    Attributes:
        config: the configuration.
        users: the listeners that use each certificate.
        self_signed_file: the file of the self-signed certificate, empty if there is none.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.users: dict[CertificateId, list[ListenerSettings]] = {}
        self.self_signed_file = ""

    def sources(self, id: CertificateId) -> tuple[str, str]:
        """Return the configured values for certificate and key: PEM text, or ``file://`` paths."""
        if id is SELF_SIGNED:
            return (f"file://{self.self_signed_file}",) * 2
        certificate = self.config.certificates[id]
        return certificate.cert, certificate.private_key

    def of_certificate(self, id: CertificateId, of_key: bool, message: str) -> Problem:
        """Return a problem with a certificate, or with its key."""
        message += needed_by(self.users[id])
        if id is SELF_SIGNED:
            return self.at_data_directory(
                f"the self-signed certificate in {self.self_signed_file}: {message}"
            )
        source = self.sources(id)[of_key]
        key = "private-key" if of_key else "cert"
        shown = quote(source) if source_file(source) else ""
        return self.config.problem(("certificate", id, key), message, shown)

    def at_data_directory(self, message: str) -> Problem:
        """Return a problem with the directory of the self-signed certificate."""
        directory = self.config.process["server.data-directory"]
        return self.config.problem(("server", "data-directory"), message, quote(directory))

    def at_listener(
        self, users: Sequence[ListenerSettings], key: str, message: str, value: str = ""
    ) -> Problem:
        """Return a problem with a key that several listeners share."""
        return self.config.problem(users[0].path(key), message + needed_by(users), value)

    def dates(self, id: CertificateId, pair: KeyPair) -> list[str]:
        """Return a warning if a certificate is not valid now, or not for much longer."""
        first, last = pair.valid()
        now = datetime.datetime.now(datetime.UTC)
        if last < now:
            trouble = f"expired on {last:%Y-%m-%d}"
        elif first > now:
            trouble = f"is not valid before {first:%Y-%m-%d}"
        elif (left := last - now) < EXPIRES_SOON:
            days = (
                "less than a day"
                if not left.days
                else "1 day"
                if left.days == 1
                else f"{left.days} days"
            )
            trouble = f"expires on {last:%Y-%m-%d}, in {days}"
        else:
            return []
        return [str(self.of_certificate(id, False, f"the certificate {trouble}"))]


def name_of(id: CertificateId) -> str:
    """Return a certificate's name for use in a sentence."""
    return "the self-signed certificate" if id is SELF_SIGNED else f"certificate {quote(id)}"


def needed_by(listeners: Sequence[ListenerSettings]) -> str:
    """Return the names of listeners in parentheses, at most three."""
    names = ", ".join(quote(listener.id) for listener in listeners[:3])
    more = f" and {len(listeners) - 3:,} more" if len(listeners) > 3 else ""
    return f" (listener{'s' if len(listeners) > 1 else ''} {names}{more})"
