"""The reload column of docs/configuration.md, row by row.

Rules of this file: each row of the option table that can be configured has a case
(support/reload_cases.py), and its `reload` decides what is expected. Of `live` and `rebind`, the
running server shows the new value after a reload, and the old one again after another; of
`restart`, the report says so, and the old one stays in use. Meanwhile a connection goes on.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.accounts import write_accounts
from support.certificates import authority, write
from support.loops import on_loops
from support.reload_cases import CASES, ROWS, Case, shown
from support.reloading import reloadable
from support.server import read_some


def configuration(place: Path, key: str, value: str, case: Case) -> str:
    """Return a configuration in which one key has this value."""
    process = {"server.hostname": '"mx"', "server.data-directory": '"data"'}
    listener = {
        "protocol": f'"{case.protocol}"',
        "bind": case.bind.replace("PLACE", str(place)).replace("ID", "it"),
    }
    mail = {"cert": '"file://mail.crt"', "private-key": '"file://mail.key"', "default": "true"}
    other = {"cert": '"file://other.crt"', "private-key": '"file://other.key"', "default": "false"}
    if key.startswith("certificate."):
        mail[key.removeprefix("certificate.")] = value
        if key == "certificate.default":
            other["default"] = "false" if value == "true" else "true"
        else:  # both files, or they would not match
            name = value[len('"file://') :].partition(".")[0]
            mail |= {"cert": f'"file://{name}.crt"', "private-key": f'"file://{name}.key"'}
    elif ROWS[key].scopes == ("process",):
        process[key] = value
    else:
        listener[key] = value

    def lines(table: dict[str, str]) -> str:
        return "".join(f"{name} = {one}\n" for name, one in table.items() if one)

    return (
        f"{lines(process)}[certificate.default]\n{lines(mail)}[certificate.other]\n{lines(other)}"
        f"[server.listener.it]\n{lines(listener)}{case.more}\n"
        '[server.listener.still]\nprotocol = "echo"\nbind = "127.0.0.1:0"\n'
        'handler = "support.serving_handlers:Echo"\n'
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("mail", "other"):
        write(tmp_path, authority().sign(f"{name}.example"), name)
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    (tmp_path / "data").mkdir()
    alice, bob = ('[account."alice@example.org"]\n', '[account."bob@example.org"]\n')
    write_accounts(tmp_path / "data" / "accounts.toml", alice)
    write_accounts(tmp_path / "accounts.toml", alice)
    write_accounts(tmp_path / "bob.toml", alice + bob)
    return tmp_path


def test_every_row_has_a_case() -> None:
    assert CASES.keys() == ROWS.keys()


@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if row.reload != "restart"])
@on_loops
async def test_new_value_is_in_use(place: Path, key: str) -> None:
    case = CASES[key]
    first, second = (configuration(place, key, value, case) for value in (case.before, case.after))
    async with reloadable(place, first) as it:
        with await it.connect("still") as client:
            before = await shown(it, key, case)
            report = await it.reload(second)
            assert report.succeeded, report
            assert (report.added, report.removed, report.restart) == ((), (), ())
            # A certificate is one line, whichever of its keys has changed.
            name = "certificate." if key.startswith("certificate.") else key
            assert any(name in line for line in report.changed), report.changed
            after = await shown(it, key, case)
            if case.shown is not None:
                assert (before, after) == case.shown
            assert before != after or case.shown == (after, after)
            report = await it.reload(first)
            assert report.succeeded, report
            assert await shown(it, key, case) == before
            assert (await it.reload(first)).changed == ()
            client.send(b"still here")
            assert await read_some(client, 10) == b"still here"


@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if row.reload == "restart"])
@on_loops
async def test_old_value_stays_in_use(place: Path, key: str) -> None:
    case = CASES[key]
    async with reloadable(place, configuration(place, key, case.before, case)) as it:
        before = await shown(it, key, case)
        report = await it.reload(configuration(place, key, case.after, case))
        assert report.succeeded, report
        assert (report.added, report.removed, report.changed) == ((), (), ())
        (line,) = report.restart
        needs = f"{key} = {case.after} needs a stop and a start of the server; still "
        assert needs in line.replace(f"{place}/", "")
        assert await shown(it, key, case) == before
        # It is reported again, because the file still differs from what is in use.
        assert (await it.reload(configuration(place, key, case.after, case))).restart == (line,)
