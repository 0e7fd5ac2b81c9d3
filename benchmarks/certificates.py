"""Certificates for one run, made by the ``openssl`` program.

Rules of this file: nothing is kept; the keys are in a directory that the caller removes. The
certificates are self-signed and never verified, because only their size and the cost of their
signatures matter here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ALGORITHMS", "Certificate", "CertificateError", "make_certificates"]

#: Arguments of ``openssl req`` per kind of key.
ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "rsa-2048": ("-newkey", "rsa:2048"),
    "p-256": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
}


class CertificateError(Exception):
    """A certificate could not be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two files in PEM."""

    certificate: str
    key: str

    @property
    def arguments(self) -> list[str]:
        """The command line of a candidate that serves with it."""
        return ["--certificate", self.certificate, "--key", self.key]


def make_certificates(directory: Path) -> dict[str, Certificate]:
    """Make one certificate of each kind, valid for two days.

    Args:
        directory: where the files go; readable by nobody else.

    Raises:
        CertificateError: there is no ``openssl``, or it failed.
    """
    program = shutil.which("openssl")
    if program is None:
        raise CertificateError("the program openssl was not found")
    made = {}
    for name, key in ALGORITHMS.items():
        files = Certificate(str(directory / f"{name}.crt"), str(directory / f"{name}.key"))
        command = [program, "req", "-x509", *key, "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-keyout", files.key, "-out", files.certificate]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise CertificateError(f"{' '.join(command)}\n{result.stderr}")
        made[name] = files
    return made
