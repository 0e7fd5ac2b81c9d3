"""The SASL mechanisms that need only a user name and a password: PLAIN and LOGIN.

Rules of this file: octets in, challenges and credentials out; no base64, no replies, no accounts.
An object serves one exchange, of SMTP's AUTH or IMAP's AUTHENTICATE.

    PLAIN   RFC 4616: one response, [authzid] NUL name NUL password
    LOGIN   never standardised (draft-murchison-sasl-login), but all that some clients know: two
            responses, the name and the password. The challenges are worded as all clients expect.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastlisten.errors import FastlistenError

__all__ = [
    "MECHANISMS",
    "Credentials",
    "LoginMechanism",
    "PlainMechanism",
    "SaslError",
    "mechanism",
]


class SaslError(FastlistenError):
    """A response that no password is verified for.

    Args:
        text: why, for the client.
        malformed: it is no response of the mechanism; else it asks for what nobody is allowed.
    """

    def __init__(self, text: str, *, malformed: bool) -> None:
        super().__init__(text)
        self.text = text
        self.malformed = malformed


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password, not verified.

    Attributes:
        name: never empty.
        password: never empty.
        user: whom the client wants to act for; empty: for the name.
    """

    name: str
    password: str = field(repr=False)
    user: str = ""


def _text(octets: bytes) -> str:
    """Return a name or a password.

    Raises:
        SaslError: it is empty, is not UTF-8, or contains a NUL.
    """
    try:
        text = octets.decode()
    except UnicodeDecodeError as error:
        raise SaslError("User name or password is not UTF-8", malformed=True) from error
    if not text or "\0" in text:
        raise SaslError("User name or password is empty or contains a NUL", malformed=True)
    return text


class PlainMechanism:
    """PLAIN (RFC 4616).

    Args:
        acting: clients may ask to act for somebody else.
    """

    __slots__ = ("_acting",)

    def __init__(self, *, acting: bool = False) -> None:
        self._acting = acting

    def step(self, response: bytes | None) -> bytes | Credentials:
        """Process a response of the client.

        Args:
            response: decoded; None if there is none yet.

        Returns:
            A challenge to send, or the credentials.

        Raises:
            SaslError: the response is malformed; or the client wants to act for somebody else (an
                authorization identity that differs from the name), and may not ask for that.
        """
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise SaslError("Malformed PLAIN response", malformed=True)
        authzid, name, password = parts
        user = b"" if authzid == name else authzid
        texts = _text(name), _text(password)
        if not user:
            return Credentials(*texts)
        if not self._acting:
            text = "Authorization identity must be empty or match the user name"
            raise SaslError(text, malformed=False)
        return Credentials(*texts, _text(user))


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
            SaslError: it cannot be a name or a password.
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


def mechanism(name: str, *, acting: bool = False) -> PlainMechanism | LoginMechanism:
    """Return the server side of a mechanism.

    Args:
        name: one of `MECHANISMS`.
        acting: clients may ask to act for somebody else.

    Raises:
        ValueError: the name is not one of them.
    """
    if name == "PLAIN":
        return PlainMechanism(acting=acting)
    if name == "LOGIN":
        return LoginMechanism()
    raise ValueError(f"unknown mechanism {name}")
