"""TLS contexts: a listener's settings applied to Python's ssl, and the choice of a certificate.

Rules of this file: contexts and names; no files, and no lines of the configuration. The context of
a listener's connections is the same object for the life of the listener, because it has the keys of
session tickets. Clients can resume sessions in every process that was forked after the context was
created, and after any number of renewals. Renewed certificates are in other contexts, which its SNI
callback chooses.
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
        client_order: use the client's order of preference.
        alpn: protocol names (RFC 7301); empty to ignore ALPN.
    """

    protocols: tuple[str, ...] = ("TLSv1.2", "TLSv1.3")
    ciphers: tuple[str, ...] = ()
    client_order: bool = False
    alpn: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: ListenerSettings) -> ContextSettings:
        """Return the settings of a listener, without ALPN, which its handler decides on."""
        return cls(
            settings["tls.protocols"],
            settings["tls.ciphers"],
            not settings["tls.ignore-client-order"],
        )

    def context(self, pair: KeyPair, authorities: str = "") -> ssl.SSLContext:
        """Return a context for the server's side of connections.

        Args:
            pair: the certificate and its key.
            authorities: PEM of the CAs for client certificates; empty to request none.

        Raises:
            PemError: the pair cannot be used.
            ssl.SSLError: OpenSSL supports none of the cipher suites, or rejects the CAs.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        spoken = self._spoken()
        context.minimum_version, context.maximum_version = spoken[0], spoken[-1]
        self._choose_ciphers(context)
        # Without this, a client could make the server compute handshakes forever on a connection.
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
            # All of the named CAs are trusted, root or intermediate.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            # In TLS 1.3 each resumption yields a new ticket, so a client could resume its session
            # forever, even after its CA has been removed.
            context.num_tickets = 0
        pair.load_into(context)
        return context

    @property
    def older_suites(self) -> tuple[str, ...]:
        """The configured suites of TLS 1.2; empty if the default is used."""
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
        # The list must not be empty; without TLS 1.2 it has no effect.
        context.set_ciphers(":".join(older or _DEFAULT_SUITES))
        newer = [name for name in self.ciphers if name in TLS13_SUITES]
        # Before Python 3.15 these cannot be chosen, and the configuration does not accept them.
        if newer and hasattr(context, "set_ciphersuites"):
            context.set_ciphersuites(":".join(newer))


def _set_alpn(context: ssl.SSLContext, protocols: Sequence[str]) -> None:
    # Imported here so that `check` does not load native modules.
    from fastlisten._tls import set_alpn

    set_alpn(context, protocols)


def speaks(context: ssl.SSLContext, version: ssl.TLSVersion) -> bool:
    """Tell whether a handshake with a client that supports all of one TLS version succeeds.

    It fails if no cipher suite works with the type of the certificate's key.

    Args:
        context: the server's context, which must not require client certificates.
        version: the client's TLS version.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    client_context.minimum_version = client_context.maximum_version = version
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    # ClientHello; the server's answer; the client reads it.
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            return False
    return True


class RenewableContext:
    """The context of a listener's connections, and the contexts with its certificates.

    Args:
        default: the context of the certificate to use if no name matches.
        names: contexts by host name in lower case; a leading ``*.`` matches one label.

    Attributes:
        context: the context of all connections; always the same object.
    """

    def __init__(self, default: ssl.SSLContext, names: Mapping[str, ssl.SSLContext]) -> None:
        self.context = default
        self._default = default
        self._names: Mapping[str, ssl.SSLContext] = {}
        self.replace(default, names)

    def replace(self, default: ssl.SSLContext, names: Mapping[str, ssl.SSLContext]) -> None:
        """Use other certificates in new handshakes; open connections are not affected.

        Loading them into the existing context would not work: it keeps one certificate for each
        type of key, so an old RSA certificate would still be used after a new ECDSA one is loaded,
        and client CAs cannot be removed from a context.
        """
        self._default, self._names = default, dict(names)
        self._replaced = time.time() if default is not self.context else 0.0
        if self._names or self._default is not self.context:
            # mypy: typeshed expects an SSLObject, but other TLS objects are passed as well.
            self.context.sni_callback = self._choose

    def set_alpn(self, protocols: Sequence[str]) -> None:
        """Negotiate one of these protocols by ALPN, with every certificate.

        A client that offers only others is refused (see `fastlisten._tls.set_alpn`). Contexts given
        to `replace` later must have been set up themselves.
        """
        for context in {self.context, self._default, *self._names.values()}:
            _set_alpn(context, protocols)

    def choose(self, name: str | None) -> ssl.SSLContext:
        """Return the context for a name that a client asks for: exact match, wildcard, default."""
        if not name:
            return self._default
        name = name.lower().removesuffix(".")
        if (exact := self._names.get(name)) is not None:
            return exact
        return self._names.get(f"*.{name.partition('.')[2]}", self._default)

    def _choose(
        self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> ssl.AlertDescription | None:
        """The SNI callback, called for each ClientHello, with or without a name."""
        chosen = self.choose(name)
        if tls.session_reused and chosen.verify_mode is not ssl.CERT_NONE:
            # The client's certificate was verified with the CAs of that time. (With TLS 1.3 there
            # are no tickets here. A session's time is in whole seconds.)
            session = tls.session
            if session is None or session.time <= self._replaced:
                return ssl.AlertDescription.ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN
        if chosen is not self.context:
            tls.context = chosen
        return None
