"""Commands about the session itself: CAPABILITY, ID, ENABLE, LOGIN, LOGOUT and so on.

Rules of this file: from an event to what the session knows afterwards, and the answer.
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.commands import (
    Authenticate,
    AuthenticateResponse,
    Capability,
    Enable,
    Id,
    Login,
    Logout,
    Namespace,
)
from fastlisten.handlers.imap.engine.mailbox_responses import (
    NAMESPACE,
    capability_response,
    enabled_response,
    id_response,
)
from fastlisten.handlers.imap.login import Dialogue, credentials_of, log_in
from fastlisten.handlers.imap.session_state import Commands, SessionState, Work
from fastlisten.mail.logins.sasl import Credentials

__all__ = ["SESSION_COMMANDS"]


def _capability(session: SessionState, _: Capability) -> None:
    engine = session.engine
    engine.send(capability_response(session.capabilities()))
    engine.ok("Capability completed.")


def _id(session: SessionState, event: Id) -> None:
    services = session.services
    if services.rules.id_log:
        shown = {name: event.fields[name] for name in services.rules.id_log if name in event.fields}
        services.session_log.client_id(session.client().log_context(), shown)
    session.engine.send(id_response(services.rules.id_send))
    session.engine.ok("ID completed.")


def _namespace(session: SessionState, _: Namespace) -> None:
    session.engine.send(NAMESPACE)
    session.engine.ok("Namespace completed.")


def _enable(session: SessionState, event: Enable) -> None:
    engine = session.engine
    names = [name for name in event.names if name in session.services.rules.enabled]
    engine.enable(frozenset(names))
    if engine.condstore and not session.condstore:
        session.condstore_begins()
    engine.send(enabled_response(names))
    engine.ok("Enabled.")


def _logout(session: SessionState, _: Logout) -> None:
    session.engine.ok("Logout completed.")


# --- login ----------------------------------------------------------------------------------------


def _login(session: SessionState, event: Login) -> Work:
    return _log_in(session, credentials_of(event.user, event.password))


def _authenticate(session: SessionState, event: Authenticate) -> Work | None:
    session.dialogue = Dialogue(event.mechanism)
    return _step(session, event.initial)


def _authenticate_response(session: SessionState, event: AuthenticateResponse) -> Work | None:
    return _step(session, event.data)


def _step(session: SessionState, response: bytes | None) -> Work | None:
    assert session.dialogue is not None
    result = session.dialogue.step(response)
    if isinstance(result, Credentials):
        return _log_in(session, result)
    session.engine.challenge(result)
    return None


async def _log_in(session: SessionState, credentials: Credentials) -> None:
    services = session.services
    login = await log_in(credentials, session.client(), session.info, services)
    session.dialogue = None
    try:
        session.account = services.open_account(login)
    except BaseException:
        services.end_session(login, session.info.peer)
        raise
    session.login = login
    session.client().idle_time = 0.0
    session.engine.ok("Logged in", codes.capability(session.capabilities()))


SESSION_COMMANDS: Commands = {
    Capability: _capability,
    Id: _id,
    Namespace: _namespace,
    Enable: _enable,
    Logout: _logout,
    Login: _login,
    Authenticate: _authenticate,
    AuthenticateResponse: _authenticate_response,
}
