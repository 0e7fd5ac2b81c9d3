"""Requests that schemathesis generates from the document: every response is in the document.

Listeners are drained, paused and limited at random, so the managed server is not the one that
answers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support.management import listener, managed

import fastlisten
from fastlisten.handlers.base import HandlerSettings
from fastlisten.handlers.http import HttpHandler
from fastlisten.management.operations import openapi
from fastlisten.testing import serve

schemathesis = pytest.importorskip("schemathesis")

SCHEMA = schemathesis.openapi.from_dict(openapi(fastlisten.__version__))


@dataclass(frozen=True)
class Target:
    """The server that requests go to.

    Attributes:
        url: of the management.
        token: allows changes.
        failures: exceptions raised by the application.
    """

    url: str
    token: str
    failures: list[Any]


@SCHEMA.hook  # type: ignore[untyped-decorator]
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Ask for listeners that exist in two out of three cases."""
    if path_parameters and "id" in path_parameters and len(str(path_parameters["id"])) % 3:
        path_parameters["id"] = ("it", "a/b")[len(str(path_parameters["id"])) % 2]
    return path_parameters


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("management")
    found: list[Target] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def run() -> None:
        async with managed(directory, listener("it"), listener("a/b")) as it:
            given = HandlerSettings("manage", "http", "mx.example.org", extra={"app": it.app})
            async with serve(HttpHandler(given)) as served:
                failures: list[Any] = []
                loop.set_exception_handler(lambda _, context: failures.append(context))
                found.append(Target(f"http://127.0.0.1:{served.port}", it.token, failures))
                ready.set()
                await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(30)
    yield found[0]
    loop.call_soon_threadsafe(end.set)
    thread.join(30)
    loop.close()


@pytest.mark.parametrize("authorized", [False, True], ids=["no token", "token"])
@SCHEMA.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
def test_generated_requests_match_the_document(case: Any, target: Target, authorized: bool) -> None:
    headers = {"authorization": f"Bearer {target.token}"} if authorized else {}
    without = []
    if authorized:
        # Sends the request again without its token, but with the headers given here.
        without.append("ignored_auth")
    if case.path == "/healthz/ready":
        # It takes any status from 500 on for an error, even one in the document.
        without.append("not_a_server_error")
    case.call_and_validate(
        base_url=target.url,
        headers=headers,
        excluded_checks=[schemathesis.checks.CHECKS.get_one(name) for name in without],
    )
    assert target.failures == []
