"""Describes the machine that the figures were measured on, and how busy it was.

Rules of this file: it only reads. Facts that this machine does not provide are left out.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import ssl
import subprocess
import time
from datetime import UTC, datetime
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from benchmarks.build import ROOT

__all__ = ["busy_share", "facts", "field"]


def _first_line(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except OSError:
        return ""
    return result.stdout.partition("\n")[0].strip() if result.returncode == 0 else ""


def field(path: str, name: str) -> str:
    """Return a field of a file of the kernel's, empty if it has none of that name."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _is_compiled(protocol: str) -> bool:
    """Return whether the engine of a protocol is compiled."""
    spec = importlib.util.find_spec(f"fastlisten.handlers.{protocol}.engine.engine")
    return spec is not None and str(spec.origin).endswith(tuple(EXTENSION_SUFFIXES))


def _chosen(words: str) -> str:
    """Return the word in brackets of a sysfs file like ``always [madvise] never``."""
    return words.partition("[")[2].partition("]")[0]


def facts() -> dict[str, str]:
    """Return the machine, the versions and the date as text."""
    memory = int(field("/proc/meminfo", "MemTotal").split()[0])
    hypervisor = Path("/sys/hypervisor/type")
    virtual = hypervisor.exists() or "hypervisor" in field("/proc/cpuinfo", "flags").split()
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    commit = _first_line(["git", "rev-parse", "--short=12", "HEAD"])
    if commit and _first_line(["git", "status", "--porcelain", "--", "fastlisten"]):
        commit += ", with uncommitted changes"
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))) + (", virtual machine" if virtual else ""),
        "memory": f"{memory / 1024 / 1024:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "transparent huge pages": _chosen(huge.read_text()) if huge.exists() else "",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "uvloop": _version("uvloop"),
        "openssl of python": ssl.OPENSSL_VERSION.removeprefix("OpenSSL "),
        "SMTP engine": "compiled" if _is_compiled("smtp") else "Python",
        "IMAP engine": "compiled" if _is_compiled("imap") else "Python",
        "commit": commit,
        "compiler": _first_line([os.environ.get("CC", "cc"), "--version"]),
    }
    return {key: value for key, value in found.items() if value}


def _jiffies() -> tuple[int, int]:
    """Return (busy, total) clock ticks of all cores since boot."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def busy_share(seconds: float = 1.0) -> float:
    """Return the share of all cores (0 to 1) that other processes use while we sleep."""
    busy, total = _jiffies()
    time.sleep(seconds)
    busy_after, total_after = _jiffies()
    return (busy_after - busy) / max(1, total_after - total)
