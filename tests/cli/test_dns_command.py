"""`fastlisten dns`: records of a configuration (RFC 6186, RFC 8314)."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from fastlisten.cli import dns
from fastlisten.cli.main import main
from fastlisten.config import loads
from fastlisten.runtime.client_services import client_services
from fastlisten.runtime.handler_factory import handler_settings

CONFIGURATION = """
[server]
hostname = "mail.example.org"
data-directory = "{directory}"
[server.listener.imaps]
protocol = "imap"
bind = ["0.0.0.0", "[::]", "127.0.0.1:10993"]
tls.implicit = true
[server.listener.mx]
protocol = "smtp"
bind = "[::]:25"
[server.listener.own]
protocol = "smtp"
bind = "192.0.2.1:2525"
smtp.role = "submission"
[server.listener.submission]
protocol = "smtp"
bind = ["0.0.0.0:587", "unix:/run/submission"]
hostname = "submit.example.org"
[server.listener.hidden]
protocol = "imap"
bind = "127.0.0.1:143"
[server.listener.web]
protocol = "http"
bind = "0.0.0.0"
tls.implicit = true
http.autoconfig = "only"
"""

RECORDS = """\
; {0}
{0}. IN MX 10 mail.example.org.
_imaps._tcp.{0}. IN SRV 0 1 993 mail.example.org.
_imap._tcp.{0}. IN SRV 0 0 0 .
_submissions._tcp.{0}. IN SRV 0 0 0 .
_submission._tcp.{0}. IN SRV 0 1 587 submit.example.org.
_submission._tcp.{0}. IN SRV 1 1 2525 mail.example.org.
_pop3s._tcp.{0}. IN SRV 0 0 0 .
_pop3._tcp.{0}. IN SRV 0 0 0 .
_autodiscover._tcp.{0}. IN SRV 0 0 443 mail.example.org.
autoconfig.{0}. IN CNAME mail.example.org.
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "fastlisten.toml"
    path.write_text(CONFIGURATION.format(directory=tmp_path))
    return str(path)


def printed(file: str, *domains: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = dns.run(file, domains, out, err)
    return code, out.getvalue(), err.getvalue()


def test_records_of_a_domain(file: str) -> None:
    code, out, _ = printed(file, "Example.org")
    assert (code, out) == (0, RECORDS.format("example.org"))


def test_domains_of_the_accounts(file: str, tmp_path: Path) -> None:
    (tmp_path / "accounts.toml").write_text(
        '[account."al@example.org"]\naliases = ["@bücher.example", "al@[192.0.2.1]"]\n'
    )
    code, out, _ = printed(file)
    other = RECORDS.format("xn--bcher-kva.example").replace("; xn--bcher-kva", "; bücher")
    assert (code, out) == (0, other + "\n" + RECORDS.format("example.org"))


def test_command_line(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dns", file, "--domain", "example.org", "--domain", "example.com"]) == 0
    assert capsys.readouterr().out == "\n".join(map(RECORDS.format, ["example.org", "example.com"]))


def test_nothing_for_others(tmp_path: Path) -> None:
    path = tmp_path / "fastlisten.toml"
    path.write_text('[server.listener.imap]\nprotocol = "imap"\nbind = "127.0.0.1:143"\n')
    code, out, err = printed(str(path), "example.org")
    assert code == 0
    assert "IN MX" not in out
    assert all(line.endswith(" 0 0 0 .") for line in out.splitlines()[1:])
    assert "note: other machines can reach no listener" in err


@pytest.mark.parametrize(
    ("domains", "words"),
    [((), "no accounts"), (("not a domain",), "'not a domain' is not a domain")],
)
def test_mistakes(file: str, domains: tuple[str, ...], words: str) -> None:
    code, out, err = printed(file, *domains)
    assert (code, out) == (1, "")
    assert words in err


def test_http_listener_is_given_the_services(tmp_path: Path) -> None:
    config = loads(CONFIGURATION.format(directory=tmp_path))
    services = client_services(config)
    assert len(services) == 3
    given = {
        one.id: handler_settings(config, one).extra["client-services"] for one in config.listeners
    }
    assert given.pop("web") == services
    assert set(given.values()) == {()}
