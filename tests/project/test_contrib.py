"""The units in contrib/: systemd finds nothing wrong with them, and thinks them well confined.

Rules of this file: the units are used as they are, with the program's path in place of theirs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.external_programs import run
from support.marks import external

from fastlisten.config import loads

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"
UNITS = ("fastlisten.service", "fastlisten.socket")

#: The most exposure that `systemd-analyze security` may find, in tenths: "OK" ends at 3.9.
MAX_EXPOSURE = 20


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Return copies of the units with the path of an installed program."""
    program = tmp_path / "fastlisten"
    program.symlink_to(sys.executable)
    for name in UNITS:
        text = (CONTRIB / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("/opt/fastlisten/bin/fastlisten", str(program)))
    return [tmp_path / name for name in UNITS]


@external("systemd-analyze")
def test_units_have_no_mistakes(units: list[Path]) -> None:
    done = run("systemd-analyze", "verify", "--man=no", *units)
    said = [line for line in done.stderr.decode().splitlines() if "fastlisten" in line]
    assert said == []


@external("systemd-analyze")
def test_mistake_in_a_unit_is_found(units: list[Path]) -> None:
    units[0].write_text(units[0].read_text().replace("WatchdogSec=60", "WatchdogSec=soon"))
    done = run("systemd-analyze", "verify", "--man=no", *units, expect=(0, 1))
    assert re.search(r"fastlisten\.service:\d+: ", done.stderr.decode())


@external("systemd-analyze")
def test_service_is_confined(units: list[Path]) -> None:
    security = ("systemd-analyze", "security", "--offline=yes", f"--threshold={MAX_EXPOSURE}")
    run(*security, units[0])
    text = units[0].read_text().replace("ProtectSystem=strict", "").replace("NoNewPrivileges=", "#")
    units[0].write_text(re.sub("(?m)^(SystemCall|Capability|Restrict|Protect).*", "", text))
    run(*security, units[0], expect=(1,))


def test_service_that_cannot_start_is_tried_again_for_ever() -> None:
    """systemd gives up after so many starts within a time; each takes at least `RestartSec`."""
    text = (CONTRIB / "fastlisten.service").read_text("utf-8")
    interval, burst, pause = (
        int(re.search(rf"(?m)^{key}=(\d+)$", text)[1])  # type: ignore[index]
        for key in ("StartLimitIntervalSec", "StartLimitBurst", "RestartSec")
    )
    # Within that time there can be one start more than pauses.
    assert interval // pause + 1 < burst


def test_sample_in_the_socket_unit_names_its_socket() -> None:
    text = (CONTRIB / "fastlisten.socket").read_text("utf-8")
    sample = "\n".join(line[6:] for line in re.findall(r"(?m)^#     .*", text))
    (bind,) = loads(sample).listeners[0].bind
    assert (bind.family, f"FileDescriptorName={bind.address}" in text) == ("systemd", True)


def test_service_runs_commands_that_exist() -> None:
    text = (CONTRIB / "fastlisten.service").read_text("utf-8")
    commands = re.findall(r"(?m)^Exec\w+=/opt/fastlisten/bin/fastlisten (\w+)", text)
    assert commands == ["serve", "reload"]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "fastlisten", command, "--help"], capture_output=True, check=True
        )
        assert f"usage: fastlisten {command}".encode() in done.stdout
