"""The benchmarks' programs count what happened: load generator, baseline servers, held connections.

No speed is judged here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.benchmarks import BESIDE, ROOT, TWO_CORES, await_ends, built, load, python, serving

pytestmark = BESIDE


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(scope="module")
def programs() -> tuple[str, str]:
    """Return the C server and the load generator, compiled."""
    found = built()
    return found["server"], found["loadgen"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the arguments that give the servers a certificate."""
    if built()["no_tls"]:
        pytest.skip(built()["no_tls"])
    if shutil.which("openssl") is None:
        pytest.skip("no program openssl")
    directory = tmp_path_factory.mktemp("certificates")
    command = (
        "import json, pathlib, sys; from benchmarks.certificates import make_certificates; "
        "print(json.dumps(make_certificates(pathlib.Path(sys.argv[1]))['p-256'].arguments))"
    )
    words: list[str] = json.loads(python("-c", command, str(directory)))
    return words


WORK = pytest.mark.parametrize(
    ("words", "operations", "received"),
    [
        (["silent", "--count", "300", "--in-flight", "20"], 300, 300 * 7),
        (["accept", "--count", "200", "--say", "NOOP"], 200, 200 * (7 + 6)),
        (
            ["echo", "--greeting", "--connections", "10", "--count", "100", "--size", "100000"],
            100,
            100 * 100_000,
        ),
    ],
)


@WORK
def test_load_generator_counts_operations(
    programs: tuple[str, str], words: list[str], operations: int, received: int
) -> None:
    with serving(programs[0], "--greeting", "hello") as port:
        done = load(programs[1], port, *words)
    assert (done["operations"], done["bytes"]) == (operations, received)
    assert not any(done["errors"].values())
    assert "tls" not in done


@WORK
def test_load_generator_counts_tls_operations(
    programs: tuple[str, str],
    certificate: list[str],
    words: list[str],
    operations: int,
    received: int,
) -> None:
    with serving(built()["tls_server"], *certificate, "--greeting", "hello") as port:
        done = load(programs[1], port, *words, "--tls")
    assert (done["operations"], done["bytes"]) == (operations, received)
    assert not any(done["errors"].values())
    assert done["tls"]["handshakes"] == (10 if words[0] == "echo" else operations)
    assert done["tls"]["resumed"] == 0
    assert done["tls"]["negotiated"].startswith("TLSv1.3 TLS_AES")
    assert done["tls"]["negotiated"].endswith("ECDSA")


def test_server_without_tls_counts_as_errors(
    programs: tuple[str, str], certificate: list[str]
) -> None:
    with serving(programs[0]) as port:
        done = load(programs[1], port, "silent", "--tls", "--count", "5")
    assert done["operations"] == 0
    assert done["errors"]["tls"] == 5


def test_eof_without_close_notify_counts_as_error(
    programs: tuple[str, str], certificate: list[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[3])

    def truncate(listener: socket.socket) -> None:
        for _ in range(3):
            secured = context.wrap_socket(listener.accept()[0], server_side=True)
            secured.send(b"no line")
            socket.socket(fileno=secured.detach()).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=truncate, args=(listener,))
        thread.start()
        done = load(
            programs[1],
            listener.getsockname()[1],
            "silent",
            "--tls",
            "--count",
            "3",
        )
        thread.join()
    assert done["operations"] == 0
    assert done["errors"]["tls"] == 3


def test_held_connections_answer_and_losses_are_noticed(programs: tuple[str, str]) -> None:
    server = subprocess.Popen([programs[0]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    port = server.stdout.readline().decode().strip()
    command = [programs[1], "hold", "--port", port, "--connections", "50", "--duration", "20"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        assert json.loads(load.stdout.readline())["open"] == 50
        load.stdin.write(b"ping\n")
        load.stdin.flush()
        assert json.loads(load.stdout.readline())["operations"] == 50
        server.stdin.close()
        assert server.wait(10) == 0
        server.stdout.close()
        load.stdin.write(b"ping\n")
        load.stdin.flush()
        assert json.loads(load.stdout.readline())["operations"] == 0
        load.stdin.close()
        done = json.loads(load.stdout.readline())
    assert done["open"] == 0


def test_refused_connections_count_as_errors(programs: tuple[str, str]) -> None:
    # Port 1 of loopback: nothing listens there, and no test could take it.
    command = [programs[1], "silent", "--port", "1", "--count", "5", "--duration", "5"]
    result = subprocess.run(command, capture_output=True, check=True, timeout=30)
    done = json.loads(result.stdout)
    assert done["operations"] == 0
    assert done["errors"]["refused"] == 5


def test_load_generator_prints_its_usage(programs: tuple[str, str]) -> None:
    help_text = subprocess.run([programs[1], "--help"], capture_output=True, check=True).stdout
    source = "".join(path.read_text() for path in (ROOT / "benchmarks/native").glob("loadgen.c"))
    for option in sorted(set(re.findall(r'strcmp\(name, "(--[a-z-]+)"\)', source))):
        assert f"  {option} ".encode() in help_text
    wrong = subprocess.run([programs[1], "silent", "--prot", "1"], capture_output=True, check=False)
    assert wrong.returncode == 2
    assert b"usage: loadgen" in wrong.stderr


def test_load_generator_builds_without_openssl(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from benchmarks import build

    for name in ("SERVER", "TLS_SERVER", "LOADGEN", "PLAIN_LOADGEN"):
        monkeypatch.setattr(build, name, tmp_path / name.lower())
    monkeypatch.setattr(build, "OUTPUT", tmp_path)
    monkeypatch.setattr(build, "_has_openssl", lambda compiler: False)
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("no C compiler")
    assert "libssl-dev" in build.build()
    assert not (tmp_path / "tls_server").exists()
    with serving(str(tmp_path / "server"), "--greeting", "hello") as port:
        assert load(str(tmp_path / "loadgen"), port, "silent", "--count", "3")["operations"] == 3
    refused = subprocess.run(
        [tmp_path / "loadgen", "silent", "--port", "1", "--tls"], capture_output=True, check=False
    )
    assert refused.returncode == 2
    assert b"without OpenSSL" in refused.stderr


@TWO_CORES
def test_command_line_measures_a_row(certificate: list[str]) -> None:
    words = ["--rows", "tls-p256", "--candidates", "asyncio,C epoll", "--rounds", "1"]
    found = json.loads(
        python("-m", "benchmarks", "--quick", "--seconds", "0.1", *words, "--json", "-")
    )
    assert found["left_out"] == []
    assert set(found["workloads"]) == {"tls-p256"}
    for name in ("asyncio", "C epoll"):
        (sample,) = found["workloads"]["tls-p256"][name]
        assert sample["value"] > 0
        assert sample["detail"]["operations"] > 0
        assert sample["detail"]["tls"].startswith("TLSv1.3")


@TWO_CORES
@pytest.mark.external("strace")
def test_system_calls_of_a_server_are_counted(programs: tuple[str, str]) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    found = json.loads(
        python("-m", "benchmarks", "--rows", "options", "--candidates", "C epoll", "--json", "-")
    )
    (sample,) = found["workloads"]["options"]["C epoll"]
    assert sample["value"] == 0
    # One more may have been interrupted by another's event.
    assert 1 <= sample["detail"]["calls"]["accept4"] < 3
    assert sample["detail"]["calls"]["close"] == 1


HOLD = ("-m", "benchmarks.hold", "--processes", "2")


def test_every_held_connection_answers(programs: tuple[str, str]) -> None:
    found = json.loads(python(*HOLD, "--connections", "2001", "--json"))
    assert found["answered"] == found["connections"] == 2001
    assert len(found["pids"]) == 4
    assert found["resting"]["user"] > found["before"]["user"] > 0
    await_ends(found["pids"])


@pytest.mark.parametrize(
    ("how", "status"),
    [("a server is killed", 1), ("it is terminated", 143), ("it is killed", -signal.SIGKILL)],
)
def test_failed_run_leaves_nothing(
    programs: tuple[str, str], tmp_path: Path, how: str, status: int
) -> None:
    command = [sys.executable, *HOLD, "--connections", "2000", "--candidate", "C epoll"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None
        servers = [int(word) for word in run.stderr.readline().removeprefix("servers:").split()]
        assert len(servers) == 2
        if how == "a server is killed":
            os.kill(servers[0], signal.SIGKILL)
        elif how == "it is terminated":
            run.terminate()
        else:
            run.kill()
        said = run.stderr.read()
    assert run.returncode == status
    assert "Traceback" not in said
    await_ends(servers)
    if how == "a server is killed":
        assert "ended" in said
    if how != "it is killed":
        assert list(tmp_path.iterdir()) == []


def test_more_connections_than_descriptors_is_an_error() -> None:
    from benchmarks.hold import main

    with pytest.raises(SystemExit) as status:
        main(["--connections", "1000000000", "--processes", "2"])
    assert status.value.code == 2
