"""The smtp handler with other programs as clients: swaks, and Postfix's smtp-source."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.smtp_harness import Served, body_of, serve

SWAKS = shutil.which("swaks")
SMTP_SOURCE = shutil.which("smtp-source", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

swaks = pytest.mark.skipif(SWAKS is None, reason="swaks is not installed")
smtp_source = pytest.mark.skipif(SMTP_SOURCE is None, reason="smtp-source is not installed")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as server:
        yield server


def run(*command: str | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [word for word in command if word is not None],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_swaks(served: Served, *arguments: str) -> subprocess.CompletedProcess[str]:
    server = ("--server", "127.0.0.1", "--port", str(served.port), "--helo", "client.example.com")
    return run(SWAKS, *server, "--from", "sender@example.com", *arguments)


@swaks
@pytest.mark.external("swaks")
@pytest.mark.parametrize("pipeline", [(), ("--pipeline",)])
def test_swaks_delivers(served: Served, pipeline: tuple[str, ...]) -> None:
    done = run_swaks(
        served, "--to", "alice@example.org,bob@example.org", "--body", "hello\n.\nworld", *pipeline
    )
    assert done.returncode == 0, done.stdout
    (stored,) = served.delivered("bob@example.org")
    assert b"\r\nhello\r\n.\r\nworld\r\n" in body_of(stored)


@swaks
@pytest.mark.external("swaks")
def test_swaks_speaks_helo(served: Served) -> None:
    done = run_swaks(served, "--to", "alice@example.org", "--protocol", "SMTP")
    assert done.returncode == 0, done.stdout
    (stored,) = served.delivered()
    assert b" with SMTP id " in stored


@swaks
@pytest.mark.external("swaks")
def test_swaks_with_unknown_recipient(served: Served) -> None:
    done = run_swaks(served, "--to", "nobody@example.org")
    assert done.returncode == 24  # its exit code for a refused RCPT
    assert "<** 550 5.1.1 No such mailbox here" in done.stdout


@smtp_source
@pytest.mark.external("smtp-source")
def test_smtp_source_with_parallel_sessions(served: Served) -> None:
    sessions = ("-s", "8", "-m", "100", "-l", "5000", "-d")
    address = ("-t", "alice@example.org", "-f", "sender@example.com", f"127.0.0.1:{served.port}")
    done = run(SMTP_SOURCE, *sessions, *address)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    messages = served.delivered()
    assert len(messages) == 100
    assert min(len(body_of(message)) for message in messages) > 4000
    assert served.left_over() == []


@smtp_source
@pytest.mark.external("smtp-source")
def test_smtp_source_with_many_recipients(served: Served) -> None:
    # Numbered before the name, the last one not at all; since Postfix 3.11 behind the name, and no
    # number twice in a run.
    names = [*(f"{number}user@example.org" for number in range(2, 51)), "user@example.org"]
    more = [f"user{number}@example.org" for number in range(250)]
    accounts = "".join(f'[account."{name}"]\n' for name in names + more)
    (served.directory / "accounts.toml").write_text(accounts)
    address = ("-t", "user@example.org", f"127.0.0.1:{served.port}")
    done = run(SMTP_SOURCE, "-r", "50", "-m", "5", *address)
    assert done.returncode == 0, done.stderr
    counts = [[len(served.delivered(name)) for name in those] for those in (names, more)]
    assert counts in ([[5] * 50, [0] * 250], [[0] * 50, [1] * 250])
