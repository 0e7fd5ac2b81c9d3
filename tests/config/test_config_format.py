"""Files in this format as people have them, with keys that older and later servers read.

Rules of this file: each sample has the form of something in a public file. What their files mean
here is tested; the grammar of each row is in the other test_config files.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.certificates import authority, table, write
from support.config import (
    MACHINE,
    listener,
    listener_problem,
    listener_table,
    load_text,
    only_problem,
    problems,
)
from support.configured_certificates import der, made, shown

from fastlisten.config.export import to_plain, to_toml
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.runtime.handler_factory import make_handler
from fastlisten.runtime.tls.certificates import Certificates

PAIR = 'cert = "file:///c.pem"\nprivate-key = "file:///k.pem"\n'
JMAP = 'protocol = "jmap"\nbind = "[::]:443"\ntls.implicit = true\n'


# --- greeting and host name -------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_greeting_of_a_listener(protocol: str) -> None:
    text = '[server]\nhostname = "mx.example.org"\ngreeting = "ours"\n'
    text += listener_table("a", f'protocol = "{protocol}"\nbind = "127.0.0.1:2524"')
    text += listener_table(
        "b",
        f'protocol = "{protocol}"\nbind = "127.0.0.1:2526"\n'
        'greeting = "its own"\nhostname = "b.example.org"',
    )
    config = load_text(text)
    lines = []
    for each in config.listeners:
        handler = make_handler(config, each)
        assert isinstance(handler, SmtpHandler)
        lines.append(handler.greeting.decode())
    word = "LMTP" if protocol == "lmtp" else "ESMTP"
    assert lines == [
        f"220 mx.example.org {word} ours\r\n",
        f"220 b.example.org {word} its own\r\n",
    ]
    assert [each.origin("greeting") for each in config.listeners] == ["server", "listener"]
    assert config.listeners[0].path("greeting") == ("server", "greeting")
    assert [item["greeting"]["value"] for item in to_plain(config)["listeners"]] == [
        "ours",
        "its own",
    ]
    again = load_text(to_toml(config))
    assert [each["greeting"] for each in again.listeners] == ["ours", "its own"]
    assert [each["hostname"] for each in again.listeners] == ["mx.example.org", "b.example.org"]


def test_default_greeting_uses_the_host_name() -> None:
    it = listener("")
    assert (it["hostname"], it.origin("hostname")) == (MACHINE.hostname, "default")
    assert (it["greeting"], it.origin("greeting")) == ("", "default")


@pytest.mark.parametrize("text", ["a\\r\\nb", "a\\nb", "a\\rb", "x" * 241])
def test_greeting_must_be_one_line(text: str) -> None:
    assert listener_problem(f'greeting = "{text}"').key == "server.listener.it.greeting"


@pytest.mark.parametrize("protocol", ["http", "jmap"])
def test_greeting_is_rejected_where_the_client_speaks_first(protocol: str) -> None:
    problem = listener_problem(f'protocol = "{protocol}"\ngreeting = "x"')
    assert problem.message == (
        f"this is only for protocols with a greeting; this listener speaks {protocol}"
    )


def test_greeting_of_a_custom_protocol() -> None:
    assert (
        listener('protocol = "own"\nhandler = "support.serving_handlers:Echo"\ngreeting = "x"')[
            "greeting"
        ]
        == "x"
    )


# --- the URL of jmap --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://mail.example.org", "https://mail.example.org"),
        ("jmap.example.org:8080", "https://jmap.example.org:8080"),
        ("HTTPS://Mail.Example.Org:443/", "https://mail.example.org"),
        ("https://[2001:DB8::1]:8443/a/b/", "https://[2001:db8::1]:8443/a/b"),
        ("127.0.0.1:9990", "https://127.0.0.1:9990"),
    ],
)
def test_jmap_url_is_normalised(written: str, meant: str) -> None:
    config = load_text(listener_table("it", f'{JMAP}url = "{written}"'))
    assert config.listeners[0]["url"] == meant
    assert config.listeners[0].origin("url") == "listener"
    assert to_plain(config)["listeners"][0]["url"] == {"value": meant, "origin": "listener"}
    assert load_text(to_toml(config)).listeners[0]["url"] == meant


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https://a b",
        "https://user:p4ss@mail.example.org",
        "https://mail.example.org?x",
        "https://mail.example.org#x",
        "https://mail.example.org:0",
        "https://mail.example.org:65536",
        "https://mail.example.org:١",
        "ftp://mail.example.org",
        "https://[::g]",
        "https://-mail.example.org",
        "https://a\\r\\nb",
    ],
)
def test_invalid_jmap_url(url: str) -> None:
    problem = listener_problem(f'{JMAP}url = "{url}"')
    assert problem.key == "server.listener.it.url"
    assert problem.allowed == '"https://mail.example.org" or "mail.example.org:8443"'


@pytest.mark.parametrize(
    ("body", "url"),
    [
        (JMAP, "https://this.example.org"),
        (JMAP.replace("443", "8443"), "https://this.example.org:8443"),
        (JMAP + 'hostname = "b.example.org"', "https://b.example.org"),
        ('protocol = "jmap"\nbind = "127.0.0.1:8080"', "https://this.example.org"),
    ],
)
def test_default_jmap_url(body: str, url: str) -> None:
    it = listener(body)
    assert (it["url"], it.origin("url")) == (url, "default")


def test_jmap_url_for_all_listeners() -> None:
    text = "server.url = 'https://a.example.org'\n" + listener_table("it", JMAP)
    (it,) = load_text(text).listeners
    assert (it["url"], it.origin("url")) == ("https://a.example.org", "server")
    # A file may set it and have no such listener.
    load_text("server.url = 'https://a.example.org'\n" + listener_table("it", ""))


def test_jmap_url_without_tls_warns() -> None:
    config = load_text(listener_table("it", JMAP + 'url = "http://mail.example.org:80"'))
    assert config.listeners[0]["url"] == "http://mail.example.org"
    assert "only use https" in config.warnings[0].message


@pytest.mark.parametrize("protocol", ["smtp", "lmtp", "imap", "managesieve", "http"])
def test_url_is_rejected_for_other_protocols(protocol: str) -> None:
    problem = listener_problem(f'protocol = "{protocol}"\nurl = "https://mail.example.org"')
    assert problem.message == f"this is only for jmap listeners; this listener speaks {protocol}"


# --- the default certificate ------------------------------------------------------------------


def pairs(*bodies: tuple[str, str]) -> str:
    return "".join(f'[certificate."{id}"]\n{PAIR}{body}\n' for id, body in bodies)


@pytest.mark.parametrize(
    ("certificates", "body", "expected"),
    [
        ([("a", ""), ("b", "default = true")], "", "b"),
        ([("a", ""), ("b", "default = 'true'")], "", "b"),
        ([("a", ""), ("b", "default = true")], "tls.certificate = 'a'", "a"),
        ([("default", ""), ("b", "default = true")], "", "b"),
        ([("default", "default = true"), ("b", "")], "", "default"),
        ([("a", "default = false"), ("default", "")], "", "default"),
        ([("a", "default = false")], "", "a"),
        ([("a", "default = false"), ("b", "")], "", None),
    ],
)
def test_default_certificate(
    certificates: list[tuple[str, str]], body: str, expected: str | None
) -> None:
    text = pairs(*certificates) + listener_table("it", body)
    config = load_text(text)
    assert config.listeners[0]["tls.certificate"] == expected
    again = load_text(to_toml(config))
    assert again.listeners[0]["tls.certificate"] == expected


def test_certificate_merely_named_default_warns() -> None:
    config = load_text(
        pairs(("default", ""), ("b", "default = true"))
        + listener_table("it", "tls.sni = [{subject = 'a.example', certificate = 'default'}]")
    )
    (warning,) = config.warnings
    assert (warning.key, warning.line) == ("certificate.default", 1)
    assert warning.message == 'this is not the default, despite its name; [certificate."b"] is'


def test_two_default_certificates_are_an_error() -> None:
    text = pairs(("a", "default = true"), ("b", "default = true")) + listener_table("it", "")
    problem = only_problem(text)
    assert (problem.key, problem.line) == ("certificate.b.default", 8)
    assert problem.message == 'the default certificate is already [certificate."a"]'


def test_unused_certificate_warns() -> None:
    text = pairs(("a", "default = true"), ("b", "")) + listener_table("it", "")
    assert [warning.key for warning in load_text(text).warnings] == ["certificate.b"]


def test_default_certificate_without_matching_sni(tmp_path: Path) -> None:
    mine, other = authority().sign("mx"), authority().sign("other")
    write(tmp_path, mine)
    write(tmp_path, other, "other")
    text = table(tmp_path) + table(tmp_path, "other", "other") + "default = true\n"
    text += listener_table("it", "tls.sni = [{subject = 'mx.example', certificate = 'default'}]")
    it = made(tmp_path, text)
    assert shown(it) == shown(it, "unheard-of.example") == der(other)
    assert shown(it, "mx.example") == der(mine)


def test_certificate_path_without_a_scheme_gets_a_suggestion() -> None:
    found = problems(
        '[certificate.a]\ncert = "/c.pem"\nprivate-key = "/k.pem"' + listener_table("it", "")
    )
    assert [problem.suggestion for problem in found] == ['"file:///c.pem"', '"file:///k.pem"']


# --- the older spelling of trusted networks ----------------------------------------------------


def test_older_spelling_of_trusted_networks() -> None:
    text = '[server]\nproxy-trusted-networks = ["10.0.0.0/8"]\n' + listener_table("a", "")
    text += listener_table("b", 'bind = "[::1]:25"\nproxy-trusted-networks = ["unix"]')
    config = load_text(text)
    values = [[str(net) for net in each["proxy.trusted-networks"]] for each in config.listeners]
    assert values == [["10.0.0.0/8"], ["unix"]]
    assert [each.origin("proxy.trusted-networks") for each in config.listeners] == [
        "server",
        "listener",
    ]
    # Whichever name is asked for, the line is where it is written.
    assert [each.line("proxy.trusted-networks") for each in config.listeners] == [2, 12]
    assert [(warning.line, warning.message) for warning in config.warnings] == [
        (2, "this is an older spelling of server.proxy.trusted-networks"),
        (12, "this is an older spelling of server.listener.b.proxy.trusted-networks"),
    ]
    assert "proxy-trusted" not in to_toml(config)


@pytest.mark.parametrize("order", [1, -1])
def test_both_spellings_in_one_place_are_an_error(order: int) -> None:
    lines = ["proxy-trusted-networks = ['10.0.0.0/8']", "proxy.trusted-networks = ['::/0']"]
    problem = listener_problem("\n".join(lines[::order]))
    assert problem.key == "server.listener.it.proxy-trusted-networks"


def test_braces_instead_of_brackets_get_a_suggestion() -> None:
    problem = only_problem('[server.proxy]\ntrusted-networks = {"127.0.0.0/8", "::1"}\n')
    assert problem.line == 2
    assert problem.message.endswith("arrays are written in brackets: [...]")


# --- submission on a port that does not say so -------------------------------------------------


@pytest.mark.parametrize(
    ("id", "body"),
    [
        ("submission", ""),
        ("submissions", ""),
        ("smtp-submission", 'bind = "192.0.2.1:10587"'),
        ("Submission.users", 'bind = "unix:/run/submission"'),
        ("msa", 'bind = "[::]:25"'),
        ("users", "tls.implicit = true"),
        ("users", "bind = 'fd:3'\ntls.implicit = true"),
    ],
)
def test_listener_that_looks_like_submission_but_is_an_mx_warns(id: str, body: str) -> None:
    body = body or 'bind = "127.0.0.1:10025"'
    body = body if "bind" in body else 'bind = "127.0.0.1:10465"\n' + body
    text = pairs(("a", "")) + listener_table(id, body)
    (warning,) = load_text(text).warnings
    assert warning.key.startswith("server.listener.")
    assert 'write smtp.role = "submission"' in warning.message
    assert "from strangers" in warning.message
    for role in ("mx", "submission"):
        assert not load_text(text + f'smtp.role = "{role}"').warnings


@pytest.mark.parametrize(
    ("id", "body"),
    [
        ("submission", 'bind = "127.0.0.1:587"'),
        ("submissions", 'bind = "127.0.0.1:2465"\ntls.implicit = true'),
        ("smtp", 'bind = "127.0.0.1:10025"'),
        ("submission", 'bind = "127.0.0.1:10587"\nhandler = "support.serving_handlers:Echo"'),
        (
            "submission",
            'bind = "127.0.0.1:10587"\nsmtp.aiosmtpd-handler = "support.serving_handlers:Echo"',
        ),
        ("submission", 'bind = "127.0.0.1:10587"\nprotocol = "lmtp"'),
    ],
)
def test_no_warning_about_submission(id: str, body: str) -> None:
    assert not load_text(pairs(("a", "")) + listener_table(id, body)).warnings


# --- files for other programs ------------------------------------------------------------------


def test_include_only_file_is_explained() -> None:
    problem = only_problem('[macros]\nhost = "x"\n[include]\nfiles = ["/etc/smtp.toml"]\n')
    assert "files named by `include` are not read" in problem.message


def test_complete_file_loads(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx"))
    text = f"""[server]
hostname = "mail.example.org"
max-connections = 512
proxy-trusted-networks = ["10.0.0.0/8", "127.0.0.0/8"]
socket = {{ nodelay = true, reuse-addr = true, backlog = 1024 }}
tls.enable = true
http.url = "protocol + '://' + config_get('server.hostname')"
[server.listener]
smtp = {{ bind = ["0.0.0.0:25"], protocol = "smtp", greeting = "at your service" }}
"smtp.submissions" = {{ bind = "0.0.0.0:465", protocol = "smtp", tls.implicit = true }}
jmap = {{ bind = "[::]:443", protocol = "jmap", url = "https://m.org", tls.implicit = true }}
sieve = {{ bind = ["[::]:4190"], protocol = "managesieve", proxy.override = true }}
[certificate."default"]
default = true
cert = "%{{file:{tmp_path}/mail.crt}}%"
private-key = "%{{file:{tmp_path}/mail.key}}%"
[session.rcpt]
relay = [ {{ if = "authenticated-as", ne = "", then = true }}, {{ else = false }} ]
[store."rocksdb"]
type = "rocksdb"
"""
    config = load_text(text)
    assert [each["tls.certificate"] for each in config.listeners] == ["default"] * 4
    Certificates(config, trial=True)
