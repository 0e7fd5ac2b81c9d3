"""GETQUOTA, GETQUOTAROOT and SETQUOTA (RFC 9208).

Rules of this file: from an event to the answer. An account has one quota for all its mailboxes, and
so one root, named as Dovecot names it. Without a limit there is no root.
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.commands import GetQuota, GetQuotaRoot, SetQuota
from fastlisten.handlers.imap.engine.mailbox_responses import quota_response, quota_root_response
from fastlisten.handlers.imap.rejection import Rejected
from fastlisten.handlers.imap.session_state import Commands, SessionState
from fastlisten.mail.store.interface import QuotaStatus

__all__ = ["QUOTA_COMMANDS", "ROOT"]

ROOT = "User quota"

#: Octets of a unit of STORAGE (RFC 9208 5.1).
_UNIT = 1024


def _response(status: QuotaStatus) -> bytes:
    """Return the QUOTA response; without a limit, none."""
    resources = []
    if status.most_bytes is not None:
        used, most = (-(-octets // _UNIT) for octets in (status.used.bytes, status.most_bytes))
        resources.append(("STORAGE", used, most))
    if status.most_messages is not None:
        resources.append(("MESSAGE", status.used.messages, status.most_messages))
    return quota_response(ROOT, resources) if resources else b""


async def _get_quota(session: SessionState, event: GetQuota) -> None:
    response = _response(await session.mail().quota())
    if event.root != ROOT or not response:
        raise Rejected("Quota root doesn't exist.", codes.NONEXISTENT)
    session.engine.send(response)
    session.engine.ok("Getquota completed.")


async def _get_quota_root(session: SessionState, event: GetQuotaRoot) -> None:
    account = session.mail()
    await account.status(event.mailbox)  # it has to exist (RFC 9208 4.1.2 leaves that open)
    response = _response(await account.quota())
    session.engine.send(quota_root_response(event.mailbox, [ROOT] if response else []))
    session.engine.send(response)
    session.engine.ok("Getquotaroot completed.")


def _set_quota(_: SessionState, __: SetQuota) -> None:
    raise Rejected("Quotas are set by the administrator", codes.NOPERM)


QUOTA_COMMANDS: Commands = {
    GetQuota: _get_quota,
    GetQuotaRoot: _get_quota_root,
    SetQuota: _set_quota,
}
