"""The benchmarks of deliveries and of sizes: who is measured, what is counted, what is left behind.

No speed is judged here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import BESIDE, ROOT, TWO_CORES, await_ends, built, python

pytestmark = BESIDE

#: What the candidates are called, the programs that they need, and the rows they are measured in.
SERVERS = [
    pytest.param("Dovecot", "dovecot", "lmtp", marks=pytest.mark.external("dovecot")),
    pytest.param("Postfix", "postfix", "smtp", marks=pytest.mark.external("postfix")),
]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory that other users can go through, which pytest's are not."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


def skip_without(program: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mail servers are started by root")
    if shutil.which(program, path=f"{os.defpath}:/usr/sbin") is None:
        pytest.skip(f"no {program}")
    if program == "dovecot" and not Path("/usr/lib/dovecot/lmtp").exists():
        pytest.skip("no lmtp of Dovecot")


def measure(*words: str) -> dict[str, Any]:
    """Run some rows as briefly as possible; return the results."""
    command = ("-m", "benchmarks", "--quick", "--rounds", "1", "--seconds", "0.1", *words)
    built()
    found: dict[str, Any] = json.loads(python(*command, "--json", "-"))
    return found


@TWO_CORES
def test_deliveries_and_sizes_of_this_package_are_measured() -> None:
    rows = ["lmtp-memory-16", "smtp-memory-1", "sizes-4k-data", "sizes-64k-bdat", "sizes-1m-data"]
    found = measure("--rows", ",".join(rows), "--candidates", "fastlisten SMTP,C SMTP")
    assert found["left_out"] == []
    for row in rows:
        for sample in found["workloads"][row].values():
            assert sample[0]["detail"]["operations"] > 0
        kept = found["workloads"][row]["fastlisten SMTP"][0]["detail"].get("stored")
        assert (kept is not None) == ("memory" in row)


@TWO_CORES
@pytest.mark.parametrize(("candidate", "program", "protocol"), SERVERS)
def test_other_mail_servers_are_measured(candidate: str, program: str, protocol: str) -> None:
    skip_without(program)
    key = f"{protocol}-memory-16"
    found = measure("--rows", key, "--candidates", candidate)
    assert found["left_out"] == []
    (sample,) = found["workloads"][key][candidate]
    assert sample["detail"]["stored"] >= sample["detail"]["operations"] > 0
    # The processor time is that of all processes: no server delivers in less than 10 us.
    assert sample["value"] > 10


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize(("candidate", "program", "protocol"), SERVERS)
def test_mail_server_ends_with_its_wrapper(
    candidate: str, program: str, protocol: str, told: bool, directory: Path
) -> None:
    skip_without(program)
    from benchmarks.process import descendants

    command = [sys.executable, "-m", "benchmarks.candidates.mail_servers", program]
    with subprocess.Popen(
        [*command, "--data", str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdin is not None
        port, pid, tree = wrapper.stdout.readline().split()
        assert int(port) > 0
        assert (int(pid), tree) == (wrapper.pid, b"tree")
        those = descendants(wrapper.pid)
        assert len(those) > 2
        if told:
            wrapper.terminate()
        else:
            wrapper.stdin.close()
        wrapper.wait(20)
    await_ends(those)


def test_server_that_cannot_serve_says_why(tmp_path: Path) -> None:
    from benchmarks.process import MeasurementError, Server

    command = [sys.executable, "-c", "print('the program is not installed')"]
    with pytest.raises(MeasurementError, match=r"^the program is not installed$"):
        Server(command, None)


def test_what_servers_keep_beside_the_mail_is_not_counted(tmp_path: Path) -> None:
    from benchmarks.deliveries import RUN, await_files, count_files

    for path in (RUN, f"{RUN}/queue", "mail/alice/new", "mail/run"):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        (tmp_path / path / "file").touch()
    assert count_files(str(tmp_path)) == 2
    assert await_files(str(tmp_path), 2) == 2
