"""Every command on any text: a message and an exit code, never a traceback.

Rules of this file: the commands are called as the program calls them, with files. Their output is
bounded by their input, and only the content of a file decides on the exit code.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.config import listener_table
from support.config_strategies import configurations

from fastlisten.cli.main import main
from fastlisten.mail.accounts.accounts_file import Accounts
from fastlisten.privileges import group_id, user_id

QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

_ODD = [
    b"x = " + b"9" * 5000,
    b"x = 0x" + b"f" * 5000,
    b"x = " + b"[" * 3000,
    b"x = " + b"{a = " * 500,
    b".".join([b"a"] * 3000) + b" = 1",
    b"[" + b".".join([b"a"] * 900) + b"]",
    b'x = "\\ud800"',
    b'"\\u0000" = 1',
    b"\xed\xa0\x80 = 1",
    b"x = nan\ny = -inf\nz = 1e9999",
    b"x = 9999-12-31T23:59:59.999999999+23:59",
    b"x = 0000-00-00",
    b"\xff\xfe\x00",
    b"\x00",
    b'server = "x"',
    b"server.listener = 5",
    b"[[server.listener]]",
    b'[server.listener."\\u0000\\n"]\nprotocol="smtp"\nbind="unix:/x"',
    listener_table("it", 'bind = "[fe80::1%999999999999]:25"').encode(),
    listener_table("it", 'bind = "fd:999999999"').encode(),
    listener_table("it", 'bind = "unix:/x"\nsocket.user = "99999999999999999999"').encode(),
    listener_table("it", 'tls.client-ca = "\\U0010ffff"').encode(),
    b'account."a@b" = ' + b"9" * 5000,
    b'[account."a@b"]\npassword = 0x' + b"f" * 5000,
    b'[account."a@b"]\naliases = [1, nan, 1979-05-27, {}]',
    b'[account."a@b"]\npassword = "$argon2id$v=19$m=' + b"9" * 5000 + b',t=1,p=1$a$b"',
]

_Test = TypeVar("_Test", bound=Callable[..., None])

_BYTES = st.one_of(
    st.sampled_from(_ODD),
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    configurations().map(str.encode),
    st.lists(st.sampled_from([*b"[]{}=\"'.,#\n\\ax1-:"]), max_size=60).map(bytes),
)


@contextlib.contextmanager
def file_with(content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "file.toml")
        path.write_bytes(content)
        yield path


def run(*arguments: str | Path) -> tuple[int, str]:
    """Return a command's exit code and output; an exception fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return code, err.getvalue()


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the default data directory inside the test's own."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


def with_examples(test: _Test) -> _Test:
    for content in _ODD:
        test = example(content)(test)
    return test


@QUICK
@given(_BYTES)
@with_examples
def test_any_configuration(content: bytes) -> None:
    with file_with(content) as path:
        code, err = run("check", path)
        assert code in (0, 2)
        assert bool(code) == ("error" in err)
        for mode in ("--json", "--toml", "--effective"):
            shown, _ = run("show", path, mode)
            assert shown in (0, 2)
        assert run("show", path)[0] == shown
        if shown == 2:
            # What cannot be loaded is not served; what can be might be.
            assert run("serve", path)[0] == 2
            assert run("account", "list", "--config", path)[0] == 2
            assert run("account", "add", "a@example.org", "--config", path)[0] == 2


@QUICK
@given(_BYTES)
@with_examples
def test_any_accounts_file(content: bytes) -> None:
    with file_with(content) as path:
        configuration = path.with_name("mail.toml")
        configuration.write_text(
            f"server.accounts = '{path}'\nserver.data-directory = '{path.parent}/data'\n"
            + listener_table("it", "tls.enable = false")
        )
        assert run("check", configuration)[0] == 0
        code, err = run("account", "list", "--config", configuration)
        assert code in (0, 2)
        assert code == 0 or err
        changed, _ = run("account", "alias", "a@b", "c@d", "--config", configuration)
        assert changed in (0, 2)
        if code == 2:
            assert changed == 2
            assert path.read_bytes() == content
        Accounts(path).reload()


@pytest.mark.parametrize("name", ["99999999999", "4294967295", "9" * 5000, "²", "٣", "-1", ""])
def test_invalid_user_ids(name: str) -> None:
    for find in (user_id, group_id):
        with pytest.raises(KeyError):
            find(name)
    assert (user_id("0"), group_id("0")) == (0, 0)
    assert user_id("4294967294") == 2**32 - 2


@pytest.mark.parametrize("variable", ["XDG_DATA_HOME", "HOME", "STATE_DIRECTORY", "LISTEN_FDS"])
def test_odd_environment_variables(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY")
    for name in ("XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for value in ("", "/a\nb", "\udcff", "9" * 5000, "relative", "/" + "x/" * 2000):
        monkeypatch.setenv(variable, value)
        with file_with(listener_table("it", "tls.enable = false").encode()) as path:
            assert run("check", path)[0] == 0
            assert run("show", path, "--json")[0] == 0
            assert run("account", "list", "--config", path)[0] == 1
