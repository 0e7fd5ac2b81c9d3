"""The line scanner finds the same paths as tomli, and the lines where they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastlisten.toml_lines import Lines

# Keys repeat often enough to make dotted keys and headers meet, and need quotes now and then.
_NAMES = st.sampled_from(["a", "b", "c-d", "1", "x y", "q.r", 'z"', "\\", "é", "\t", ""])


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


@st.composite
def keys(draw: st.DrawFn) -> str:
    name = draw(_NAMES)
    forms = ['"' + "".join(f"\\u{ord(c):04X}" for c in name) + '"']
    if name.isascii() and name.replace("-", "").isalnum():
        forms.append(name)
    if "'" not in name and "\t" not in name:
        forms.append(f"'{name}'")
    return draw(st.sampled_from(forms))


@st.composite
def dotted_keys(draw: st.DrawFn) -> str:
    dot = draw(st.sampled_from([".", " . ", ".\t"]))
    return dot.join(draw(st.lists(keys(), min_size=1, max_size=3)))


_SCALARS = st.sampled_from(
    [
        "1",
        "0x1F",
        "1.5e3",
        "nan",
        "true",
        "1979-05-27 07:32:00",
        "1979-05-27T07:32:00.5-07:00",
        "07:32:00",
        '"plain"',
        '"with # and ] and \\" and = "',
        "'C:\\'",
        '""',
        '"""one line"""',
        '"""\ntwo "" lines\n# not a comment\n"""',
        '"""quotes at the end"""""',
        '"""\\\n   folded \\""" still\n"""',
        "'''\n[not.a.table]\n''two'' '''",
        "'''quote at the end''''",
    ]
)
_GAPS = st.sampled_from(["", " ", "\n", " # comment ] }\n", "\r\n\t", "\n\n"])


def _join(open_: str, items: list[str], gaps: list[str], close: str, comma: str) -> str:
    return open_ + gaps[0] + f"{gaps[1]},{gaps[2]}".join(items) + comma + gaps[3] + close


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(values, max_size=3))
    gaps = draw(st.lists(_GAPS, min_size=4, max_size=4))
    return _join("[", items, gaps, "]", draw(st.sampled_from(["", ","])) if items else "")


@st.composite
def inline_tables(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    entries = draw(st.lists(st.tuples(dotted_keys(), values), max_size=3))
    items = [f"{key} = {value}" for key, value in entries]
    return "{ " + ", ".join(items) + " }"


_VALUES = st.recursive(
    _SCALARS, lambda inner: st.one_of(arrays(inner), inline_tables(inner)), max_leaves=6
)
_LINES = st.one_of(
    st.builds("{} = {}".format, dotted_keys(), _VALUES),
    st.builds("\t{}={} # comment".format, dotted_keys(), _VALUES),
    st.builds("[{}]".format, dotted_keys()),
    st.builds("[ {} ] # comment".format, dotted_keys()),
    st.builds("[[{}]]".format, dotted_keys()),
    st.sampled_from(["", "# comment", "   ", "\t# [not.a.table]"]),
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Build a document line by line, leaving out lines that tomli does not accept there."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    text = ""
    for line in draw(st.lists(_LINES, max_size=12)):
        longer = text + line.replace("\r\n", "\n").replace("\n", newline) + newline
        try:
            tomli.loads(longer)
        except ValueError:
            continue
        text = longer
    return text if draw(st.booleans()) else text.removesuffix(newline)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(documents())
def test_paths_agree_with_tomli(text: str) -> None:
    assert set(Lines(text).paths()) == set(paths_of(tomli.loads(text)))


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(documents())
def test_line_is_where_the_key_begins(text: str) -> None:
    # If a key is not before its line, the text before that line does not contain it.
    lines = text.split("\n")
    whole = Lines(text)
    for path, line in whole.paths().items():
        assert 1 <= line <= len(lines)
        before = "\n".join(lines[: line - 1])
        try:
            data = tomli.loads(before)
        except ValueError:
            continue  # the cut is within a value
        if isinstance(path[-1], str) and not _is_header(lines[line - 1]):
            assert path not in set(paths_of(data))


def _is_header(line: str) -> bool:
    return line.lstrip().startswith("[")


def test_lines_of_a_complete_file() -> None:
    text = """\
# head
[server]
max-connections = 5

[server.listener."a.b"]
bind = [
  "[::]:25",  # one
  "unix:/x",
]
tls.sni = [{ subject = "a", certificate = "b" },
           { subject = "c",
             certificate = "d" }]
[[server.x]]
y = 1
[[server.x]]
y = '''
2'''
z = 3
[server.listener]
"""
    lines = Lines(text)
    here = ("server", "listener", "a.b")
    assert lines["server",] == 2
    assert lines["server", "max-connections"] == 3
    assert lines[here] == 5
    assert lines[*here, "bind"] == 6
    assert lines[*here, "bind", 0] == 7
    assert lines[*here, "bind", 1] == 8
    assert lines[*here, "tls"] == 10
    assert lines[*here, "tls", "sni", 0, "subject"] == 10
    assert lines[*here, "tls", "sni", 1, "certificate"] == 12
    assert lines["server", "x"] == 13
    assert lines["server", "x", 1] == 15
    assert lines["server", "x", 1, "z"] == 18
    # Its own header takes precedence over the mention in an earlier one.
    assert lines["server", "listener"] == 19


def test_missing_key_has_the_line_of_its_table() -> None:
    lines = Lines("[server]\n[server.listener.x]\n")
    assert lines["server", "listener", "x", "tls", "implicit"] == 2
    assert lines["log", "level"] == 0
    assert lines[()] == 0


def test_deep_nesting_does_not_recurse() -> None:
    depth = 390  # tomli's own limit is 400
    text = "k = " + "[" * depth + "]" * depth
    assert len(Lines(text).paths()) == depth


@pytest.mark.parametrize("text", ["= 1", "k = "])
def test_invalid_toml_is_rejected(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        Lines(text)
