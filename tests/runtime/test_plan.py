"""What a plan decides before any process serves, and what it leaves to the workers.

Rules of this file: no loop runs, and nothing is served.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.environment import clean_environment

from fastlisten import ConfigurationError, Server
from fastlisten.config import loads
from fastlisten.runtime.local_control import LocalControl
from fastlisten.runtime.plan import Plan
from fastlisten.runtime.worker import Worker

pytestmark = pytest.mark.usefixtures("descriptors_back")

APPLICATION = "async def app(scope, receive, send):\n    raise AssertionError\n"


def http(id: str, *lines: str) -> str:
    return f'[server.listener.{id}]\nprotocol = "http"\nbind = "127.0.0.1:0"\n' + "".join(
        f"{line}\n" for line in lines
    )


def test_application_is_imported_by_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan may be made with privileges that the application must not have."""
    (tmp_path / "planned_application.py").write_text(APPLICATION)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        plan = Plan(loads(http("it", 'app = "planned_application:app"', "tls.enable = false")))
        assert "planned_application" not in sys.modules
        worker = Worker(plan)
        worker.make_handlers(LocalControl(worker))
        assert "planned_application" in sys.modules
    finally:
        sys.modules.pop("planned_application", None)


def test_our_own_handlers_are_imported_before_a_fork() -> None:
    code = (
        "import sys\n"
        "from fastlisten.config import loads\n"
        "from fastlisten.runtime.plan import Plan\n"
        'text = \'[server.listener.it]\\nprotocol = "lmtp"\\nbind = "127.0.0.1:0"\\n\'\n'
        "config = loads(text + 'tls.enable = false\\n')\n"
        "handler = 'fastlisten.handlers.smtp.handler'\n"
        "before = handler in sys.modules\n"
        "Plan(config)\n"
        "print(before, handler in sys.modules, 'fastlisten.handlers.http.handler' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("False True False\n", "")


def test_all_workers_share_the_limits_of_the_plan() -> None:
    text = http("a", "max-connections = 3") + http("b", "max-connections = 7") + http("c")
    arena = Plan(loads(text)).make_arena(members=2)
    limits = [[arena.places(row, member).limit for row in range(3)] for member in range(2)]
    assert limits == [[3, 7, 8192]] * 2


def test_server_reports_problems_of_plan_and_worker_together(tmp_path: Path) -> None:
    text = (
        http("a", 'handler = "nowhere:Handler"')
        + http("b", "tls.implicit = true")
        + '[certificate.default]\ncert = "file://none.crt"\nprivate-key = "file://none.key"\n'
        + http("c", 'handler = "nowhere:Other"')
    )
    config = loads(text, file=str(tmp_path / "mail.toml"))
    with pytest.raises(ConfigurationError) as caught:
        Plan(config)
    assert [problem.key for problem in caught.value.problems] == ["certificate.default.cert"]
    with pytest.raises(ConfigurationError) as caught:
        Server(config)
    assert [problem.key for problem in caught.value.problems] == [
        "server.listener.a.handler",
        "certificate.default.cert",
        "server.listener.c.handler",
    ]
