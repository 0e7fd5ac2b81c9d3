"""DSNs of success as messages (RFC 3461, RFC 3464): delivered, or relayed to a server without DSN.

Rules of this file: texts only. A DSN is made from the envelope and the header of a message; whether
one is sent is decided in sender.py. It returns the header alone, whatever RET says: RET=FULL is
for DSNs of failure (RFC 3461 4.3).
"""

from __future__ import annotations

import email.policy
import email.utils
import re
from email.message import EmailMessage, Message

from fastlisten.mail.dsn.outcome import Outcome
from fastlisten.mail.envelope import Envelope
from fastlisten.mail.xtext import decode_xtext

__all__ = ["LARGEST_HEADER", "dsn_message", "header_of"]

#: BytesSource of a message's header that are kept for its DSN.
LARGEST_HEADER = 64 * 1024

#: Addresses that every parser reads in the same way.
_SIMPLE = re.compile(r"[\w+-]+(?:\.[\w+-]+)*@[\w-]+(?:\.[\w-]+)*")

_UNPRINTABLE = re.compile(r"[^ -~]")
_UNPRINTABLE_OCTETS = re.compile(rb"[^\t\r\n -~]")

#: What the reader is told, by the action of RFC 3464 2.3.3.
_WORDS = {
    "delivered": "Your message was successfully delivered to:",
    "relayed": "Your message was relayed to a server that may not send further reports, for:",
}
_SUBJECTS = {
    "delivered": "Delivered: your message",
    "relayed": "Relayed: your message",
}


def header_of(beginning: bytes) -> bytes:
    """Return the header of a message, as far as a DSN returns it.

    Args:
        beginning: of the message.
    """
    if beginning.startswith(b"\r\n"):
        return b""  # there is none, all is body
    return beginning.partition(b"\r\n\r\n")[0][:LARGEST_HEADER] + b"\r\n"


def dsn_message(
    envelope: Envelope, outcome: Outcome, header: bytes, hostname: str, arrival: str
) -> bytes:
    """Return a DSN for the sender of a message.

    Args:
        envelope: the message's; its sender is not empty.
        outcome: what became of it.
        header: the message's header.
        hostname: the name the server calls itself.
        arrival: when the message came, as a header writes dates.
    """
    plain = envelope.sender.isascii()
    message = EmailMessage(email.policy.SMTP if plain else email.policy.SMTPUTF8)
    message["From"] = f"Mail Delivery System <postmaster@{hostname}>"
    # `email` parses the address, and misreads or rejects some forms that clients may use. The
    # envelope has the address in any case.
    simple = _SIMPLE.fullmatch(envelope.sender)
    message["To"] = f"<{envelope.sender}>" if simple else "undisclosed-recipients:;"
    message["Subject"] = _SUBJECTS[outcome.action]
    message["Date"] = email.utils.formatdate()
    message["Message-ID"] = email.utils.make_msgid(domain=hostname)
    # RFC 3834 5: automatic responders do not answer this.
    message["Auto-Submitted"] = "auto-replied"
    message["MIME-Version"] = "1.0"
    message.add_header("Content-Type", "multipart/report", report_type="delivery-status")
    text = _WORDS[outcome.action] + "\n\n"
    text += "".join(f"    {_ascii(str(each.mailbox))}\n" for each in outcome.recipients)
    text += "\nYou asked for this report when you sent the message. No action is required.\n"
    for kind, content in (
        ("text/plain", text.encode()),
        ("message/delivery-status", _status(envelope, outcome, hostname, arrival)),
        ("text/rfc822-headers", _UNPRINTABLE_OCTETS.sub(b"?", header)),
    ):
        message.attach(_part(kind, content))  # type: ignore[arg-type]  # any Message will do
    return message.as_bytes()


def _part(kind: str, content: bytes) -> Message:
    part = Message(policy=email.policy.SMTP)
    part["Content-Type"] = kind
    text = content.decode("ascii").replace("\r\n", "\n")
    if kind.startswith("message/"):
        # The generator wants such parts as a list of blocks of fields.
        blocks: list[Message | str] = []
        for block in text.strip("\n").split("\n\n"):
            fields = Message(policy=email.policy.compat32)
            for line in block.split("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
            blocks.append(fields)
        part.set_payload(blocks)
    else:
        part.set_payload(text)
    return part


def _status(envelope: Envelope, outcome: Outcome, hostname: str, arrival: str) -> bytes:
    """Return the machine-readable part (RFC 3464 2.1)."""
    lines = []
    if envelope.envid:
        lines.append(f"Original-Envelope-Id: {_decoded(envelope.envid)}")
    lines += [f"Reporting-MTA: dns; {hostname}", f"Arrival-Date: {arrival}"]
    for recipient in outcome.recipients:
        lines.append("")
        if recipient.orcpt:
            kind, _, address = recipient.orcpt.partition(";")
            lines.append(f"Original-Recipient: {kind}; {_decoded(address)}")
        address = str(recipient.mailbox)
        kind = "rfc822" if address.isascii() else "utf-8"  # RFC 6533 3
        lines.append(f"Final-Recipient: {kind}; {_ascii(address)}")
        lines.append(f"Action: {outcome.action}")
        lines.append(f"Status: {outcome.status}")
        if outcome.remote:
            lines.append(f"Remote-MTA: dns; {outcome.remote}")
    return "\n".join(lines).encode()


def _decoded(xtext: str) -> str:
    """Return xtext (RFC 3461 4) decoded, or as it is if a header cannot hold that."""
    return _ascii(decode_xtext(xtext) or xtext)


def _ascii(text: str) -> str:
    """Return a text with characters beyond ASCII written as RFC 6533 3 does."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{{{ord(match[0]):X}}}", text)
