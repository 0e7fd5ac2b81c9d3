"""Suggestions in messages: common mistakes, each with what was probably meant."""

from __future__ import annotations

import pytest
from support.config import listener_table, load_text

from fastlisten.errors import ConfigurationError
from fastlisten.toml_text import TomlError, parse_toml


def mistake(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_text(text)
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("body", "meant"),
    [
        ("smtp.relay = 'smtp.example.net'", '"smtp.example.net:587"'),
        ("socket.mode = 660", '"0660"'),
        ("bind = '/run/lmtp.sock'", '"unix:/run/lmtp.sock"'),
    ],
)
def test_suggested_value(body: str, meant: str) -> None:
    assert mistake(listener_table("it", body)).endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize(
    "body", ["smtp.relay = 'a b'", "socket.mode = 9", "socket.mode = true", "bind = '/run/'"]
)
def test_no_suggestion_without_a_good_guess(body: str) -> None:
    assert "did you mean" not in mistake(listener_table("it", body))


def test_missing_protocol_lists_the_choices() -> None:
    said = mistake("[server.listener.it]\nbind = '127.0.0.1:25'\n")
    assert "the key protocol is missing; allowed: " in said
    assert said.endswith("; with handler, any other name")


@pytest.mark.parametrize("word", ["yes", "True", "smtp.example.net", "off"])
def test_unquoted_word(word: str) -> None:
    with pytest.raises(TomlError, match=r"; strings need quotes; booleans are true and false$"):
        parse_toml(f"a = 1\nb = {word}\n")


@pytest.mark.parametrize("text", ["a = ]", "a = 1-", "a = "])
def test_no_hint_for_other_toml_errors(text: str) -> None:
    with pytest.raises(TomlError) as caught:
        parse_toml(text)
    assert "quotes" not in str(caught.value)


@pytest.mark.parametrize("line", ["socket.mode = 0660", "a = [1, 0660]", "a = 0660 # rw"])
def test_leading_zero(line: str) -> None:
    with pytest.raises(TomlError, match=r'a number must not begin with 0, .*: "0660"$') as caught:
        parse_toml(f"b = 1\n{line}\n")
    assert caught.value.line == 2


@pytest.mark.parametrize("header", ["[server.listener.it]", '[a."b.c"]'])
def test_table_that_is_there_twice(header: str) -> None:
    with pytest.raises(TomlError) as caught:
        parse_toml(f"{header}\nb = 1\n{header}\nc = 1\n")
    assert str(caught.value) == f"not valid TOML: the table {header} is there already"
    assert caught.value.line == 3
