"""Handler classes that a listener names, or that packages register: what they say of a protocol.

Rules of this file: the classes are in a module that is made for the test.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from support.config import listener, listener_problem, listener_table, load_text, problems
from support.registered import registered

from fastlisten.errors import ConfigurationError
from fastlisten.handlers.installed import installed_protocols
from fastlisten.handlers.protocol import Protocol
from fastlisten.handlers.registry import registered_handler


@pytest.fixture
def classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a module with handler classes."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_classes.py").write_text(
        textwrap.dedent("""
        from fastlisten import Handler
        from fastlisten.handlers.smtp import LmtpHandler, SmtpHandler
        from fastlisten.option import Option

        class Finger(Handler):
            default_port = 79
            default_tls_port = 7979
            starttls = True
            options = (Option("plan", "boolean", True, "Show plans."),)

        class Other(Finger):
            options = (Option("plan", "integer", 1, "Another meaning."),)

        class Submit(SmtpHandler):
            pass

        class Local(LmtpHandler):
            pass
        """)
    )
    yield "own_classes"
    sys.modules.pop("own_classes", None)


def test_named_class_is_like_a_registered_one(classes: str) -> None:
    body = "protocol = 'invented'\nbind = '127.0.0.1'\ninvented.plan = false"
    named = listener(f"{body}\nhandler = '{classes}:Finger'")
    with registered(handlers={"invented": f"{classes}:Finger"}):
        by_entry_point = listener(body)
    for it in (named, by_entry_point):
        assert [bind.port for bind in it.bind] == [79]
        assert it.starttls
        assert it.handler_options == {"plan": False}
    tls = listener(f"{body}\ntls.implicit = true\nhandler = '{classes}:Finger'")
    assert [bind.port for bind in tls.bind] == [7979]


def test_named_class_adds_to_a_known_protocol(classes: str) -> None:
    it = listener(
        f"protocol = 'http'\nbind = '127.0.0.1:1'\nhandler = '{classes}:Finger'\nhttp.plan = false"
    )
    assert it.handler_options["plan"] is False
    assert it["http.access-log"] is True
    assert it["timeout.idle"] == 60.0
    assert it.starttls


def test_table_of_several_classes_of_one_protocol(classes: str) -> None:
    tables = "[invented]\nplan = false" + "".join(
        listener_table(name, f"protocol = 'invented'\nbind = '{bind}'\nhandler = '{handler}'")
        for name, bind, handler in (
            ("a", "127.0.0.1:1", "nowhere_to_be_found:X"),
            ("b", "127.0.0.1:2", f"{classes}:Finger"),
        )
    )
    a, b = load_text(tables).listeners
    assert (a.handler_options, b.handler_options) == ({}, {"plan": False})


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        ("nowhere_to_be_found:X", 'no module "nowhere_to_be_found"'),
        ("own_classes:Absent", "no attribute 'Absent'"),
    ],
)
def test_class_that_cannot_be_imported_warns(classes: str, handler: str, why: str) -> None:
    """The class would decide on STARTTLS, so without a warning the output would be wrong."""
    body = f"protocol = 'invented'\nbind = '127.0.0.1:1'\nhandler = '{handler}'"
    (warning,) = load_text(listener_table("it", body)).warnings
    assert warning.key == "server.listener.it.handler"
    assert why in warning.message
    assert "its ports, options and STARTTLS are unknown" in warning.message


def test_two_classes_define_one_option_differently(classes: str) -> None:
    tables = "".join(
        listener_table(
            handler,
            f"protocol = 'invented'\nbind = '127.0.0.1:{port}'\nhandler = '{classes}:{handler}'",
        )
        for port, handler in enumerate(("Finger", "Other"), 1)
    )
    (problem,) = problems(tables)
    assert problem.key == "server.listener.Other.handler"
    assert "defines the option invented.plan differently" in problem.message


def test_subclass_under_another_name_keeps_starttls(classes: str) -> None:
    handlers = {"submit": f"{classes}:Submit", "local": f"{classes}:Local"}
    with registered(handlers=handlers):
        submit = listener("protocol = 'submit'\nbind = '127.0.0.1'\nsubmit.max-errors = 3")
        local = listener("protocol = 'local'\nbind = '127.0.0.1'")
        assert submit.starttls
        assert submit.server_speaks_first
        assert [bind.port for bind in (*submit.bind, *local.bind)] == [25, 24]
        assert submit.handler_options["max-errors"] == 3
        assert local.starttls
    assert listener(f"protocol = 'mine'\nhandler = '{classes}:Submit'").starttls


def test_protocol_objects_agree_with_their_classes() -> None:
    """If they differed, the older entry point would mean another protocol."""
    for name, definition in installed_protocols().definitions.items():
        if definition.handler:
            kind = registered_handler(name)
            made = Protocol(name, of_class=True).spoken_by(kind, definition.handler)
            assert (made.name, made.port, made.tls_port) == (
                definition.name,
                definition.port,
                definition.tls_port,
            )
            assert made.server_speaks_first is definition.server_speaks_first
            assert bool(made.starttls) is bool(definition.starttls)
            assert made.options == definition.options


def test_variant_of_a_protocol_has_its_checks_and_defaults(classes: str) -> None:
    module = import_module("fastlisten.handlers.smtp.settings")
    assert module.SMTP.check is not None
    folder = Path(str(import_module(classes).__file__)).parent
    (folder / "own_variant.py").write_text(
        "import dataclasses\nfrom fastlisten.handlers.smtp.settings import SMTP\n"
        f"IT = dataclasses.replace(SMTP, name='submit', handler='{classes}:Submit')\n"
    )
    try:
        with registered(protocols={"submit": "own_variant:IT"}):
            assert listener("protocol = 'submit'\nbind = '127.0.0.1:1'").starttls
            body = "protocol = 'submit'\nbind = '127.0.0.1:587'\ntls.enable = false"
            assert "passwords over TLS only" in listener_problem(body).message
            with pytest.raises(ConfigurationError, match=r"submit\.relay"):
                load_text(listener_table("it", "protocol = 'submit'\nsubmit.relay-ca = 'x'"))
    finally:
        sys.modules.pop("own_variant", None)
