"""What the configuration checks of an imap listener, and how its values are written."""

from __future__ import annotations

import pytest
from support.config import listener, listener_problem, listener_table, load_text

from fastlisten.config.export import to_plain, to_toml

IMAP = 'protocol = "imap"\nbind = "127.0.0.1:143"\n'


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("tls.enable = false", "tls.enable", "over TLS only"),
        ('imap.mechanisms = "CRAM-MD5"', "imap.mechanisms", '"CRAM-MD5" is not one of the allowed'),
        ("imap.mechanisms = []", "imap.mechanisms", "at least one"),
        ("imap.mechanisms = 5", "imap.mechanisms", "not a string"),
        ("imap.disabled-capabilities = ['IMAP4rev1']", "imap.disabled-capabilities", "IMAP4rev1"),
        ("imap.id-send = ['colour']", "imap.id-send", "colour"),
        ("imap.max-line = '8000'", "imap.max-line", "too small"),
        ("imap.append-limit = '4GiB'", "imap.append-limit", "too large"),
        ("smtp.max-errors = 5", "smtp", "only for smtp"),
    ],
)
def test_invalid_settings(line: str, key: str, words: str) -> None:
    problem = listener_problem(IMAP + line)
    assert problem.key == f"server.listener.it.{key}"
    assert words in problem.message


def test_words_are_those_of_the_table_in_its_order() -> None:
    it = listener(IMAP + "imap.mechanisms = ['login', 'Plain']\nimap.id-send = 'NAME'")
    assert it["imap.mechanisms"] == ("PLAIN", "LOGIN")
    assert it["imap.id-send"] == ("name",)
    assert it["imap.disabled-capabilities"] == ()


def test_values_are_written_as_they_are_read() -> None:
    text = listener_table("it", IMAP + "imap.mechanisms = 'login'\nimap.id-log = []")
    config = load_text(text)
    again = load_text(to_toml(config))
    for key in ("imap.mechanisms", "imap.id-log", "imap.max-line"):
        assert again.listeners[0][key] == config.listeners[0][key]
    (plain,) = to_plain(config)["listeners"]
    assert plain["imap.mechanisms"] == {"value": ["LOGIN"], "origin": "listener"}


def test_a_listener_overrides_the_table() -> None:
    text = "[imap]\nmax-errors = 7\nmax-literal = '100KiB'\n" + listener_table(
        "a", IMAP + "imap.max-errors = 9\nimap.max-line = '200KiB'"
    )
    it = load_text(text + listener_table("b", IMAP.replace("143", "1143"))).listeners
    assert [one["imap.max-errors"] for one in it] == [9, 7]


def test_a_literal_beyond_the_line_gets_a_warning() -> None:
    config = load_text(listener_table("it", IMAP + "imap.max-literal = '100KiB'"))
    (warning,) = config.warnings
    assert "no effect beyond imap.max-line" in warning.message


def test_a_handler_of_ones_own_may_be_without_tls() -> None:
    line = 'handler = "support.serving_handlers:Echo"\ntls.enable = false'
    assert listener(IMAP + line)["tls.enable"] is False
