"""Protocols: what is said on a connection.

    base             what a handler is: the code that speaks a protocol for one listener
    streams          a function `(reader, writer)` as a handler
    protocol         what a protocol is, apart from that code: ports, rows, defaults, checks
    check_interface  what a protocol's check sees of the configuration and how it reports mistakes;
                     the checks themselves are in each protocol's `checks.py`
    installed        which protocols this package and other packages register
    importing        from `package.module:Class` to a handler class
    registry         from a protocol's name to its handler class
    smtp/            smtp and lmtp
    http/            ASGI applications, and the management interface
    imap/, managesieve/, jmap/    what these protocols are; not served yet

Rules of this package: handlers know nothing of the configuration, and protocols do not import each
other; what several of them need is in `mail/`.
"""
