"""The certificates of a configuration: read, tried, shared between listeners, read again.

Rules of this file: it knows which key of the configuration names what, and reports every trouble
with it, all of them together. Nothing becomes visible to clients before all of it has been tried.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fastlisten.config import Config, ListenerSettings
from fastlisten.config.text import quote
from fastlisten.errors import ConfigurationError, Problem
from fastlisten.runtime.contexts import Front, Recipe
from fastlisten.runtime.pem import (
    Pair,
    PemError,
    authorities,
    fingerprint,
    read_source,
    source_file,
)
from fastlisten.runtime.self_signed import MissingLibraryError, keep

__all__ = ["Certificates", "Reread"]

#: Stands for the self-signed certificate where others have the id of their table, which no
#: table's name can be: ids are text.
_SELF_SIGNED = None

_Id = str | None


@dataclass(slots=True)
class Reread:
    """What came of reading everything again.

    Attributes:
        changed: what new handshakes use from now on, a sentence each.
        warnings: what deserves notice of it.
        problems: what is broken; what was in use before stays in use.
        files: how many files were looked at.
    """

    changed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: int = 0


@dataclass(frozen=True, slots=True)
class _Shape:
    """What listeners must have in common to share a context."""

    recipe: Recipe
    certificate: _Id
    names: tuple[tuple[str, str], ...]
    client_ca: str | None


class Certificates:
    """The TLS contexts of all listeners.

    Args:
        config: loaded.
        alpn: what the handler of each listener speaks by ALPN, by id of the listener.

    Attributes:
        notes: what the administrator should know: expiry, the self-signed one.

    Raises:
        ConfigurationError: with everything that cannot be used.
    """

    def __init__(self, config: Config, alpn: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.notes: list[str] = []
        self._config = config
        self._pairs: dict[_Id, Pair] = {}
        self._client_cas: dict[str, str] = {}
        self._self_signed_source = ""
        self._fronts: dict[_Shape, Front] = {}
        self._shapes: dict[str, _Shape] = {}
        #: The listeners that use each certificate, and each file of authorities.
        self._users: dict[_Id, list[ListenerSettings]] = {}
        self._client_ca_users: dict[str, list[ListenerSettings]] = {}
        for listener in config.listeners:
            if listener["tls.implicit"] or listener.starttls:
                self._plan(listener, (alpn or {}).get(listener.id, ()))
        self._load()

    def context(self, listener: str) -> ssl.SSLContext | None:
        """Return the context for the connections of a listener, None if it has no TLS."""
        shape = self._shapes.get(listener)
        return None if shape is None else self._fronts[shape].context

    def __len__(self) -> int:
        return len(self._pairs)

    # -- the first time

    def _plan(self, listener: ListenerSettings, alpn: tuple[str, ...]) -> None:
        shape = _Shape(
            Recipe.of(listener, alpn),
            listener["tls.certificate"],
            tuple(sorted(listener["tls.sni"])),
            listener["tls.client-ca"],
        )
        self._shapes[listener.id] = shape
        for id in dict.fromkeys((shape.certificate, *(id for _, id in shape.names))):
            self._users.setdefault(id, []).append(listener)
        if shape.client_ca is not None:
            self._client_ca_users.setdefault(shape.client_ca, []).append(listener)

    def _load(self) -> None:
        problems: list[Problem] = []
        for id in list(self._users):
            try:
                pair = self._make_self_signed() if id is _SELF_SIGNED else self._read(id)
                if pair is not None:
                    self._try(id, pair)
                    self._pairs[id] = pair
                    self.notes += self._remarks(id, pair)
            except _BrokenError as error:
                problems.append(error.problem)
        for path in self._client_ca_users:
            try:
                self._client_cas[path] = self._read_client_ca(path)
            except _BrokenError as error:
                problems.append(error.problem)
        if problems:
            raise ConfigurationError(problems, self._config.warnings)
        for shape in dict.fromkeys(self._shapes.values()):
            self._fronts[shape] = Front(*self._contexts(shape))

    def _make_self_signed(self) -> Pair | None:
        """Return the self-signed pair; None where it can be done without.

        Raises:
            _BrokenError: it cannot be made or read.
        """
        directory = self._config.process["server.data-directory"]
        try:
            kept = keep(directory, self._config.process["server.hostname"])
        except MissingLibraryError as error:
            self._do_without(str(error))
            return None
        except OSError as error:
            message = f"a self-signed certificate cannot be kept there: {error.strerror}"
            raise _BrokenError(self._at_data_directory(message)) from None
        except PemError as error:
            message = f"its self-signed certificate cannot be used: {error}"
            raise _BrokenError(self._at_data_directory(message)) from None
        self._self_signed_source = f"file://{kept.path}"
        return kept.pair

    def _do_without(self, why: str) -> None:
        """Leave STARTTLS out where nobody asked for it in so many words.

        Raises:
            _BrokenError: somebody did, or TLS is all that the listener speaks.
        """
        users = self._users.pop(_SELF_SIGNED)
        for listener in users:
            key = "tls.implicit" if listener["tls.implicit"] else "tls.enable"
            if listener["tls.implicit"] or listener.origin(key) != "default":
                problem = self._config.problem(
                    listener.path(key),
                    f"no certificate is configured, and {why}{_needed_by(users)}",
                    "true",
                    'a table [certificate."default"] with cert and private-key',
                )
                raise _BrokenError(problem)
        for listener in users:
            del self._shapes[listener.id]
        self.notes.append(
            f"STARTTLS is not offered{_needed_by(users)}: no certificate is configured, and {why}"
        )

    # -- again

    def reload(self) -> Reread:
        """Read all files again; what is new and whole is used in new handshakes.

        Open connections stay, and so do the keys of session tickets. What cannot be used is
        reported, and what was in use before goes on being used.
        """
        found = Reread()
        renewed: set[object] = set()
        for id, before in list(self._pairs.items()):
            if not (files := sum(map(bool, map(source_file, self._sources(id))))):
                continue
            found.files += files
            try:
                if (pair := self._read(id)) == before:
                    continue
                self._try(id, pair)
            except _BrokenError as error:
                found.problems.append(error.problem)
                continue
            self._pairs[id] = pair
            renewed.add(id)
            until = f"{pair.valid()[1]:%Y-%m-%d}"
            print_ = fingerprint(pair.cert)
            found.changed.append(f"{_name(id)} is new: valid until {until}, SHA-256 {print_}")
            found.warnings += self._dates(id, pair)
        for path, known in list(self._client_cas.items()):
            found.files += 1
            try:
                if (text := self._read_client_ca(path)) == known:
                    continue
            except _BrokenError as error:
                found.problems.append(error.problem)
                continue
            self._client_cas[path] = text
            renewed.add(path)
            found.changed.append(f"the client authorities of {path} are new")
        for shape, front in self._fronts.items():
            used = {shape.certificate, *(id for _, id in shape.names)}
            if used & renewed or (shape.client_ca is not None and shape.client_ca in renewed):
                front.replace(*self._contexts(shape))
        return found

    # -- both times

    def _contexts(self, shape: _Shape) -> tuple[ssl.SSLContext, dict[str, ssl.SSLContext]]:
        """Return the contexts of all certificates of a listener: the default, and by name."""
        text = "" if shape.client_ca is None else self._client_cas[shape.client_ca]
        ids = dict.fromkeys((shape.certificate, *(id for _, id in shape.names)))
        made = {id: shape.recipe.context(self._pairs[id], text) for id in ids}
        return made[shape.certificate], {name: made[id] for name, id in shape.names}

    def _sources(self, id: _Id) -> tuple[str, str]:
        if id is _SELF_SIGNED:
            return self._self_signed_source, self._self_signed_source
        certificate = self._config.certificates[id]
        return certificate.cert, certificate.private_key

    def _read(self, id: _Id) -> Pair:
        cert, key = self._sources(id)
        read = []
        for source, of_key in ((cert, False), (key, True)):
            try:
                read.append(read_source(source))
            except PemError as error:
                raise self._broken(id, of_key, str(error)) from None
        return Pair(*read)

    def _try(self, id: _Id, pair: Pair) -> None:
        """Load a pair where nobody sees it."""
        try:
            pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except PemError as error:
            raise self._broken(id, error.of_key, str(error)) from None

    def _read_client_ca(self, path: str) -> str:
        users = self._client_ca_users[path]
        try:
            return authorities(read_source(f"file://{path}"))
        except PemError as error:
            raise _BrokenError(
                self._config.problem(
                    users[0].path("tls.client-ca"), f"{error}{_needed_by(users)}", quote(path)
                )
            ) from None

    # -- words

    def _remarks(self, id: _Id, pair: Pair) -> list[str]:
        """Return what is said of a certificate at the start."""
        if id is not _SELF_SIGNED:
            return self._dates(id, pair)
        text = (
            f"no certificate is configured{_needed_by(self._users[id])}: clients are shown a "
            f"self-signed one that none of them trusts, kept in "
            f"{source_file(self._self_signed_source)}; SHA-256 {fingerprint(pair.cert)}"
        )
        return [text, *self._dates(id, pair)]

    def _dates(self, id: _Id, pair: Pair) -> list[str]:
        first, last = pair.valid()
        now = datetime.datetime.now(datetime.UTC)
        if last < now:
            trouble = f"expired on {last:%Y-%m-%d}"
        elif first > now:
            trouble = f"is not valid before {first:%Y-%m-%d}"
        else:
            return []
        return [str(self._problem(id, False, f"the certificate {trouble}"))]

    def _broken(self, id: _Id, of_key: bool, message: str) -> _BrokenError:
        return _BrokenError(self._problem(id, of_key, message))

    def _problem(self, id: _Id, of_key: bool, message: str) -> Problem:
        message += _needed_by(self._users[id])
        if id is _SELF_SIGNED:
            path = source_file(self._self_signed_source)
            return self._at_data_directory(f"its self-signed certificate, {path}: {message}")
        source = self._sources(id)[of_key]
        key = "private-key" if of_key else "cert"
        # Inline text is not repeated: it is long, or secret.
        shown = quote(source) if source_file(source) else ""
        return self._config.problem(("certificate", id, key), message, shown)

    def _at_data_directory(self, message: str) -> Problem:
        directory = self._config.process["server.data-directory"]
        return self._config.problem(("server", "data-directory"), message, quote(directory))


class _BrokenError(Exception):
    """Something that cannot be used; carries the report."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


def _name(id: _Id) -> str:
    return "the self-signed certificate" if id is _SELF_SIGNED else f"certificate {quote(id)}"


def _needed_by(listeners: Sequence[ListenerSettings]) -> str:
    """Name the listeners that something is for, the first three of them."""
    names = ", ".join(quote(listener.id) for listener in listeners[:3])
    more = f" and {len(listeners) - 3:,} more" if len(listeners) > 3 else ""
    return f" (listener{'s' if len(listeners) > 1 else ''} {names}{more})"
