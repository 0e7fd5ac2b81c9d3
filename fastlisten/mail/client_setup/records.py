"""DNS records with which mail programs and other servers find the services of a domain.

Rules of this file: values in, lines of a zone file out. RFC 6186 3.4: a service that is not there
is said to be at ".", so that nobody tries another port instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastlisten.mail.client_setup.services import ClientService, best

__all__ = ["zone_lines"]

#: Name, kind, and whether TLS begins with the first byte (RFC 6186 3.1 and 3.2, RFC 8314 5.1).
_NAMES = (
    ("_imaps", "imap", True),
    ("_imap", "imap", False),
    ("_submissions", "submission", True),
    ("_submission", "submission", False),
)

#: POP3 is not spoken here.
_NEVER = ("_pop3s", "_pop3")


def zone_lines(
    domain: str, services: Sequence[ClientService], mx: str, setup: tuple[str, int] | None
) -> Iterator[str]:
    """Yield the records of a domain.

    Args:
        domain: in ASCII.
        services: what is offered to users.
        mx: the name of the server that takes mail from other servers; empty if none does.
        setup: name and port of the https server with the documents for mail programs, if any.
    """
    if mx:
        yield f"{domain}. IN MX 10 {mx}."
    for name, kind, implicit in _NAMES:
        found = [one for one in best(services, kind) if one.implicit is implicit]
        for priority, one in enumerate(found):
            yield f"{name}._tcp.{domain}. IN SRV {priority} 1 {one.port} {one.host}."
        if not found:
            yield f"{name}._tcp.{domain}. IN SRV 0 0 0 ."
    for name in _NEVER:
        yield f"{name}._tcp.{domain}. IN SRV 0 0 0 ."
    if setup is not None:
        host, port = setup
        yield f"_autodiscover._tcp.{domain}. IN SRV 0 0 {port} {host}."
        if port == 443:
            yield f"autoconfig.{domain}. IN CNAME {host}."
