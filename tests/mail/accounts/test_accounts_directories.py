"""The directory of an account: its name has as many octets as a name may have, not characters."""

from __future__ import annotations

import pytest

from fastlisten.errors import ConfigurationError
from fastlisten.mail.accounts.roster import Roster


def address(octets: int, letter: str) -> str:
    """Return an address of so many octets with one percent sign, which takes three on the disk."""
    text = "%" + letter * (63 // len(letter.encode())) + "@"
    while (left := octets - len(text.encode())) > 61:
        text += "d" * 60 + "."
    return text + "d" * left


@pytest.mark.parametrize("letter", ["a", "ü", "水"])
def test_as_long_as_it_may_be(letter: str) -> None:
    longest, longer = address(253, letter), address(254, letter)
    assert (len(longest.encode()), len(longer.encode())) == (253, 254)
    (account,) = Roster.parse(f'[account."{longest}"]\n').accounts
    assert len(account.directory.encode()) == 255
    with pytest.raises(ConfigurationError, match="too long for the name of a directory"):
        Roster.parse(f'[account."{longer}"]\n')
