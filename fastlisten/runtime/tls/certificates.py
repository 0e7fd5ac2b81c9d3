"""The certificates of a configuration: loading, checking, sharing between listeners, reloading.

Rules of this file: all problems are reported together, as made by certificate_problems.py. A
certificate is checked before it is used. A reload makes a new object from the one in use, and
nothing changes until that is committed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from fastlisten.config import Config, ListenerSettings
from fastlisten.config.notation import quote
from fastlisten.errors import ConfigurationError, Problem
from fastlisten.runtime.tls.certificate_problems import (
    SELF_SIGNED,
    CertificateId,
    CertificateProblems,
    UnusableError,
    name_of,
    needed_by,
)
from fastlisten.runtime.tls.contexts import ContextSettings, RenewableContext, speaks
from fastlisten.runtime.tls.pem import (
    KeyPair,
    PemError,
    authorities,
    fingerprint,
    read_source,
    source_file,
)
from fastlisten.runtime.tls.self_signed import MissingLibraryError, keep, try_to_keep

__all__ = ["Certificates", "ReloadResult"]


@dataclass(slots=True)
class ReloadResult:
    """What has changed in files that were in use before.

    Attributes:
        changed: what new handshakes use from now on, a sentence each.
        warnings: what the administrator should know, a sentence each.
        problems: what cannot be used any more; what was loaded before stays in use.
        files: how many of these files were read.
    """

    changed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: int = 0


@dataclass(frozen=True, slots=True)
class _ContextGroup:
    """Listeners share a context if all of this is the same."""

    handler: str  # its class has the protocols for ALPN
    settings: ContextSettings
    certificate: CertificateId
    names: tuple[tuple[str, str], ...]
    client_ca: str | None

    @property
    def ids(self) -> tuple[CertificateId, ...]:
        """All certificates, the default one first."""
        return tuple(dict.fromkeys((self.certificate, *(id for _, id in self.names))))


class Certificates:
    """The TLS contexts of all listeners.

    With `former` they replace those of a running server: listeners whose settings are the same keep
    their contexts, with the keys of session tickets. Nothing that is in use changes before
    `commit`. A file that was in use before and is now broken is no reason to refuse the
    configuration: what was loaded stays in use, and `found` has the problem.

    Args:
        config: a loaded configuration.
        trial: write nothing; a new self-signed certificate is not kept.
        former: the certificates that these replace.
        owner: returns a context in which the self-signed certificate is read or created, for the
            user that it belongs to.

    Attributes:
        config: as given.
        notes: what the administrator should know about those that were not loaded before: expired
            and self-signed certificates.
        found: what has changed in the files of those that were.

    Raises:
        ConfigurationError: with everything that cannot be used.
    """

    def __init__(
        self,
        config: Config,
        *,
        trial: bool = False,
        former: Certificates | None = None,
        owner: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._trial = trial
        self._owner = owner
        self._only_tried = False
        self._former = former
        self._replacements: list[
            tuple[RenewableContext, ssl.SSLContext, dict[str, ssl.SSLContext]]
        ] = []
        self.notes: list[str] = []
        self.found = ReloadResult()
        self.config = config
        self._reports = CertificateProblems(config)
        self._pairs: dict[CertificateId, KeyPair] = {}
        self._client_cas: dict[str, str] = {}
        self._live: dict[_ContextGroup, RenewableContext] = {}
        self._alpn: dict[_ContextGroup, tuple[str, ...]] = {}
        self._groups: dict[str, _ContextGroup] = {}
        for listener in config.listeners:
            if listener["tls.implicit"] or listener.starttls:
                group = self._groups[listener.id] = _ContextGroup(
                    listener["handler"] or listener.protocol,
                    ContextSettings.of(listener),
                    listener["tls.certificate"],
                    tuple(sorted(listener["tls.sni"])),
                    listener["tls.client-ca"],
                )
                for id in group.ids:
                    self._reports.users.setdefault(id, []).append(listener)
        self._load()

    def context(self, listener: str) -> ssl.SSLContext | None:
        """Return the context for the connections of a listener, None if it has no TLS.

        It is the same object after a reload, unless the listener's TLS settings have changed.
        """
        group = self._groups.get(listener)
        return None if group is None else self._live[group].context

    def set_alpn(self, listener: str, protocols: tuple[str, ...]) -> None:
        """Let a listener's connections negotiate a protocol by ALPN (RFC 7301).

        The names come from the handler, which is imported after the contexts have been created.
        Does nothing if the listener has no TLS.
        """
        group = self._groups.get(listener)
        if group is not None and protocols != self._alpn.get(group, ()):
            self._alpn[group] = protocols
            self._live[group].set_alpn(protocols)

    def expiry(self) -> dict[str, dict[str, float]]:
        """Return when certificates expire, in Unix time, by listener and certificate.

        The self-signed certificate has the empty name. Listeners without TLS are not included.
        """
        ends = {id: pair.valid()[1].timestamp() for id, pair in self._pairs.items()}
        return {
            listener: {"" if id is SELF_SIGNED else id: ends[id] for id in group.ids}
            for listener, group in self._groups.items()
        }

    def date_warnings(self) -> list[str]:
        """Return a warning for each certificate that is not valid now, or not for much longer."""
        return [line for id, pair in self._pairs.items() for line in self._reports.dates(id, pair)]

    def commit(self) -> None:
        """Use renewed files in new handshakes.

        Open connections and the keys of session tickets are not affected.
        """
        for live, default, names in self._replacements:
            live.replace(default, names)
        self._replacements.clear()
        self._former = None

    # -- loading

    def _load(self) -> None:
        problems: list[Problem] = []
        for id in list(self._reports.users):
            try:
                if self._renew(id):
                    continue
                pair = self._keep_self_signed() if id is SELF_SIGNED else self._read(id)
                if pair is not None:
                    self._try(id, pair)
                    self._pairs[id] = pair
                    self.notes += self._remarks(id, pair)
            except UnusableError as error:
                problems.append(error.problem)
        used = {} if self._former is None else self._former._pairs
        for id in self._pairs.keys() & used.keys():
            self.found.warnings += self._reports.dates(id, self._pairs[id])
        for path in dict.fromkeys(group.client_ca for group in self._groups.values()):
            try:
                if path is not None and not self._renew_client_ca(path):
                    self._client_cas[path] = self._read_client_ca(path)
            except UnusableError as error:
                problems.append(error.problem)
        for group in dict.fromkeys(() if problems else self._groups.values()):
            live = None if self._former is None else self._former._live.get(group)
            try:
                if live is None:
                    self._live[group] = RenewableContext(*self._contexts(group))
                    self.notes += self._unfit(group)
                    continue
            except UnusableError as error:
                problems.append(error.problem)
                continue
            self._live[group] = live
            self._alpn[group] = self._former._alpn.get(group, ()) if self._former else ()
            if self._is_same(group):
                continue
            try:
                self._replacements.append((live, *self._contexts(group)))
                self.found.warnings += self._unfit(group)
            except UnusableError as error:
                self.found.problems.append(error.problem)
        if problems:
            problems.sort(key=lambda problem: problem.line)
            raise ConfigurationError(problems, self.config.warnings)

    def _is_same(self, group: _ContextGroup) -> bool:
        """Whether what listeners use has the same content as before."""
        former = self._former
        return former is not None and all(
            [
                *(self._pairs[id] == former._pairs.get(id) for id in group.ids),
                group.client_ca is None
                or self._client_cas[group.client_ca] == former._client_cas.get(group.client_ca),
            ]
        )

    def _renew(self, id: CertificateId) -> bool:
        """Read the files of a certificate that is in use; return False if it was not in use."""
        former = self._former
        if former is None or (before := former._pairs.get(id)) is None:
            return False
        if id is SELF_SIGNED:
            self._reports.self_signed_file = former._reports.self_signed_file
        sources = self._reports.sources(id)
        if sources != former._reports.sources(id):
            return False
        self._pairs[id] = before
        files = len({*map(source_file, sources)} - {""})
        if not files:
            return True
        self.found.files += files
        owner = self._owner if id is SELF_SIGNED else contextlib.nullcontext
        try:
            with owner():
                pair = self._read(id)
            if pair == before:
                return True
            self._try(id, pair)
        except UnusableError as error:
            self.found.problems.append(error.problem)
            return True
        self._pairs[id] = pair
        dates = f"valid until {pair.valid()[1]:%Y-%m-%d}"
        text = f"{name_of(id)} has been replaced: {dates}, SHA-256 {fingerprint(pair.cert)}"
        self.found.changed.append(text)
        return True

    def _renew_client_ca(self, path: str) -> bool:
        """Read a file of client CAs that is in use; return False if it was not in use."""
        if self._former is None or (before := self._former._client_cas.get(path)) is None:
            return False
        self._client_cas[path] = before
        self.found.files += 1
        try:
            if (text := self._read_client_ca(path)) == before:
                return True
        except UnusableError as error:
            self.found.problems.append(error.problem)
            return True
        self._client_cas[path] = text
        self.found.changed.append(f"the client CAs in {path} have changed")
        return True

    def _keep_self_signed(self) -> KeyPair | None:
        """Return the self-signed pair; None if it cannot be created but is not needed.

        Raises:
            UnusableError: it cannot be created or read.
        """
        at_data_directory = self._reports.at_data_directory
        directory = self.config.process["server.data-directory"]
        hostname = self.config.process["server.hostname"]
        try:
            with self._owner():
                kept = (try_to_keep if self._trial else keep)(directory, hostname)
        except MissingLibraryError as error:
            self._do_without(str(error))
            return None
        except OSError as error:
            message = f"cannot keep a self-signed certificate there: {error.strerror}"
            raise UnusableError(at_data_directory(message)) from None
        except PemError as error:
            message = f"the self-signed certificate in it cannot be used: {error}"
            raise UnusableError(at_data_directory(message)) from None
        self._reports.self_signed_file = kept.path
        self._only_tried = self._trial and kept.made
        return kept.pair

    def _do_without(self, why: str) -> None:
        """Don't offer STARTTLS on listeners that offer it by default.

        Raises:
            UnusableError: a listener sets `tls.enable` or `tls.implicit`.
        """
        users = self._reports.users.pop(SELF_SIGNED)
        for listener in users:
            key = "tls.implicit" if listener["tls.implicit"] else "tls.enable"
            if listener["tls.implicit"] or listener.origin(key) != "default":
                raise UnusableError(
                    self.config.problem(
                        listener.path(key),
                        f"{self._none()}, and {why}{needed_by(users)}",
                        "true",
                        'a table [certificate."default"] with cert and private-key',
                    )
                )
        for listener in users:
            del self._groups[listener.id]
        self.notes.append(f"STARTTLS is not offered{needed_by(users)}: {self._none()}, and {why}")

    # -- files and contexts

    def _contexts(self, group: _ContextGroup) -> tuple[ssl.SSLContext, dict[str, ssl.SSLContext]]:
        """Return the contexts of a listener's certificates: the default one, and others by name."""
        text = "" if group.client_ca is None else self._client_cas[group.client_ca]
        settings = dataclasses.replace(group.settings, alpn=self._alpn.get(group, ()))
        try:
            made = {id: settings.context(self._pairs[id], text) for id in group.ids}
        except ssl.SSLError as error:
            message = f"OpenSSL on this host does not support it: {error.reason or error}"
            report = self._reports.at_listener(self._sharing(group), "tls.ciphers", message)
            raise UnusableError(report) from None
        return made[group.certificate], {name: made[id] for name, id in group.names}

    def _unfit(self, group: _ContextGroup) -> list[str]:
        """Return a warning for each certificate whose key works with none of the cipher suites."""
        # The default suites work with every type of key, and so does each suite of TLS 1.3.
        if not group.settings.older_suites:
            return []
        contexts = {id: group.settings.context(self._pairs[id]) for id in group.ids}
        return [
            str(
                self._reports.at_listener(
                    self._sharing(group),
                    "tls.ciphers",
                    f"no configured TLS 1.2 cipher suite works with the key of {name_of(id)}",
                )
            )
            for id, context in contexts.items()
            if not speaks(context, ssl.TLSVersion.TLSv1_2)
        ]

    def _sharing(self, group: _ContextGroup) -> list[ListenerSettings]:
        return [one for one in self.config.listeners if self._groups.get(one.id) == group]

    def _read(self, id: CertificateId) -> KeyPair:
        read = []
        for source, of_key in zip(self._reports.sources(id), (False, True), strict=True):
            try:
                read.append(read_source(source))
            except PemError as error:
                raise self._broken(id, of_key, str(error)) from None
        return KeyPair(*read)

    def _try(self, id: CertificateId, pair: KeyPair) -> None:
        """Check a pair by loading it into a context that is not used."""
        try:
            pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except PemError as error:
            raise self._broken(id, error.of_key, str(error)) from None

    def _read_client_ca(self, path: str) -> str:
        try:
            return authorities(read_source(f"file://{path}"))
        except PemError as error:
            users = [one for one in self.config.listeners if one["tls.client-ca"] == path]
            report = self._reports.at_listener(users, "tls.client-ca", str(error), quote(path))
            raise UnusableError(report) from None

    def _broken(self, id: CertificateId, of_key: bool, message: str) -> UnusableError:
        return UnusableError(self._reports.of_certificate(id, of_key, message))

    # -- notes

    def _remarks(self, id: CertificateId, pair: KeyPair) -> list[str]:
        """Return the notes on a certificate."""
        dates = self._reports.dates(id, pair)
        if id is not SELF_SIGNED:
            return dates
        text = (
            f"{self._none()}{needed_by(self._reports.users[id])}: clients will see a "
            "self-signed certificate that they do not trust"
        )
        if self._only_tried:
            return [f"{text}; it will be created at startup"]
        where = f"kept in {self._reports.self_signed_file}"
        return [f"{text}, {where}; SHA-256 {fingerprint(pair.cert)}", *dates]

    def _none(self) -> str:
        if self.config.certificates:
            return "tls.certificate is not set, and there is no default certificate"
        return "no certificate is configured"
