"""Envelopes: who sent a message, to whom, and what the sender asked for (RFC 5321 2.3.1).

Rules of this file: shapes, no behaviour. Whatever hands a message on (a session of SMTP, and later
JMAP's submission or Sieve's redirect) describes it to the relay and to the DSNs in these terms.
Values of parameters are as the sender wrote them, except where an attribute says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastlisten.mail.address import Mailbox

__all__ = ["Envelope", "EnvelopeRecipient"]


@dataclass(slots=True)
class EnvelopeRecipient:
    """One recipient.

    Attributes:
        mailbox: the address.
        notify: the value of NOTIFY (RFC 3461 4.1) in upper case: ``NEVER``, or some of SUCCESS,
            FAILURE and DELAY with commas between them; empty if nothing was said.
        orcpt: the value of ORCPT (RFC 3461 4.2) as given, empty if nothing was said.
    """

    mailbox: Mailbox
    notify: str = ""
    orcpt: str = ""


@dataclass(slots=True)
class Envelope:
    """The sender and the recipients of a message.

    Attributes:
        sender: the reverse path, empty for ``<>``.
        size: what was declared by SIZE (RFC 1870), in octets, 0 if nothing.
        body: ``7BIT``, ``8BITMIME`` or ``BINARYMIME`` as declared by BODY, empty if nothing.
        smtputf8: SMTPUTF8 (RFC 6531) was asked for.
        ret: ``FULL`` or ``HDRS`` as said by RET (RFC 3461 4.3), empty if nothing was said.
        envid: the value of ENVID (RFC 3461 4.4), xtext as given, empty if nothing was said.
        auth: the value of AUTH (RFC 4954 5), xtext as given but for the angle brackets that some
            clients put around an address, empty if nothing was said. Do not believe it from a
            client that may not speak for others.
        recipients: in order, duplicates included.
    """

    sender: str
    size: int = 0
    body: str = ""
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    auth: str = ""
    recipients: Sequence[EnvelopeRecipient] = field(default_factory=list)
