"""Edits of the accounts file: what the administrator wrote is kept, or nothing changes."""

from __future__ import annotations

import contextlib
import io
import stat
from pathlib import Path

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st
from support.accounts import cheap_hash

from fastlisten.cli import account
from fastlisten.cli.account_file import add_account, add_alias, remove_account, set_password
from fastlisten.errors import ConfigurationError
from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.roster import Roster

OLD, NEW = cheap_hash("old"), cheap_hash("new")

TEXT = f"""\
# Who is who.

[account."alice@example.org"]  # the boss
  password = "{OLD}" # of May
aliases = [ "al@example.org" ]
# until here

# And then there is Bob,
[ account . 'bob@Example.ORG' ]
aliases = [ # many
    "b@example.org",
]

[account."carol@example.org"]\
"""


def test_replace_a_password() -> None:
    after = set_password(TEXT, "alice@example.org", NEW, "f")
    assert after == TEXT.replace(OLD, NEW)
    literal = TEXT.replace(f'"{OLD}"', f"'{OLD}'")
    assert set_password(literal, "alice@example.org", NEW, "f") == TEXT.replace(OLD, NEW)


def test_set_a_first_password() -> None:
    header = "[ account . 'bob@Example.ORG' ]\n"
    assert set_password(TEXT, "bob@example.org", NEW, "f") == TEXT.replace(
        header, f'{header}password = "{NEW}"\n'
    )
    assert set_password(TEXT, "carol@example.org", NEW, "f") == f'{TEXT}\npassword = "{NEW}"\n'


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("alice@example.org", '[ "al@', '["@x.example", "al@'),
        ("bob@example.org", "[ # many", '["@x.example", # many'),
        (
            "carol@example.org",
            'carol@example.org"]',
            'carol@example.org"]\naliases = ["@x.example"]\n',
        ),
    ],
)
def test_add_alias(name: str, before: str, after: str) -> None:
    assert add_alias(TEXT, name, "@x.example", "f") == TEXT.replace(before, after)


def test_add_alias_to_an_empty_array() -> None:
    for array in ("[]", "[ ]", "[\n]"):
        text = f'[account."a@b"]\naliases = {array}\n'
        after = add_alias(text, "a@b", "c@d", "f")
        assert Roster.parse(after).accounts[0].aliases == ("c@d",)


def test_remove_account() -> None:
    text, removed = remove_account(TEXT, "alice@example.org", "f")
    assert removed.aliases == ("al@example.org",)
    start, end = TEXT.index("[account"), TEXT.index("# until here")
    assert text == TEXT[:start] + TEXT[end:]
    text, _ = remove_account(text, "carol@example.org", "f")
    assert text.endswith('    "b@example.org",\n]\n')
    text, _ = remove_account(text, "bob@example.org", "f")
    assert text.startswith("# Who is who.\n\n# until here\n\n# And then there is Bob,\n")
    assert Roster.parse(text).accounts == ()


def test_add_and_remove_leaves_the_text_unchanged() -> None:
    for text in ("", "# mine\n", TEXT + "\n", TEXT + "\n\n# the end\n"):
        after = add_account(text, "x@y", NEW, "f")
        assert Roster.parse(after).accounts[-1].password == NEW
        assert remove_account(after, "x@y", "f")[0] == text


@pytest.mark.parametrize(
    "text",
    [
        'account = { "a@b" = {} }',
        'account."a@b" = {}',
        '[account]\n"a@b" = {}',
        '[account]\n"a@b".aliases = []',
        '[account."a@b"]\npassword = """' + OLD + '"""',
        '[account."a@b"]\n"password" = "' + OLD + '"',
        '[account."a@b"]\naliases = ["""\n[account."x@y"]\n"""]',
    ],
)
def test_unusual_notation_must_be_edited_by_hand(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"by hand|not an address"):
        set_password(text, "a@b", NEW, "f")


def test_header_inside_a_comment_or_string_is_ignored() -> None:
    text = """\
[account."a@b"]
aliases = [
[account."a@b"]
]
"""
    with pytest.raises(ConfigurationError):
        Roster.parse(text)
    # Inside a comment of an array or a string it is just text.
    text = '[account."c@d"]\naliases = [ # [account."a@b"]\n]\n[account."a@b"]\n'
    after = set_password(text, "a@b", NEW, "f")
    assert [it.password for it in Roster.parse(after).accounts] == ["", NEW]


def test_crlf_line_ends_are_kept() -> None:
    text = TEXT.replace("\n", "\r\n")
    after = set_password(text, "alice@example.org", NEW, "f")
    assert after == text.replace(OLD, NEW)
    assert remove_account(text, "bob@example.org", "f")[0].count("\n") == text.count("\r\n") - 4


_pieces = st.lists(
    st.sampled_from(
        [
            '[account."a@b"]',
            "[account.'c@d']",
            '[ account."e@f" ] # comment',
            f'password = "{OLD}"',
            f"password = '{OLD}'  # x",
            "aliases = []",
            'aliases = ["g@h", "i@j"]',
            'aliases = [\n  "k@l",\n',
            "]",
            "# comment",
            '# [account."a@b"]',
            "",
            "account.x = 1",
            '"""',
        ]
    ),
    max_size=12,
)


@settings(max_examples=300)
@given(_pieces, st.sampled_from(["a@b", "c@d", "e@f"]), st.sampled_from(["\n", "\r\n"]))
def test_edit_has_the_intended_effect_or_fails(pieces: list[str], name: str, end: str) -> None:
    text = end.join(pieces)
    try:
        before = {it.name: it for it in Roster.parse(text).accounts}
    except ConfigurationError:
        return

    def meant(after: str) -> dict[str, tuple[tuple[str, ...], str]]:
        return {it.name: (it.aliases, it.password) for it in Roster.parse(after).accounts}

    were = meant(text)
    with contextlib.suppress(ConfigurationError):
        after = meant(set_password(text, name, NEW, "f"))
        assert after == {**were, name: (were[name][0], NEW)}
        assert name in before
    with contextlib.suppress(ConfigurationError):
        after = meant(add_alias(text, name, "new@example.org", "f"))
        assert after == {**were, name: (("new@example.org", *were[name][0]), were[name][1])}
    with contextlib.suppress(ConfigurationError):
        shorter, removed = remove_account(text, name, "f")
        assert removed == before[name]
        assert meant(shorter) == {key: value for key, value in were.items() if key != name}
    with contextlib.suppress(ConfigurationError):
        assert meant(add_account(text, name, NEW, "f")) == {**were, name: ((), NEW)}
        assert name not in before


# --- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "DEFAULT", passwords.Argon2Parameters(8, 1, 1, 16, 32))


def hashed(path: Path, name: str) -> str:
    return str(tomli.loads(path.read_text())["account"][name]["password"])


@pytest.mark.usefixtures("cheap")
def test_account_from_add_to_remove(tmp_path: Path) -> None:
    path, mail = tmp_path / "accounts.toml", tmp_path / "mail"
    out, err = io.StringIO(), io.StringIO()
    assert account.add("Al@x.example", path, out, err, password="one") == 0
    assert passwords.verify(hashed(path, "Al@x.example"), b"one")
    assert account.passwd("Al@X.example", path, "two", out, err) == 0
    assert passwords.verify(hashed(path, "Al@x.example"), b"two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert account.add_alias("Al@x.example", "@y.example", path, out, err) == 0
    assert account.list_accounts(path, out, err) == 0
    (mail / "Al@x.example" / "new").mkdir(parents=True)
    assert account.remove("Al@x.example", path, mail, out, err) == 0
    assert (mail / "Al@x.example").exists()
    assert account.add("Al@x.example", path, out, err) == 0
    assert account.remove("Al@x.example", path, mail, out, err, delete_mail=True) == 0
    assert not (mail / "Al@x.example").exists()
    assert account.add("b@x.example", path, out, err) == 0
    assert account.remove("b@x.example", path, mail, out, err, delete_mail=True) == 0
    assert path.read_text() == "# There are no accounts.\n"
    assert err.getvalue() == ""
    without = "without a password: it receives mail, but nobody can log in"
    assert out.getvalue().splitlines() == [
        f"added Al@x.example to {path}",
        f"changed the password of Al@x.example in {path}",
        f"Al@x.example now gets the mail for @y.example, in {path}",
        "Al@x.example\t@y.example",
        f"removed Al@x.example from {path}",
        f"its mail stays in {mail}/Al@x.example",
        f"added Al@x.example to {path}, {without}",
        f"removed Al@x.example from {path}",
        f"deleted its mail in {mail}/Al@x.example",
        f"added b@x.example to {path}, {without}",
        f"removed b@x.example from {path}",
        "it had no mail",
    ]


@pytest.mark.usefixtures("cheap")
def test_rejected_command_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "accounts.toml"
    path.write_text(TEXT)
    err = io.StringIO()
    for code in (
        account.passwd("dave@example.org", path, "x", err, err),
        account.passwd("alice@example.org", path, "", err, err),
        account.passwd("alice@example.org", path, "x" * 1025, err, err),
        account.add("dave@example.org", path, err, err, password="a\nb"),
        account.add_alias("alice@example.org", "nobody", path, err, err),
        account.add_alias("alice@example.org", "bob@example.org", path, err, err),
        account.remove("dave@example.org", path, tmp_path, err, err),
        account.remove("dave", path, tmp_path, err, err),
    ):
        assert code == 2
    assert path.read_text() == TEXT
    said = err.getvalue()
    for words in (
        "there is no such account",
        "the password must not be empty",
        "at most 1024 octets",
        "must not contain control characters",
        "'nobody' is not an address",
        "is an address of",
        "'dave' is not an address",
    ):
        assert words in said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "needed", "result"),
    [
        (["secret", "secret"], True, "secret"),
        (["secret", "secret"], False, "secret"),
        ([""], False, ""),
        ([""], True, None),
        (["secret", "Secret"], True, None),
    ],
)
def test_terminal_is_asked_twice(
    monkeypatch: pytest.MonkeyPatch, typed: list[str], needed: bool, result: str | None
) -> None:
    answers = iter(typed)
    monkeypatch.setattr(account, "getpass", lambda prompt: next(answers))
    context = (
        contextlib.nullcontext() if result is not None else pytest.raises(account.PasswordError)
    )
    with context:
        assert account.ask(Terminal(), from_stdin=False, needed=needed) == result
    assert list(answers) == []


def test_password_is_the_first_line_of_stdin() -> None:
    assert (
        account.ask(io.StringIO("se cret \r\nmore\n"), from_stdin=True, needed=True) == "se cret "
    )
    assert account.ask(io.StringIO("x"), from_stdin=True, needed=False) == "x"
    assert account.ask(io.StringIO("x"), from_stdin=False, needed=False) == ""
    for source, from_stdin in (("", True), ("\nx", True), ("x", False)):
        with pytest.raises(account.PasswordError):
            account.ask(io.StringIO(source), from_stdin=from_stdin, needed=True)
    broken = io.TextIOWrapper(io.BytesIO(b"\xff\n"), "utf-8")
    with pytest.raises(account.PasswordError):
        account.ask(broken, from_stdin=True, needed=True)


def test_eof_on_a_terminal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(account, "getpass", end)
    with pytest.raises(account.PasswordError):
        account.ask(Terminal(), from_stdin=False, needed=False)
