"""RFC 5258: LIST-EXTENDED.

Rules of this file: a tree of mailboxes, below a name of its own for each test, and what LIST says.
"""

from __future__ import annotations

import pytest
from support import imap_fixtures
from support.imap_expect import expect
from support.imap_server import Lines

server, client, box, other = imap_fixtures.EVERY


@pytest.fixture
def top(client: Lines, box: str) -> str:
    """A tree of mailboxes; some of them, and one that is not there, are subscribed."""
    for name in ("Fruit", "Fruit/Apple", "Fruit/Banana", "Vegetable", "Vegetable/Broccoli", "Bar"):
        client.ok(f"CREATE {box}/{name}")
        client.ok(f"UNSUBSCRIBE {box}/{name}")
    for name in ("Fruit/Banana", "Fruit/Peach", "Vegetable", "Vegetable/Broccoli"):
        client.ok(f"SUBSCRIBE {box}/{name}")
    return box


def listed(top: str, *names: str) -> list[str]:
    """Return responses for ``name (attributes) more`` below the tree's top."""
    found = []
    for one in names:
        name, _, rest = one.partition(" (")
        attributes, _, more = rest.partition(")")
        found.append(f'* LIST ({attributes}) "/" {top}/{name}{more}')
    return [*found, "OK ..."]


APPLE, BANANA = "Fruit/Apple (\\HasNoChildren)", "Fruit/Banana (\\Subscribed \\HasNoChildren)"
BROCCOLI = "Vegetable/Broccoli (\\Subscribed \\HasNoChildren)"
PEACH = "Fruit/Peach (\\NonExistent \\Subscribed \\HasNoChildren)"
FRUIT, VEGETABLE = "Fruit (\\HasChildren)", "Vegetable (\\Subscribed \\HasChildren)"
CHILDREN = ' ("CHILDINFO" ("SUBSCRIBED"))'


# --- 3 Extended LIST ------------------------------------------------------------------------------


def test_3_empty_options(client: Lines, top: str) -> None:
    assert b" LIST-EXTENDED" in client.ok("CAPABILITY")[0]
    expect(client, f'LIST () "" "{top}/Fruit/*"',
           *listed(top, APPLE, "Fruit/Banana (\\HasNoChildren)"))  # fmt: skip


def test_3_several_patterns(client: Lines, top: str) -> None:
    expect(client, f'LIST "" ("{top}/Bar" "{top}/Fruit/A%" "{top}/Bar")',
           *listed(top, "Bar (\\HasNoChildren)", APPLE))  # fmt: skip


def test_3_the_empty_name_is_no_request_for_the_delimiter(client: Lines, top: str) -> None:
    """RFC 5258 3: in an extended LIST it is an ordinary pattern, which fits nothing."""
    expect(client, 'LIST () "" ""', "OK ...")
    expect(client, 'LIST "" ("")', "OK ...")


@pytest.mark.parametrize(
    "command",
    [
        'LIST (NONE) "" *', 'LIST "" * RETURN (NONE)', 'LIST (RECURSIVEMATCH) "" *',
        'LIST (REMOTE RECURSIVEMATCH) "" *', 'LIST "" ()', 'LIST "" * RETURN',
        'LIST "" * RETURN SUBSCRIBED',
    ],
)  # fmt: skip
def test_3_syntax(client: Lines, command: str) -> None:
    expect(client, command, "BAD ...")


# --- 3.1 Selection options ------------------------------------------------------------------------


def test_3_1_subscribed(client: Lines, top: str) -> None:
    expect(client, f'LIST (SUBSCRIBED) "" "{top}/*"',
           *listed(top, BANANA, PEACH, VEGETABLE, BROCCOLI))  # fmt: skip


def test_3_1_remote_adds_nothing(client: Lines, top: str) -> None:
    expect(client, f'LIST (REMOTE) "" "{top}/Fruit/A*"', *listed(top, APPLE))


def test_3_1_options_in_any_case(client: Lines, top: str) -> None:
    expect(client, f'list (subscribed) "" "{top}/Fruit/B*" return (subscribed)',
           *listed(top, BANANA))  # fmt: skip


# --- 3.2 Return options ---------------------------------------------------------------------------


def test_3_2_subscribed(client: Lines, top: str) -> None:
    """Attributes are added; what is listed stays."""
    expect(client, f'LIST "" "{top}/Fruit/*" RETURN (SUBSCRIBED)', *listed(top, APPLE, BANANA))


def test_3_2_children(client: Lines, top: str) -> None:
    expect(client, f'LIST "" "{top}/%" RETURN (CHILDREN)', *listed(
        top, "Bar (\\HasNoChildren)", FRUIT, "Vegetable (\\HasChildren)"))  # fmt: skip


# --- 3.4 Nonexistent names, 3.5 CHILDINFO ---------------------------------------------------------


def test_3_5_recursive_match(client: Lines, top: str) -> None:
    """A mailbox that is not subscribed is said because of those below it."""
    expect(client, f'LIST (SUBSCRIBED RECURSIVEMATCH) "" "{top}/%"',
           *listed(top, FRUIT + CHILDREN, VEGETABLE + CHILDREN))  # fmt: skip


def test_3_5_only_what_patterns_hide(client: Lines, top: str) -> None:
    """What is below is listed itself; then it is no reason to say more of what is above."""
    responses = client.ok(f'LIST (SUBSCRIBED RECURSIVEMATCH) "" "{top}/*"')
    names = [one.rpartition(b'"/" ')[2].split(b" ")[0] for one in responses]
    expected = ["Fruit/Banana", "Fruit/Peach", "Vegetable", "Vegetable/Broccoli"]
    assert names == [f"{top}/{name}".encode() for name in expected]


def test_3_5_above_a_name_that_does_not_exist(client: Lines, top: str) -> None:
    client.ok(f"SUBSCRIBE {top}/Gone/Deep")
    expect(client, f'LIST (RECURSIVEMATCH SUBSCRIBED) "" "{top}/G%"', *listed(
        top, f"Gone (\\NonExistent \\HasNoChildren){CHILDREN}"))  # fmt: skip
