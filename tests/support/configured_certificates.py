"""The certificates of a configuration, and those that clients see."""

from __future__ import annotations

import ssl
from pathlib import Path

from fastlisten.config import Config, loads
from fastlisten.runtime.tls.certificates import Certificates, ReloadResult
from fastlisten.runtime.tls.pem import KeyPair
from support.certificates import shake, trusting_all
from support.config import MACHINE

__all__ = ["config", "der", "made", "renewed", "shown"]


def config(directory: Path, text: str) -> Config:
    """Load a text as the file ``mail.toml`` of a directory, whose data is in ``data``."""
    head = f'[server]\ndata-directory = "{directory / "data"}"\n'
    return loads(head + text, file=str(directory / "mail.toml"), machine=MACHINE)


def made(directory: Path, text: str) -> Certificates:
    return Certificates(config(directory, text))


def renewed(it: Certificates) -> tuple[Certificates, ReloadResult]:
    """Read the files of the same configuration again; return the successor, which is in use."""
    successor = Certificates(it.config, former=it)
    successor.commit()
    return successor, successor.found


def shown(
    it: Certificates,
    name: str | None = None,
    listener: str = "it",
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> bytes:
    """Return the certificate that clients of a listener see, in DER."""
    context = it.context(listener)
    assert context is not None
    return shake(context, trusting_all(maximum_version=version), name).shown


def der(pair: KeyPair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.cert.decode())
