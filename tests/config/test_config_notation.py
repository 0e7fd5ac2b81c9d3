"""Keys and values in messages: readable, short, never failing; suggestions for misspelt names."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from fastlisten.config import Machine, machine
from fastlisten.config.notation import dotted, quote, show_value
from fastlisten.config.suggest import likely, near


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_quoted_text_round_trips(text: str) -> None:
    assert tomli.loads(f"k = {quote(text)}")["k"] == text
    assert tomli.loads(f"{dotted((text,))} = 1") == {text: 1}


def test_lone_surrogates_are_replaced() -> None:
    assert quote("a\udcff") == '"a\ufffd"'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (12, "12"),
        (1.5, "1.5"),
        (datetime.date(2024, 2, 3), "2024-02-03"),
        ([1, [2, [3, [4]]]], "[1, [2, [3, [...]]]]"),
        ({"a b": {"c": {"d": {"e": 1}}}}, '{ "a b" = { c = { d = {...} } } }'),
        ({}, "{}"),
        ([], "[]"),
    ],
)
def test_value_notation(value: object, text: str) -> None:
    assert show_value(value) == text


def test_numbers_too_long_to_print() -> None:
    assert show_value(10**5000) == "a very long number"


def test_long_values_are_shortened() -> None:
    assert len(show_value("x" * 10_000)) == 60
    assert len(show_value(list(range(10_000)))) == 60


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("reuse_addr", "socket.reuse-addr"),
        ("implict", "tls.implicit"),
        ("tls.implict", "tls.implicit"),
        ("implic", "tls.implicit"),
        ("max", ""),
        ("max-conn", "max-connections"),
        ("xyzzy", ""),
        ("", ""),
        ("x" * 65, ""),
    ],
)
def test_likely_key(name: str, meant: str) -> None:
    keys = ("max-connections", "socket.reuse-addr", "tls.implicit")
    assert likely(name, keys) == meant


@pytest.mark.parametrize(
    ("name", "slip"),
    [
        ("Server", "server"),
        ("sevrer", "server"),
        ("servers", "server"),
        ("server", ""),
        ("store", ""),
        ("session", ""),
        ("resolver", ""),
        ("logs", "log"),
        ("lookup", ""),
        ("", ""),
    ],
)
def test_near_name(name: str, slip: str) -> None:
    assert near(name, ("server", "log")) == slip


def test_host_without_proc_has_no_known_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_SOMAXCONN", str(tmp_path / "missing"))
    assert Machine.current().somaxconn is None
    assert Machine.current().processors >= 1
