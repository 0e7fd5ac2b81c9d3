"""TLS contexts: a listener's settings applied to Python's ssl, and which certificate is shown.

Rules of this file: contexts and names, no files and no configuration's lines. The context that
connections are made with stays the same for the life of its listener, because it holds the keys
of session tickets: a client that comes back is known again, in every process that was forked
after the context was made, and after any number of renewals. What is renewed is put behind it.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastlisten.config import ListenerSettings
from fastlisten.config.values.tls import TLS12_SUITES, TLS13_SUITES
from fastlisten.runtime.tls.pem import KeyPair

__all__ = ["ContextSettings", "RenewableContext", "speaks"]

_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

#: Suites of TLS 1.2 where none are configured: forward secrecy and AEAD, strongest first.
_DEFAULT_SUITES = tuple(TLS12_SUITES.values())


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """The settings of a listener's contexts; the same for each of its certificates.

    Attributes:
        protocols: the TLS versions, as `tls.protocols`.
        ciphers: OpenSSL's names in order of preference, empty for the default.
        client_order: the client's order of preference counts.
        alpn: protocol names (RFC 7301), empty to answer no such question.
    """

    protocols: tuple[str, ...] = ("TLSv1.2", "TLSv1.3")
    ciphers: tuple[str, ...] = ()
    client_order: bool = False
    alpn: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: ListenerSettings) -> ContextSettings:
        """Return what a listener's settings ask for; ALPN is its handler's business."""
        return cls(
            settings["tls.protocols"],
            settings["tls.ciphers"],
            not settings["tls.ignore-client-order"],
        )

    def context(self, pair: KeyPair, authorities: str = "") -> ssl.SSLContext:
        """Return a context for the server's side of connections.

        Args:
            pair: the certificate that it shows.
            authorities: PEM of those whose certificates clients must have; empty to ask for none.

        Raises:
            PemError: the pair cannot be used.
            ssl.SSLError: OpenSSL knows none of the cipher suites, or no such authorities.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        spoken = self._spoken()
        context.minimum_version, context.maximum_version = spoken[0], spoken[-1]
        self._choose_ciphers(context)
        # A client could otherwise keep the server computing handshakes on one connection.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        if self.client_order:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        else:
            context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        if self.alpn:
            _set_alpn(context, self.alpn)
        if authorities:
            context.load_verify_locations(cadata=authorities)
            context.verify_mode = ssl.CERT_REQUIRED
            # Whoever is named is trusted, be it a root or an authority below one.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            # In TLS 1.3 each return yields a ticket with a new term: a client could go on for
            # ever on what it proved once, whatever becomes of its authority.
            context.num_tickets = 0
        pair.load_into(context)
        return context

    @property
    def older_suites(self) -> tuple[str, ...]:
        """The suites that are configured for TLS 1.2, empty where that is the default's affair."""
        if "TLSv1.2" not in self.protocols:
            return ()
        return tuple(name for name in self.ciphers if name not in TLS13_SUITES)

    def _spoken(self) -> list[ssl.TLSVersion]:
        """Return the versions for which there is a suite, oldest first."""
        chosen = set(self.ciphers)
        without = {
            "TLSv1.2": bool(chosen) and not chosen - set(TLS13_SUITES),
            "TLSv1.3": bool(chosen) and not chosen & set(TLS13_SUITES),
        }
        return [_VERSIONS[name] for name in self.protocols if not without[name]]

    def _choose_ciphers(self, context: ssl.SSLContext) -> None:
        older = [name for name in self.ciphers if name not in TLS13_SUITES]
        # The list must never be empty; without TLS 1.2 nobody asks for what is on it.
        context.set_ciphers(":".join(older or _DEFAULT_SUITES))
        newer = [name for name in self.ciphers if name in TLS13_SUITES]
        # Before Python 3.15 there is no choice, and the configuration has not asked for one.
        if newer and hasattr(context, "set_ciphersuites"):
            context.set_ciphersuites(":".join(newer))


def _set_alpn(context: ssl.SSLContext, protocols: Sequence[str]) -> None:
    # Imported here: a program that checks certificates and serves nothing needs no native module.
    from fastlisten._tls import set_alpn

    set_alpn(context, protocols)


def speaks(context: ssl.SSLContext, version: ssl.TLSVersion) -> bool:
    """Tell whether a client that supports everything in one TLS version is shown the certificate.

    It is not if no cipher suite fits the certificate's kind of key.

    Args:
        context: of the server; clients are asked for no certificate.
        version: what the client speaks.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    client_context.minimum_version = client_context.maximum_version = version
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    # Its hello, the server's answer, its reading of it.
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            return False
    return True


class RenewableContext:
    """The context that connections are made with, and those whose certificates it shows.

    Args:
        default: the context of the certificate that is shown where no name fits.
        names: contexts by host name in lower case; ``*.`` before one stands for one label.

    Attributes:
        context: for all connections; never another one.
    """

    def __init__(self, default: ssl.SSLContext, names: Mapping[str, ssl.SSLContext]) -> None:
        self.context = default
        self._default = default
        self._names: Mapping[str, ssl.SSLContext] = {}
        self.replace(default, names)

    def replace(self, default: ssl.SSLContext, names: Mapping[str, ssl.SSLContext]) -> None:
        """Show other certificates in new handshakes; open connections are not affected.

        Loading into the context itself would not do: it keeps one certificate for each kind of
        key, so that the old RSA one would go on being shown beside a new one of ECDSA, and an
        authority of clients that it knows can never be taken away again.
        """
        self._default, self._names = default, dict(names)
        self._replaced = time.time() if default is not self.context else 0.0
        if self._names or self._default is not self.context:
            # mypy: typeshed wants an SSLObject where each kind of TLS object comes.
            self.context.sni_callback = self._choose

    def set_alpn(self, protocols: Sequence[str]) -> None:
        """Negotiate one of these protocols by ALPN, whichever certificate is shown.

        A client that offers only others is refused (see `fastlisten._tls.set_alpn`).

        Contexts that `replace` is given later bring their own.
        """
        for context in {self.context, self._default, *self._names.values()}:
            _set_alpn(context, protocols)

    def choose(self, name: str | None) -> ssl.SSLContext:
        """Return the context for a name that a client asks for: exact, wildcard, default."""
        if not name:
            return self._default
        name = name.lower().removesuffix(".")
        if (exact := self._names.get(name)) is not None:
            return exact
        return self._names.get(f"*.{name.partition('.')[2]}", self._default)

    def _choose(
        self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> ssl.AlertDescription | None:
        """Called by OpenSSL with the client's first message, with a name or without one."""
        chosen = self.choose(name)
        if tls.session_reused and chosen.verify_mode is not ssl.CERT_NONE:
            # What the client has proved was proved to the authorities of that time. (TLS 1.3 has
            # no sessions here. Seconds are all that a session remembers.)
            session = tls.session
            if session is None or session.time <= self._replaced:
                return ssl.AlertDescription.ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN
        if chosen is not self.context:
            tls.context = chosen
        return None
