"""The SASL mechanisms that need no more than a name and a password: PLAIN and LOGIN.

Rules of this file: octets in, challenges and credentials out; no base64, no replies but refusals,
no accounts. An object serves one dialogue.

    PLAIN   RFC 4616: one response, [authzid] NUL name NUL password
    LOGIN   never standardised (draft-murchison-sasl-login), and what some clients know alone: two
            responses, the name and the password. The words of the challenges are those that all
            clients take.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastlisten.handlers.smtp.engine.refusal import Refused

__all__ = ["MECHANISMS", "Credentials", "LoginMechanism", "PlainMechanism", "mechanism"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a client says it is, and what it offers as proof.

    Attributes:
        name: the name it authenticates with, never empty.
        password: never empty.
    """

    name: str
    password: str = field(repr=False)


def _text(octets: bytes) -> str:
    """Return a name or a password.

    Raises:
        Refused: it is empty, no UTF-8, or holds a NUL.
    """
    try:
        text = octets.decode()
    except UnicodeDecodeError as error:
        raise Refused(501, "5.5.2", "Name or password is not UTF-8") from error
    if not text or "\0" in text:
        raise Refused(501, "5.5.2", "Name or password is missing or holds a NUL")
    return text


class PlainMechanism:
    """PLAIN."""

    __slots__ = ()

    def step(self, response: bytes | None) -> bytes | Credentials:
        """Take what the client said.

        Args:
            response: decoded; None if it has said nothing yet.

        Returns:
            A challenge to be sent, or what the client said who it is.

        Raises:
            Refused: 501 for what is not in the form; 535 for a client that wants to act for
                somebody else (an authorization identity that is not its own name).
        """
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise Refused(501, "5.5.2", "Malformed PLAIN response")
        authzid, name, password = parts
        credentials = Credentials(_text(name), _text(password))
        if authzid not in (b"", name):
            raise Refused(535, "5.7.8", "Authorization identity must be empty or the user name")
        return credentials


class LoginMechanism:
    """LOGIN. The name may come as the initial response."""

    __slots__ = ("_name",)

    def __init__(self) -> None:
        self._name = ""

    def step(self, response: bytes | None) -> bytes | Credentials:
        """Take what the client said.

        Args:
            response: decoded; None if it has said nothing yet.

        Returns:
            A challenge to be sent, or what the client said who it is.

        Raises:
            Refused: 501 for what can be no name or no password.
        """
        if response is None:
            return b"Username:"
        text = _text(response)
        if not self._name:
            self._name = text
            return b"Password:"
        return Credentials(self._name, text)


#: What `mechanism` knows, in the order in which it should be announced.
MECHANISMS = ("PLAIN", "LOGIN")


def mechanism(name: str) -> PlainMechanism | LoginMechanism:
    """Return the server's side of a dialogue.

    Args:
        name: one of `MECHANISMS`.

    Raises:
        ValueError: another.
    """
    if name == "PLAIN":
        return PlainMechanism()
    if name == "LOGIN":
        return LoginMechanism()
    raise ValueError(f"no mechanism is called {name}")
