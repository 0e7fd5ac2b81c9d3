"""Reloading a configuration's certificates: new ones are shown, a broken one changes nothing."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from support.certificates import Authority, authority, rsa_key, shake, table, trusting_all, write
from support.config import listener_table, load_text
from support.configured_certificates import der, made, renewed, shown

from fastlisten.runtime.plan import Plan
from fastlisten.runtime.tls.pem import fingerprint, recorded, replayed

pytestmark = pytest.mark.usefixtures("descriptors_back")

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def test_reload_without_changes(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx"))
    it = made(tmp_path, table(tmp_path) + listener_table("it", ""))
    it, found = renewed(it)
    assert (found.changed, found.warnings, found.problems, found.files) == ([], [], [], 2)


@pytest.mark.parametrize("version", [V12, V13])
def test_renewed_certificate_is_shown(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Even if its key is of another kind, as after a change of settings in an ACME client."""
    write(tmp_path, authority().sign("mx", key=rsa_key()))
    it = made(tmp_path, table(tmp_path) + listener_table("it", ""))
    context = it.context("it")
    for pair in (authority().sign("mx"), authority().sign("mx", key=rsa_key())):
        write(tmp_path, pair)
        it, found = renewed(it)
        assert (found.problems, found.warnings) == ([], [])
        (line,) = found.changed
        assert line == (
            f'certificate "default" has been replaced: valid until {pair.valid()[1]:%Y-%m-%d}, '
            f"SHA-256 {fingerprint(pair.cert)}"
        )
        assert it.context("it") is context
        assert shown(it, version=version) == der(pair)
        it, found = renewed(it)
        assert found.changed == []


def test_broken_renewal_changes_nothing(tmp_path: Path) -> None:
    before = authority().sign("mx")
    cert, key = write(tmp_path, before)
    it = made(tmp_path, table(tmp_path) + listener_table("it", ""))

    def broken() -> str:
        _, found = renewed(it)
        assert found.changed == []
        assert shown(it) == der(before)
        (problem,) = found.problems
        return str(problem).partition(" = ")[2].removeprefix(f'"file://{tmp_path}/')

    key.unlink()
    assert broken() == 'mail.key": cannot be read: No such file or directory (listener "it")'
    pair = authority().sign("mx")
    key.write_bytes(pair.key)
    message = 'the private key does not match the certificate (listener "it")'
    assert broken() == f'mail.key": {message}'
    cert.write_text("")
    assert broken() == 'mail.crt": it contains no PEM certificate (listener "it")'
    assert broken().startswith("mail.crt")
    cert.write_bytes(pair.cert)
    it, found = renewed(it)
    assert len(found.changed) == 1
    assert shown(it) == der(pair)


def test_renewal_of_one_of_several(tmp_path: Path) -> None:
    pairs = {name: authority().sign(name) for name in ("a", "b", "c")}
    for name, pair in pairs.items():
        write(tmp_path, pair, name)
    text = "".join(table(tmp_path, name, name) for name in pairs)
    names = "[{subject = 'b.example', certificate = 'b'}, {subject = '*.c', certificate = 'c'}]"
    text += listener_table("it", f"tls.certificate = 'a'\ntls.sni = {names}")
    text += listener_table("c", "bind = '127.0.0.1:9'\ntls.certificate = 'c'")
    it = made(tmp_path, text)
    pair = authority().sign("c")
    write(tmp_path, pair, "c")
    (tmp_path / "b.crt").unlink()
    it, found = renewed(it)
    assert [line.partition(":")[0] for line in found.changed] == [
        'certificate "c" has been replaced'
    ]
    assert len(found.problems) == 1
    assert shown(it) == der(pairs["a"])
    assert shown(it, "b.example") == der(pairs["b"])
    assert shown(it, "mx.c") == der(pair)
    assert shown(it, listener="c") == der(pair)


def test_expired_renewal_is_used_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx"))
    it = made(tmp_path, table(tmp_path) + listener_table("it", ""))
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    expired = authority().sign("mx", first=past - datetime.timedelta(days=9), last=past)
    write(tmp_path, expired)
    it, found = renewed(it)
    (warning,) = found.warnings
    assert f"expired on {past:%Y-%m-%d}" in warning
    assert shown(it) == der(expired)


def test_client_authorities_are_added_and_removed(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx"))
    old, new = Authority.make("old"), Authority.make("new")
    file = tmp_path / "ca.pem"
    file.write_bytes(old.pem)
    it = made(tmp_path, table(tmp_path) + listener_table("it", f"tls.client-ca = '{file}'"))
    context = it.context("it")
    assert context is not None

    def accepted(whose: Authority) -> bool:
        client = trusting_all()
        whose.sign("alice", client=True).load_into(client)
        try:
            shake(context, client)
        except ssl.SSLError:
            return False
        return True

    assert (accepted(old), accepted(new)) == (True, False)
    file.write_bytes(old.pem + new.pem)
    it, found = renewed(it)
    assert found.changed == [f"the client CAs in {file} have changed"]
    assert (accepted(old), accepted(new)) == (True, True)
    file.write_bytes(new.pem)
    it, found = renewed(it)
    assert len(found.changed) == 1
    assert (accepted(old), accepted(new)) == (False, True)
    file.write_text("")
    it, found = renewed(it)
    assert "it contains no PEM certificate" in str(found.problems[0])
    assert (accepted(old), accepted(new)) == (False, True)


def test_other_processes_are_given_only_certificates_and_keys(tmp_path: Path) -> None:
    """Root may read a link to any file that a user has put in a directory of its own."""
    cert, key = write(tmp_path, authority().sign("mx"))
    text = table(tmp_path) + listener_table("it", "")
    plan, of_worker = Plan(load_text(text)), Plan(load_text(text))
    kept = key.read_bytes()
    cert.write_bytes(b"root:$6$hash:1:\n" + cert.read_bytes() + b"more secrets\n")
    with recorded() as files:
        Plan(load_text(text), plan)
    assert files[str(key)].content() == kept
    assert files[str(cert)].content().startswith(b"-----BEGIN CERTIFICATE-----")
    assert files[str(cert)].content().endswith(b"-----END CERTIFICATE-----\n")

    cert.unlink()
    cert.symlink_to("/etc/passwd")
    with recorded() as files:
        found = [Plan(load_text(text), plan).certificates.found]
    assert files[str(cert)].content() == b""
    with replayed(files):
        found.append(Plan(load_text(text), of_worker).certificates.found)
    (problem,) = map(str, found[0].problems)
    assert "it contains no PEM certificate" in problem
    assert list(map(str, found[1].problems)) == [problem]
