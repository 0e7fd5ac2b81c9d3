"""Protocols, and the handlers that speak them.

    base             the base class of handlers: code that speaks a protocol for one listener
    streams          a function `(reader, writer)` as a handler
    protocol         the description of a protocol: ports, options, defaults, checks
    check_interface  how a protocol's check reads the configuration and reports mistakes; the
                     checks themselves are in each protocol's `checks.py`
    installed        finds protocols in this package and in others
    importing        imports a handler class by its name, `package.module:Class`
    transcript       the dialogue of a mail session in the log
    registry         finds the handler class of a protocol
    engine_connection, session_log    what smtp and imap have in common: octets, flow control and
                     STARTTLS around an engine without I/O; the records of sessions
    smtp/            smtp and lmtp
    http/            ASGI applications, such as the management application
    imap/            imap: reads what smtp and lmtp have delivered
    managesieve/, jmap/    descriptions of protocols that are not served yet

Rules of this package: handlers do not depend on the configuration, and protocols do not import each
other; what several of them need is beside them here, or in `mail/`.
"""
