"""Protocols: what is said on a connection.

    base        what a handler is: the code that speaks a protocol for one listener
    streams     a function `(reader, writer)` as a handler
    protocol    what a protocol is, apart from that code; checking: what its checks see
    installed   which protocols there are, here and in other packages
    importing   from `package.module:Class` to a handler class
    registry    from a protocol to its handler class
    smtp/       smtp and lmtp
    http/       an ASGI application, or the management
    imap/, managesieve/, jmap/    what these protocols are; not served yet

Rules of this package: handlers know no configuration, and protocols do not import each other; what
several of them need is in `mail/`.
"""
