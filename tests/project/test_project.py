"""What the project says about itself is true: versions, commands, examples, links."""

from __future__ import annotations

import asyncio
import io
import re
import smtplib
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastlisten
from fastlisten.cli import account
from fastlisten.cli.main import main
from fastlisten.cli.serve import DEFAULT_ACCOUNT
from fastlisten.config import default_config, loads
from fastlisten.config.known_protocols import known_protocols
from fastlisten.config.unavailable import find_unavailable
from fastlisten.testing import serve

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def program(source: str) -> dict[str, Any]:
    """Run a block of the README as an imported module; return its names."""
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(source, "README.md", "exec"), names)
    return names


def test_versions_agree() -> None:
    version = PROJECT["project"]["version"]
    assert fastlisten.__version__ == version
    newest = re.search(r"^## \[([^\]]+)\]", CHANGELOG, re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_public_names_exist_and_are_documented() -> None:
    assert fastlisten.__all__ == sorted(fastlisten.__all__)
    for name in fastlisten.__all__:
        assert getattr(fastlisten, name).__doc__, name


def test_classifiers_are_the_versions_with_wheels() -> None:
    named = {
        line.rpartition(" ")[2].replace(".", "")
        for line in PROJECT["project"]["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", line)
    }
    built = set(re.findall(r"cp(\d+)-", PROJECT["tool"]["cibuildwheel"]["build"]))
    assert named == built


def test_extra_serve_has_all_optional_dependencies() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    coming = {"jmap"}  # nothing uses them yet
    assert not any(known_protocols().definitions[name].handler for name in coming)
    (serve,) = extras["serve"]
    used = ",".join(name for name in extras if name not in {"serve", *coming})
    assert serve == f"fastlisten[{used}]"


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_make_commands_exist(text: str) -> None:
    used = set(re.findall(r"^ {4}make (\w+)", text, re.MULTILINE))
    assert used
    assert used <= set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_links_to_files_resolve(text: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_readme_configuration_is_served(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "relay-password").write_text("secret")
    config = loads(text.replace("/etc/fastlisten/", f"{tmp_path}/"))
    assert config.warnings == ()
    assert find_unavailable(config) == ()
    assert [(one.id, one["max-connections"]) for one in config.listeners] == [
        ("lmtp", 5000),
        ("management", 5000),
        ("smtp", 5000),
        ("submission", 100),
        ("submissions", 5000),
    ]


def test_readme_commands_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    given = re.findall(r"^    fastlisten (\w+)", README, re.MULTILINE)
    assert given
    for command in given:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f"fastlisten {fastlisten.__version__}\n")


def test_readme_library_example_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _, _ = blocks("python")
    names = program(source)
    made: asyncio.Future[fastlisten.ConnectionServer]

    async def create_server(*args: Any, **options: Any) -> fastlisten.ConnectionServer:
        server: fastlisten.ConnectionServer = await original(*args, **options)
        made.set_result(server)
        return server

    async def talk() -> bytes:
        nonlocal made
        made = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(names["main"](port=0))
        server = await made
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        return answer

    original: Callable[..., Any] = fastlisten.create_server
    monkeypatch.setattr(fastlisten, "create_server", create_server)
    assert asyncio.run(talk()) == b"hello"


def test_readme_handler_example_answers(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, source = blocks("python")
    asyncio.run(program(source)["main"]())
    assert capsys.readouterr().out == "b'HELLO\\n'\n"


def test_readme_aiosmtpd_example_accepts_mail(capsys: pytest.CaptureFixture[str]) -> None:
    _, source, _ = blocks("python")
    names = program(source)
    controller = names["Controller"](names["Print"](), hostname="127.0.0.1", port=0)
    controller.start()
    try:
        with smtplib.SMTP("127.0.0.1", controller.port, timeout=20) as client:
            client.sendmail("a@example.org", ["b@example.net"], b"hello\r\n")
    finally:
        controller.stop()
    assert capsys.readouterr().out == "a@example.org ['b@example.net'] 7\n"


def test_make_serve_serves_the_readme_configuration() -> None:
    config = default_config()
    missing = {problem.key.split(".")[2] for problem in find_unavailable(config)}
    served = [bind.text for one in config.listeners if one.id not in missing for bind in one.bind]
    said = re.search(r"serves on loopback: (.*?)\n\s+# (.*?)\n", README)
    assert said is not None
    ports = re.findall(r"\d+", "".join(said.groups()))
    assert sorted(served) == sorted(f"127.0.0.1:{port}" for port in ports)


def test_readme_message_is_delivered(tmp_path: Path) -> None:
    found = re.search(r"python3 -c '(.*2525.*)'$", README, re.MULTILINE)
    assert found is not None
    statement = found[1]
    assert account.add(DEFAULT_ACCOUNT, tmp_path / "accounts.toml", io.StringIO(), sys.stderr) == 0

    async def send() -> None:
        async with serve("smtp", data_directory=str(tmp_path)) as served:
            command = (sys.executable, "-c", statement.replace("2525", str(served.port)))
            done = await asyncio.to_thread(subprocess.run, command, timeout=30, check=False)
            assert done.returncode == 0

    asyncio.run(send())
    (message,) = (tmp_path / "mail" / DEFAULT_ACCOUNT / "new").iterdir()
    assert message.read_bytes().endswith(b"Subject: hello\r\n\r\nIt works.\r\n")
