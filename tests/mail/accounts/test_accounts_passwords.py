"""Passwords: valid hashes, preparation of passwords, and the cost of decoy hashes."""

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


def test_new_hash_follows_rfc_9106() -> None:
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
        phc(salt="c2FsdHNhbHRzYWx0c2FsdB"),  # unused bits are set
        phc(digest="A" * 20),
        phc(digest="A" * 41),
    ],
)
def test_invalid_hash(text: str) -> None:
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
def test_hashes_by_argon2_cffi_are_valid(
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
def test_valid_hashes_can_be_verified(
    memory: int, time: int, lanes: int, salt: str, digest: str
) -> None:
    text = phc(f"m={memory},t={time},p={lanes}", salt, digest)
    try:
        read_parameters(text)
    except ValueError:
        return
    assert not verify(text, b"x")  # rather than raising CannotVerifyError


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
def test_prepared_password(password: str, secret: bytes | None) -> None:
    assert prepared(password) == secret


@pytest.mark.parametrize("password", ["", "x" * 1025, "ä" * 600, "a\nb", "a\0b", "\x7f", "\ud800"])
def test_invalid_password(password: str) -> None:
    with pytest.raises(ValueError, match="the password must "):
        hash_password(password)


def test_generated_passwords() -> None:
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


def test_verification_error_is_not_a_wrong_password() -> None:
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


def test_decoys_without_passwords_use_default_cost() -> None:
    assert kinds([], range(3)) == {65536: 3}


def test_decoys_match_the_distribution_of_costs() -> None:
    hashes = [cheap_hash(str(number), 8) for number in range(30)]
    hashes += [cheap_hash(str(number), 16) for number in range(10)]
    found = kinds(hashes, range(4000))
    assert set(found) == {8, 16}
    assert 850 < found[16] < 1150


def test_decoy_cost_of_a_name_is_stable() -> None:
    hashes = [cheap_hash(str(number), 8 + 8 * (number % 2)) for number in range(20)]
    names = [f"{number}@example.org" for number in range(200)]
    decoys, again = Decoys(hashes), Decoys(reversed(hashes))
    for name in names:
        kind = read_parameters(decoys.choose(name))
        assert read_parameters(again.choose(name)) == kind
        assert read_parameters(decoys.choose(name.upper())) == kind


@given(st.text())
def test_any_name_has_a_decoy(name: str) -> None:
    assert read_parameters(Decoys([phc(), phc("m=16,t=1,p=1")]).choose(name)).memory in (8, 16)
