"""Kinds of values for `tls.*` and `[certificate]`: versions, cipher suites, SNI, PEM.

Rules of this file: those of `scalars.py`. Cipher suites may be written with their IANA names
(``TLS_ECDHE_RSA_WITH_...``, and ``TLS13_...``) or with OpenSSL's; typed values are OpenSSL's
names, which Python's ssl module takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fastlisten.config.notation import quote, show_value
from fastlisten.config.suggest import likely
from fastlisten.config.values.grammar import BadValueError, Kind, strings, text_of
from fastlisten.hostnames import is_hostname
from fastlisten.option import Option

__all__ = ["TLS12_SUITES", "TLS13_SUITES", "TLS_KINDS", "ServerName"]

#: The TLS 1.3 suites of RFC 8446 that mail software uses, by their OpenSSL names.
TLS13_SUITES = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
)

#: TLS 1.2 suites with forward secrecy and AEAD, from IANA to OpenSSL names.
TLS12_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
}

_SUITES: dict[str, str] = {
    **TLS12_SUITES,
    **{name: name for name in TLS12_SUITES.values()},
    **{name: name for name in TLS13_SUITES},
    **{name.replace("TLS_", "TLS13_", 1): name for name in TLS13_SUITES},
}

_VERSIONS = ("TLSv1.2", "TLSv1.3")
_OBSOLETE = ("sslv2", "sslv3", "tlsv1", "tlsv1.0", "tlsv1.1")


class ServerName(NamedTuple):
    """The certificate for one host name that clients ask for.

    Attributes:
        subject: host name in lower-case ASCII, as clients send it; a leading ``*.`` matches one
            label.
        certificate: id of the `[certificate]` table.
    """

    subject: str
    certificate: str


def _protocols(option: Option, raw: Any) -> tuple[str, ...]:
    chosen = []
    for text in strings(raw):
        version = next((known for known in _VERSIONS if known.lower() == text.lower()), "")
        if text.lower() in _OBSOLETE:
            raise BadValueError(f"{text} is obsolete (RFC 8996) and not supported")
        if not version:
            raise BadValueError(f"{show_value(text)} is not a supported TLS version")
        chosen.append(version)
    if not chosen:
        raise BadValueError("at least one version is needed")
    return tuple(version for version in _VERSIONS if version in chosen)


def _ciphers(option: Option, raw: Any) -> tuple[str, ...]:
    chosen = []
    for text in strings(raw):
        name = _SUITES.get(text.strip().upper())
        if name is None:
            near = likely(text.upper(), tuple(_SUITES))
            raise BadValueError(
                f"{show_value(text)} is not a supported cipher suite",
                suggestion=quote(near) if near else "",
            )
        chosen.append(name)
    return tuple(dict.fromkeys(chosen))


def _sni(option: Option, raw: Any) -> tuple[ServerName, ...]:
    if isinstance(raw, dict):
        raw = [raw]
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        raise BadValueError("this is not an array of tables")
    names: dict[str, ServerName] = {}
    for entry in raw:
        if set(entry) != {"subject", "certificate"}:
            raise BadValueError(f"{show_value(entry)} must have just `subject` and `certificate`")
        subject, certificate = entry["subject"], entry["certificate"]
        if not isinstance(subject, str) or not isinstance(certificate, str):
            raise BadValueError(f"both values of {show_value(entry)} must be strings")
        subject = subject.strip().lower().removesuffix(".")
        if not is_hostname(subject.removeprefix("*.")):
            raise BadValueError(
                f"{show_value(subject)} is not a host name", suggestion=_in_ascii(subject)
            )
        if subject in names:
            raise BadValueError(f"{show_value(subject)} appears twice")
        names[subject] = ServerName(subject, certificate)
    return tuple(names.values())


def _in_ascii(subject: str) -> str:
    """Return an international host name as clients send it; empty if it is not a host name."""
    try:
        name = subject.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    return quote(name) if is_hostname(name.removeprefix("*.")) else ""


def _pem(option: Option, raw: Any) -> str:
    if not isinstance(raw, str):
        raise BadValueError("this is not a string")
    if raw.startswith("file://") and len(raw) > len("file://"):
        return text_of(raw)
    if "-----BEGIN " not in raw:
        path = raw if raw.startswith("/") and "\n" not in raw else ""
        raise BadValueError(
            "this is neither PEM text nor a file:// path",
            suggestion=quote(f"file://{path}") if path else "",
        )
    return raw


def _write_names(value: tuple[str, ...]) -> str:
    return "[" + ", ".join(quote(name) for name in value) + "]"


def _write_sni(value: tuple[ServerName, ...]) -> str:
    entries = (
        f"{{ subject = {quote(name.subject)}, certificate = {quote(name.certificate)} }}"
        for name in value
    )
    return "[" + ", ".join(entries) + "]"


def _words(text: str) -> Callable[[Option], str]:
    return lambda option: text


TLS_KINDS: dict[str, Kind] = {
    "tls-protocols": Kind(_protocols, _write_names, list, _words('"TLSv1.2", "TLSv1.3" or both')),
    "tls-ciphers": Kind(
        _ciphers,
        _write_names,
        list,
        _words("AEAD suites with forward secrecy, by IANA or OpenSSL name"),
    ),
    "pem": Kind(_pem, quote, lambda value: value, _words('PEM text, or "file:///path"')),
    "sni": Kind(
        _sni,
        _write_sni,
        lambda value: [name._asdict() for name in value],
        _words('an array of { subject = "name", certificate = "id" }'),
    ),
}
