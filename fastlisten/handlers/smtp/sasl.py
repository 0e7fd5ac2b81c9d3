"""The SASL mechanisms that need only a user name and a password: PLAIN and LOGIN.

Rules of this file: octets in, challenges and credentials out; no base64, no replies except
refusals, no accounts. An object serves one AUTH exchange.

    PLAIN   RFC 4616: one response, [authzid] NUL name NUL password
    LOGIN   never standardised (draft-murchison-sasl-login), but all that some clients know: two
            responses, the name and the password. The challenges are worded as all clients expect.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastlisten.handlers.smtp.engine.refusal import Refused

__all__ = ["MECHANISMS", "Credentials", "LoginMechanism", "PlainMechanism", "mechanism"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password, not verified.

    Attributes:
        name: never empty.
        password: never empty.
    """

    name: str
    password: str = field(repr=False)


def _text(octets: bytes) -> str:
    """Return a name or a password.

    Raises:
        Refused: it is empty, is not UTF-8, or contains a NUL.
    """
    try:
        text = octets.decode()
    except UnicodeDecodeError as error:
        raise Refused(501, "5.5.2", "User name or password is not UTF-8") from error
    if not text or "\0" in text:
        raise Refused(501, "5.5.2", "User name or password is empty or contains a NUL")
    return text


class PlainMechanism:
    """PLAIN (RFC 4616)."""

    __slots__ = ()

    def step(self, response: bytes | None) -> bytes | Credentials:
        """Process a response of the client.

        Args:
            response: decoded; None if there is none yet.

        Returns:
            A challenge to send, or the credentials.

        Raises:
            Refused: 501 for a malformed response; 535 for a client that wants to act for somebody
                else (an authorization identity that differs from the name).
        """
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise Refused(501, "5.5.2", "Malformed PLAIN response")
        authzid, name, password = parts
        credentials = Credentials(_text(name), _text(password))
        if authzid not in (b"", name):
            text = "Authorization identity must be empty or match the user name"
            raise Refused(535, "5.7.8", text)
        return credentials


class LoginMechanism:
    """LOGIN; the name may come as the initial response."""

    __slots__ = ("_name",)

    def __init__(self) -> None:
        self._name = ""

    def step(self, response: bytes | None) -> bytes | Credentials:
        """Process a response of the client.

        Args:
            response: decoded; None if there is none yet.

        Returns:
            A challenge to send, or the credentials.

        Raises:
            Refused: 501 for what cannot be a name or a password.
        """
        if response is None:
            return b"Username:"
        text = _text(response)
        if not self._name:
            self._name = text
            return b"Password:"
        return Credentials(self._name, text)


#: The names that `mechanism` knows, in the order in which to announce them.
MECHANISMS = ("PLAIN", "LOGIN")


def mechanism(name: str) -> PlainMechanism | LoginMechanism:
    """Return the server side of a mechanism.

    Args:
        name: one of `MECHANISMS`.

    Raises:
        ValueError: the name is not one of them.
    """
    if name == "PLAIN":
        return PlainMechanism()
    if name == "LOGIN":
        return LoginMechanism()
    raise ValueError(f"unknown mechanism {name}")
