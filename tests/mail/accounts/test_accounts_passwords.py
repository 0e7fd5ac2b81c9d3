"""Passwords: which hashes an accounts file may hold, what is hashed, and what decoys cost."""

from __future__ import annotations

import collections
import importlib.util
import sys
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.accounts import cheap_hash

from fastlisten.mail.accounts import passwords
from fastlisten.mail.accounts.passwords import (
    MAX_PASSWORD,
    Argon2Parameters,
    CannotVerifyError,
    Decoys,
    generate,
    hash_password,
    prepared,
    read_parameters,
    verify,
)

SALT, DIGEST = "c2FsdHNhbHRzYWx0c2FsdA", "A" * 43


def phc(parameters: str = "m=8,t=1,p=1", salt: str = SALT, digest: str = DIGEST) -> str:
    return f"$argon2id$v=19${parameters}${salt}${digest}"


def test_a_new_hash_is_as_rfc_9106_recommends() -> None:
    made = hash_password("secret")
    assert read_parameters(made) == Argon2Parameters(65536, 3, 4, 16, 32)
    assert made != hash_password("secret")
    assert verify(made, b"secret")
    assert not verify(made, b"Secret")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "{PLAIN}secret",
        "$argon2id$...",
        "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
        phc().replace("argon2id", "argon2i"),
        phc().replace("argon2id", "argon2d"),
        phc().replace("v=19", "v=16"),
        phc().replace("$v=19", ""),
        phc() + "\n",
        phc() + "=",
        " " + phc(),
        phc("m=08,t=1,p=1"),
        phc("m=8,t=0,p=1"),
        phc("t=1,m=8,p=1"),
        phc("m=8,t=1,p=1,data=eA"),
        phc("m=8,t=1,p=2"),
        phc("m=262145,t=1,p=1"),
        phc("m=8,t=65,p=1"),
        phc("m=262144,t=1,p=65"),
        phc("m=9999999999,t=1,p=1"),
        phc(salt="c2FsdA"),
        phc(salt="A" * 90),
        phc(salt="A" * 13),
        phc(salt="c2FsdHNhbHRzYWx0c2FsdB"),  # bits that stand for nothing
        phc(digest="A" * 20),
        phc(digest="A" * 41),
    ],
)
def test_what_is_no_usable_hash(text: str) -> None:
    with pytest.raises(ValueError, match=r"argon2id|asks for") as caught:
        read_parameters(text)
    assert not text or DIGEST not in str(caught.value)


@settings(max_examples=40)
@given(
    st.integers(8, 64),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(8, 64),
    st.integers(16, 64),
)
def test_what_argon2_makes_is_usable(
    memory: int, time: int, lanes: int, salt: int, digest: int
) -> None:
    from argon2.low_level import Type, hash_secret

    memory *= lanes
    made = hash_secret(b"x", b"s" * salt, time, memory, lanes, digest, Type.ID).decode()
    assert read_parameters(made) == (memory, time, lanes, salt, digest)
    assert verify(made, b"x")
    decoy = Decoys([made]).choose("a")
    assert read_parameters(decoy) == (memory, time, lanes, salt, digest)
    assert not verify(decoy, b"x")


_base64 = st.binary(min_size=6, max_size=70).map(lambda it: b64encode(it).decode().rstrip("="))
_nearly = st.text("ABCDEFGHabcdefgh0123+/", min_size=8, max_size=60)


@given(st.integers(1, 300), st.integers(1, 2), st.integers(1, 4), _base64, _base64 | _nearly)
def test_what_is_usable_can_be_verified(
    memory: int, time: int, lanes: int, salt: str, digest: str
) -> None:
    text = phc(f"m={memory},t={time},p={lanes}", salt, digest)
    try:
        read_parameters(text)
    except ValueError:
        return
    assert not verify(text, b"x")  # and not: it cannot be verified


@pytest.mark.parametrize(
    ("password", "secret"),
    [
        ("secret", b"secret"),
        (" a b ", b" a b "),
        ("Å", "Å".encode()),
        ("A\u030a", "Å".encode()),
        ("\u212b", "Å".encode()),  # the Ångström sign
        ("ﬁ", "ﬁ".encode()),  # a ligature stays one: NFC, not NFKC
        ("a\u00a0b\u3000c", b"a b c"),
        ("x" * MAX_PASSWORD, b"x" * MAX_PASSWORD),
        ("", None),
        ("x" * (MAX_PASSWORD + 1), None),
        ("ä" * MAX_PASSWORD, None),
        ("\ud800", None),
    ],
)
def test_what_is_hashed(password: str, secret: bytes | None) -> None:
    assert prepared(password) == secret


@pytest.mark.parametrize("password", ["", "x" * 1025, "ä" * 600, "a\nb", "a\0b", "\x7f", "\ud800"])
def test_what_cannot_be_a_password(password: str) -> None:
    with pytest.raises(ValueError, match="the password must "):
        hash_password(password)


def test_generated_passwords_differ_and_can_be_typed() -> None:
    made = {generate() for _ in range(100)}
    assert len(made) == 100
    assert all(one.isalnum() and one.isascii() and len(one) == 20 for one in made)


def test_without_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "argon2", None)
    monkeypatch.setitem(sys.modules, "argon2.low_level", None)
    assert not passwords.available()
    assert read_parameters(phc()).memory == 8
    assert Decoys([phc()]).choose("x")
    with pytest.raises(CannotVerifyError, match=r"fastlisten\[auth\]"):
        hash_password("secret")
    with pytest.raises(CannotVerifyError, match=r"fastlisten\[auth\]"):
        verify(phc(), b"secret")


def test_what_fails_for_another_reason_is_no_wrong_password() -> None:
    with pytest.raises(CannotVerifyError, match="cannot be verified"):
        verify("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ", b"x")


# --- decoys ---------------------------------------------------------------------------------------


def kinds(hashes: list[str], names: range) -> dict[int, int]:
    decoys = Decoys(hashes)
    return dict(
        collections.Counter(
            read_parameters(decoys.choose(f"{number}@example.org")).memory for number in names
        )
    )


def test_without_passwords_decoys_cost_what_new_ones_do() -> None:
    assert kinds([], range(3)) == {65536: 3}


def test_decoys_are_of_the_accounts_kinds_in_their_proportion() -> None:
    hashes = [cheap_hash(str(number), 8) for number in range(30)]
    hashes += [cheap_hash(str(number), 16) for number in range(10)]
    found = kinds(hashes, range(4000))
    assert set(found) == {8, 16}
    assert 850 < found[16] < 1150


def test_a_name_keeps_its_kind() -> None:
    hashes = [cheap_hash(str(number), 8 + 8 * (number % 2)) for number in range(20)]
    names = [f"{number}@example.org" for number in range(200)]
    decoys, again = Decoys(hashes), Decoys(reversed(hashes))
    for name in names:
        kind = read_parameters(decoys.choose(name))
        assert read_parameters(again.choose(name)) == kind
        assert read_parameters(decoys.choose(name.upper())) == kind


@given(st.text())
def test_any_text_has_a_decoy(name: str) -> None:
    assert read_parameters(Decoys([phc(), phc("m=16,t=1,p=1")]).choose(name)).memory in (8, 16)
