"""Properties: any input is loaded or reported, twice in the same way; written TOML loads again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.config import MACHINE
from support.config_strategies import configurations

from fastlisten.config import Config, loads
from fastlisten.config.export import to_plain, to_toml
from fastlisten.config.load import default_text
from fastlisten.config.notation import dotted, quote
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def attempt(text: str | bytes) -> Config | ConfigurationError:
    try:
        config = loads(text, machine=MACHINE)
    except ConfigurationError as error:
        return error if error.problems and str(error) else pytest.fail("an error without a text")
    find_unavailable(config)
    return config


@QUICK
@given(st.one_of(st.text(), st.binary()))
def test_any_text_is_loaded_or_reported(text: str | bytes) -> None:
    attempt(text)


@settings(QUICK, max_examples=300)
@given(configurations())
def test_loading_twice_has_the_same_result(text: str) -> None:
    first, second = attempt(text), attempt(text)
    if isinstance(first, Config):
        assert first == second
    else:
        assert isinstance(second, ConfigurationError)
        assert first.problems == second.problems


@settings(QUICK, max_examples=300)
@given(configurations())
def test_toml_round_trip(text: str) -> None:
    config = attempt(text)
    if isinstance(config, Config):
        written = to_toml(config)
        again = loads(written, machine=MACHINE)
        assert again.listeners == config.listeners
        assert again.process == config.process
        assert to_plain(again) == to_plain(config)
        assert to_toml(again) == written


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Return the embedded default with pieces removed, doubled or replaced."""
    text = default_text()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        piece = draw(
            st.sampled_from(["", text[start:end] * 2, '"', "[", "]]", "=", "\n", ".", "\0", "3"])
        )
        text = text[:start] + piece + text[end:]
    return text


@settings(QUICK, max_examples=200)
@given(damaged())
def test_damaged_file_is_loaded_or_reported(text: str) -> None:
    attempt(text)


# Whatever tomli can hold, in place of any table or key.
_ANYTHING = st.recursive(
    st.one_of(
        st.booleans().map(lambda value: str(value).lower()),
        st.integers(-(2**70), 2**70).map(str),
        st.sampled_from(["inf", "-nan", "07:32:00", "1979-05-27T07:32:00Z", "0x" + "f" * 5000]),
        st.text(max_size=5).filter(str.isprintable).map(quote),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(
            st.sampled_from(["bind", "protocol", "socket", "x", "subject", ""]), inner, max_size=2
        ).map(
            lambda items: (
                "{" + ", ".join(f"{quote(key)} = {value}" for key, value in items.items()) + "}"
            )
        ),
    ),
    max_leaves=4,
)


@QUICK
@given(
    st.sampled_from(
        ["server", "server.listener", "server.listener.a", "server.socket", "certificate",
         "certificate.x", "certificate.x.cert", "log", "smtp", "server.listener.a.bind",
         "server.listener.a.tls", "server.listener.a.tls.sni", "server.listener.a.smtp",
         "server.run-as", "server.tls.sni", "server.proxy.trusted-networks", "acme"]
    ),
    _ANYTHING,
)  # fmt: skip
@example("server.listener.a.bind", "[" * 300 + "]" * 300)
def test_any_value_in_any_place_is_loaded_or_reported(key: str, value: str) -> None:
    attempt(f"{key} = {value}\n")


def test_keys_are_quoted_for_toml() -> None:
    assert dotted(("a", "b c", "", 3, "d.e", '"')) == 'a."b c".""[3]."d.e"."\\""'


def test_loading_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    os.rmdir(gone)
    assert isinstance(attempt(default_text()), Config)
