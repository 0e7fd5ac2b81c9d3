"""The installed protocols: those of this package and those that other packages register.

    fastlisten.protocols   entry points of `Protocol` objects, by protocol name
    fastlisten.handlers    the older group: entry points of handler classes

Rules of this file: the metadata of installed packages is read once per process. `Protocol` objects,
which are light, are imported at that time; handler classes only when a listener needs them. A
package that cannot be imported affects only configurations that use it.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

import fastlisten.handlers
from fastlisten.handlers.class_description import ClassDescription, Describe, DescriptionError
from fastlisten.handlers.protocol import Protocol

__all__ = [
    "HANDLERS_GROUP",
    "PROTOCOLS_GROUP",
    "ClassNotFoundError",
    "InstalledProtocols",
    "ProtocolError",
    "installed_protocols",
]

#: The entry-point group in which packages register `Protocol` objects.
PROTOCOLS_GROUP = "fastlisten.protocols"

#: The older entry-point group, in which packages register handler classes.
HANDLERS_GROUP = "fastlisten.handlers"

#: The packages of our own protocols.
_OWN_PACKAGES = "fastlisten.handlers."


class ProtocolError(Exception):
    """A registered protocol cannot be used; the text says why."""


class ClassNotFoundError(ProtocolError):
    """The class that a listener names cannot be imported, or is not a handler."""


class InstalledProtocols:
    """The protocols that a process can use.

    Args:
        objects: the `Protocol` objects, as ``package.module:attribute`` by protocol name.
        classes: the handler classes of the older group, likewise.

    Attributes:
        definitions: the `Protocol` objects by name, sorted, without broken ones.
        broken: why a `Protocol` object cannot be used, by name.
        names: all registered names, sorted.
        own: the names of the protocols of this package.
    """

    def __init__(self, objects: Mapping[str, str], classes: Mapping[str, str]) -> None:
        self._classes = classes
        self.broken: dict[str, str] = {}
        self._found: dict[tuple[str, str], Protocol] = {}
        self.definitions: Mapping[str, Protocol] = dict(self._load(objects))
        self.names = tuple(sorted({*objects, *classes}))
        self.own = frozenset(
            name for name, value in objects.items() if value.startswith(_OWN_PACKAGES)
        )

    def _load(self, objects: Mapping[str, str]) -> Iterator[tuple[str, Protocol]]:
        for name in sorted(objects):
            value = objects[name]
            module, _, attribute = value.partition(":")
            try:
                found: Any = importlib.import_module(module)
                for part in attribute.split("."):
                    found = getattr(found, part)
            except Exception as error:
                # Foreign code runs here and may raise anything; who uses it learns of it.
                reason = f"{type(error).__name__}: {error}"
                self.broken[name] = f"its definition {value} cannot be imported: {reason}"
                continue
            if not isinstance(found, Protocol):
                self.broken[name] = f"its definition {value} is not a Protocol"
            elif found.name != name:
                self.broken[name] = f"its definition {value} is that of {found.name!r}"
            else:
                yield name, found

    def find(
        self, name: str, handler: str = "", describe: Describe | None = None
    ) -> Protocol | None:
        """Return a protocol, None if it is not installed and no class is given.

        Args:
            name: in lower case.
            handler: the class that a listener names, ``package.module:Class``; empty if none.
            describe: returns what a class says about itself; None to import the class here.

        Raises:
            ProtocolError: it is registered, but cannot be used.
            ClassNotFoundError: the class cannot be imported or is not a handler.
        """
        if name in self.broken and not handler:
            raise ProtocolError(self.broken[name])
        definition = self.definitions.get(name)
        registered = self._classes.get(name, "")
        kind_name = handler or registered
        if not kind_name or (definition is not None and kind_name == definition.handler):
            return definition
        found = self._found.get((name, kind_name))
        if found is None:
            try:
                kind = (describe or _describe)(kind_name)
            except DescriptionError as error:
                raise (ClassNotFoundError if handler else ProtocolError)(str(error)) from error
            base = definition or Protocol(name, of_class=True)
            found = self._found[name, kind_name] = base.spoken_by(kind, kind_name)
        return found


def _describe(name: str) -> ClassDescription:
    """Import a handler class in this process and describe it."""
    # Imported here because it loads an event loop, which most configurations don't need.
    from fastlisten.handlers.importing import HandlerNotFoundError, named_handler

    try:
        return ClassDescription.of(named_handler(name))
    except HandlerNotFoundError as error:
        raise DescriptionError(str(error)) from error


@functools.cache
def installed_protocols() -> InstalledProtocols:
    """Return the installed protocols; later calls return the same object."""
    objects = _registered(PROTOCOLS_GROUP)
    if not any(value.startswith(_OWN_PACKAGES) for value in objects.values()):
        # A source tree that is not installed, or was before it had these entry points.
        objects = {**dict(_in_this_package()), **objects}
    return InstalledProtocols(objects, _registered(HANDLERS_GROUP))


def _registered(group: str) -> dict[str, str]:
    """Return the entry points of a group; those of other packages take precedence over ours."""
    points = [(point.name.lower(), point.value) for point in entry_points(group=group)]
    points.sort(key=lambda point: not point[1].startswith(_OWN_PACKAGES))
    return dict(points)


def _in_this_package() -> Iterator[tuple[str, str]]:
    for module in pkgutil.iter_modules(fastlisten.handlers.__path__, _OWN_PACKAGES):
        if module.ispkg:
            settings = f"{module.name}.settings"
            for attribute, value in vars(importlib.import_module(settings)).items():
                if isinstance(value, Protocol):
                    yield value.name, f"{settings}:{attribute}"
